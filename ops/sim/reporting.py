"""The reports worker's rim in the simulation: beats, REPORT and CLUSTER in, writes to the API out by the API's own rules.

The process folds CLUSTER for as long as it lives; the work (cloud/reports.py) begins with a list of that fold, which may be
behind, and ends when the process leads no more."""

from __future__ import annotations

from collections.abc import Callable

from bus import log
from cloud import api
from cloud.beats import SPOKEN_S
from cloud.clones import Clones
from cloud.core import report_words as words
from cloud.core import reports as core
from cloud.core.reports import Reports
from cloud.core.writes import Write
from cloud.reports import ACTOR, PAUSE_S
from ops.sim.api import ApiWorker, WorkersStorage
from ops.sim.hub import Hub
from ops.sim.leading import Lead
from ops.sim.schedule import S, Schedule
from ops.sim.wire import Wire
from schemas import reports, subjects, sync
from schemas.subjects import ObjectKey

TICK_US = 1 * S
PAUSE_US = int(PAUSE_S * S)
CLONES_LOOK_TICKS = 60


class ReportsWorker(ApiWorker):
    """``ask_for_beat(node)`` reaches every daemon of that name."""

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        hub: Hub,
        wire: Wire,
        ask_for_beat: Callable[[str], None],
        make: Callable[[], Reports] = Reports,
        storage: type[WorkersStorage] = WorkersStorage,
        *,
        lead: Lead | None = None,
    ) -> None:
        super().__init__(name, schedule, hub, wire, storage)
        self._ask_for_beat, self._make, self._lead = ask_for_beat, make, lead
        self.core = make()
        self.complaints: list[str] = []
        self._work = self.life
        self._to_load = 0
        self._loaded = False
        self._watched: list[words.ApiEvent] | None = None  # what the watch tells while the list is still being told
        self._begun = False

    def begin(self) -> None:
        self.made()
        self._clones, self._ticks, self._loaded, self._begun = Clones(), 0, False, False
        self._work.end()
        self.follow("CLUSTER", self._api_event, self._api_loaded)
        self.later(TICK_US, self._look_for_clones)

    def another_epoch(self) -> None:
        """The process goes on, and leads if it leads."""
        self.epoch = self.hub.epoch
        self.storage.forget()
        self.follow("CLUSTER", self._api_event, self._api_loaded)

    # --- work

    def _work_anew(self) -> None:
        """As cloud/reports.py: deleted Nodes from the log, a list, a watch from before both, then REPORT."""
        self._end_work()
        work = self._work = self.new_life()
        self._clock_off_us = self.clock.now_us - self.schedule.mono_us
        self.core, self._watched = self._make(), []
        nodes = subjects.cluster(ObjectKey("", "nodes", "", "x")).removesuffix("x") + ">"
        work.insist(lambda: self.hub.lasts("CLUSTER", nodes), self._listed)

    def _end_work(self) -> None:
        self._work.end()
        self._loaded, self._watched = False, None

    def _listed(self, nodes: list[log.Recorded]) -> None:
        for r in nodes:
            ev = r.event()
            if ev.data is None:
                self._tell(words.ApiEvent(r.seq, ev.key, None, r.time_us))
        for group, resource in sorted(core.FOLDED):
            for stored in self.storage.list(group, resource):
                self._tell(words.ApiEvent(stored.rev, stored.key, stored.object, 0))
        watched, self._watched = self._watched or [], None
        for change in watched:
            self._tell(change)
        streams = [n for n in self.hub.streams if n.startswith("REPORT-")]
        self._to_load = len(streams)
        for name in streams:
            self._work.follow(name, self._reported, self._one_loaded)

    def _now_us(self) -> int:
        """As bus.stamp.SteadyClock."""
        return self.schedule.mono_us + self._clock_off_us

    # --- beats: as cloud/beats.py

    def beat(self, node: str, run: str, boot: str) -> bytes | None:
        """The answer; None when nobody is there to give one."""
        if not self.running or self.paused:
            return None
        verdict = self._clones.beat(node, run, self.schedule.mono_us / S)
        if not self._loaded:
            return None
        if verdict.news:
            self._duplicate(node, verdict.news)
        if verdict.news or verdict.new:
            self._ask_for_beat(node)
        if verdict.fenced:
            return reports.FENCED
        self._work.later(1, lambda: self._tell(words.BeatSeen(node, self._now_us())))
        again = verdict.known_s >= SPOKEN_S and self.core.spoken_for(node, boot)
        return (reports.AGAIN if again else b"") + self._mark(node)

    def _mark(self, node: str) -> bytes:
        shards = [subjects.shard_of(scope, self.hub.shards) for scope in (node, "all")]
        return sync.epochs_mark([self.hub.streams[f"META-{n}"].epoch for n in shards])

    def _duplicate(self, node: str, message: str) -> None:
        self._work.later(1, lambda: self._tell(words.Duplicate(node, message, self._now_us())))

    def link_down(self, node: str) -> None:
        """The hub's word of a link that ended."""
        if self.running and self._loaded:
            self._work.later(1, lambda: self._tell(words.LinkDown(node, self._now_us())))

    # --- folds

    def _api_loaded(self) -> None:
        """The first time, or again of another log: then whoever watches is sent away, and begins anew."""
        self.storage.begin()
        if not self._begun:
            self._begun = True
            if self._lead is None:
                self._work_anew()
            else:
                self._lead(self, "reports", self._work_anew, self._end_work, lambda: 0).start()
        elif not self._work.over:
            self._end_work()
            self._work = work = self.new_life()
            work.later(PAUSE_US, self._work_anew)

    def _one_loaded(self) -> None:
        self._to_load -= 1
        if self._to_load == 0:
            self._loaded = True
            self._tell(words.Loaded(self._now_us()))
            self._tick()

    def _tick(self) -> None:
        self._tell(words.Tick(self._now_us()))
        self._work.later(TICK_US, self._tick)

    def _look_for_clones(self) -> None:
        self._ticks += 1
        if self._ticks % CLONES_LOOK_TICKS == 0:
            for node in self._clones.over(self.schedule.mono_us / S):
                self._duplicate(node, "")
        self.later(TICK_US, self._look_for_clones)

    def _api_event(self, r: log.Recorded, _: bool) -> None:
        """As the API's watches tell it, once the fold has it."""
        self.storage.take(r)
        if self._work.over or not self.storage.current:
            return
        ev = r.event()
        change = words.ApiEvent(r.seq, ev.key, ev.data, r.time_us)
        if self._watched is not None:
            self._watched.append(change)
        else:
            self._tell(change)

    def _reported(self, r: log.Recorded, _: bool) -> None:
        self._tell(words.Reported(r.seq, r.event(), r.time_us))

    # --- stimuli in, writes out

    def _tell(self, stimulus: words.Stimulus) -> None:
        for i in self.core.handle(stimulus):
            self.step()
            match i:
                case Write():
                    self._work.spawn(self._write(i), self._ended)
                case words.Complain():
                    self.complaints.append(f"{i.about}: {i.reason}")

    async def _write(self, w: Write) -> None:
        outcome = await api.execute(self.registry, w, ACTOR)
        match outcome:
            case api.Done(rev):
                self._tell(words.Written(w.key, rev))
            case api.Stale():
                self._tell(words.WriteConflict(w.key))
            case api.Unreachable():
                self._tell(words.WriteFailed(w.key))
            case api.Refused(reason):
                self.complaints.append(f"refused by the API: {reason}")
                self._tell(words.WriteRefused(w.key))

    def _ended(self, result: object) -> None:
        if isinstance(result, Exception):
            raise result
