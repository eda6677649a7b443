"""The reports worker's rim in the simulation: beats, REPORT and CLUSTER in, writes to the API out by the API's own rules."""

from __future__ import annotations

from collections.abc import Callable

from bus import log
from cloud import api
from cloud.beats import SPOKEN_S
from cloud.clones import Clones
from cloud.core import report_words as words
from cloud.core.reports import Reports
from cloud.core.writes import Write
from cloud.reports import ACTOR
from ops.sim.api import ApiWorker, WorkersStorage
from ops.sim.hub import Hub
from ops.sim.schedule import S, Schedule
from ops.sim.wire import Wire
from schemas import reports, subjects, sync

TICK_US = 1 * S
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
    ) -> None:
        super().__init__(name, schedule, hub, wire, storage)
        self._ask_for_beat, self._make = ask_for_beat, make
        self.core = make()
        self.complaints: list[str] = []
        self._to_load = 0
        self._loaded = False

    def begin(self) -> None:
        self.made()
        self._clock_off_us = self.clock.now_us - self.schedule.mono_us
        self.core, self._clones, self._ticks, self._loaded = self._make(), Clones(), 0, False
        streams = [n for n in self.hub.streams if n.startswith("REPORT-")]
        self._to_load = 1 + len(streams)
        self.follow("CLUSTER", self._api_event, self._api_loaded)
        for name in streams:
            self.follow(name, self._reported, self._one_loaded)

    def _now_us(self) -> int:
        """As bus.stamp.SteadyClock."""
        return self.schedule.mono_us + self._clock_off_us

    # --- beats: as cloud/beats.py

    def beat(self, node: str, run: str, boot: str) -> bytes | None:
        """The answer; None when nobody is there to give one."""
        if not self.running or self.paused or not self._loaded:
            return None
        verdict = self._clones.beat(node, run, self.schedule.mono_us / S)
        if verdict.news:
            self._duplicate(node, verdict.news)
        if verdict.news or verdict.new:
            self._ask_for_beat(node)
        if verdict.fenced:
            return reports.FENCED
        self.later(1, lambda: self._tell(words.BeatSeen(node, self._now_us())))
        again = verdict.known_s >= SPOKEN_S and self.core.spoken_for(node, boot)
        return (reports.AGAIN if again else b"") + self._mark(node)

    def _mark(self, node: str) -> bytes:
        shards = [subjects.shard_of(scope, self.hub.shards) for scope in (node, "all")]
        return sync.epochs_mark([self.hub.streams[f"META-{n}"].epoch for n in shards])

    def _duplicate(self, node: str, message: str) -> None:
        self.later(1, lambda: self._tell(words.Duplicate(node, message, self._now_us())))

    def link_down(self, node: str) -> None:
        """The hub's word of a link that ended."""
        if self.running and self._loaded:
            self.later(1, lambda: self._tell(words.LinkDown(node, self._now_us())))

    # --- folds

    def _api_loaded(self) -> None:
        self.storage.begin()
        self._one_loaded()

    def _one_loaded(self) -> None:
        self._to_load -= 1
        if self._to_load == 0:
            self._loaded = True
            self._tell(words.Loaded(self._now_us()))
            self._tick()

    def _tick(self) -> None:
        self._tell(words.Tick(self._now_us()))
        self._ticks += 1
        if self._ticks % CLONES_LOOK_TICKS == 0:
            for node in self._clones.over(self.schedule.mono_us / S):
                self._duplicate(node, "")
        self.later(TICK_US, self._tick)

    def _api_event(self, r: log.Recorded, _: bool) -> None:
        """As the API's lists and watches tell it: what was gone before the start isn't told, but for Nodes."""
        self.storage.take(r)
        ev = r.event()
        if ev.data is None and self._to_load and ev.resource != "nodes":
            return
        self._tell(words.ApiEvent(r.seq, ev.key, ev.data, r.time_us))

    def _reported(self, r: log.Recorded, _: bool) -> None:
        self._tell(words.Reported(r.seq, r.event(), r.time_us))

    # --- stimuli in, writes out

    def _tell(self, stimulus: words.Stimulus) -> None:
        for i in self.core.handle(stimulus):
            self.step()
            match i:
                case Write():
                    self.spawn(self._write(i), self._ended)
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
