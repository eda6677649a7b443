"""The cloud's processes: real dispatcher and reports cores, and a rim that dies, loses answers and lags."""

from __future__ import annotations

from bus import log
from cloud import api as api_writes
from cloud import sync as sync_service
from cloud.core import report_words as words
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from cloud.core.reports import FOLDED, Reports
from cloud.core.writes import Write
from ops.sim.api import Api, run_now
from ops.sim.hub import Hub
from ops.sim.world import MS, Process, S, World
from schemas import event, subjects, sync

TIMEOUT_US = 5 * S
PAGE_EVENTS = 4  # of a catch-up: small, so that pages follow each other


class DispatcherProcess(Process):
    """As cloud/dispatcher.py: META, then CLUSTER, then follow."""

    def __init__(self, world: World, name: str, hub: Hub) -> None:
        super().__init__(world, name)
        self.hub = hub
        self.core = Dispatcher(hub.shards)
        self._position = 0
        self.loaded = False

    def on_start(self) -> None:
        self.core, self.loaded, self._position = self.make_core(), False, 0
        self.later(self.world.latency_us(), self._load_meta, 0)

    def make_core(self) -> Dispatcher:
        return Dispatcher(self.hub.shards)

    def _load_meta(self, shard: int) -> None:
        if shard == self.hub.shards:
            self.later(self.world.latency_us(), self._load_cluster)
            return
        for r in self.hub.last(f"META-{shard}").records:
            self._tell(_meta_event(r))
        self.later(self.world.latency_us(), self._load_meta, shard + 1)

    def _load_cluster(self) -> None:
        state = self.hub.last("CLUSTER")
        for r in state.records:
            self._tell(stimuli.ClusterEvent(r.seq, r.event()))
        self._position, self.loaded = state.up_to, True
        self._tell(stimuli.Loaded(state.up_to))
        self._follow()

    def _follow(self) -> None:
        for r in self.hub.after("CLUSTER", self._position):
            self._position = r.seq
            self._tell(stimuli.ClusterEvent(r.seq, r.event()))
            if not self.up:
                return
        self.later(self.world.rng.randrange(1 * MS, 300 * MS), self._follow)

    def _tell(self, s: stimuli.Stimulus) -> None:
        if not self.step(self.world.faults.crash_cloud):
            return
        for i in self.core.handle(s):
            match i:
                case stimuli.Append():
                    self.later(self.world.latency_us(), self._append, i)
                case stimuli.ReloadScope(scope, delay_ms):
                    self.later(delay_ms * MS + self.world.latency_us(), self._reload, scope)

    def _append(self, a: stimuli.Append) -> None:
        w = self.world
        if w.chance(w.faults.request_lost):
            self.later(TIMEOUT_US, self._tell, stimuli.AppendFailed(a.scope))
            return
        expect = log.Expect(a.prev, subjects.meta_scope(a.scope, self.hub.shards))
        try:
            seq = self.hub.append(subjects.meta(a.scope, a.key, self.hub.shards), self._event(a), expect)
            answer: stimuli.Stimulus = stimuli.Appended(a.scope, seq)
        except log.WrongSequence:
            answer = stimuli.AppendConflict(a.scope)
        if w.chance(w.faults.answer_lost):
            self.later(TIMEOUT_US, self._tell, stimuli.AppendFailed(a.scope))
        elif self.step(w.faults.crash_cloud):
            self.later(w.latency_us(), self._tell, answer)

    def _event(self, a: stimuli.Append) -> event.Event:
        ident = self.world.new_id()
        return event.Event(
            id=ident,
            type=event.OBJECT_DELETED if a.data is None else event.OBJECT_APPLIED,
            scope=a.scope,
            group=a.key.group,
            resource=a.key.resource,
            namespace=a.key.namespace,
            name=a.key.name,
            uid=a.uid,
            rev=a.rev,
            time=self.world.now_us,
            source=f"sim/{self.name}",
            cause=a.cause,
            trace=a.trace or ident,
            prev=a.prev,
            data=a.data,
        )

    def _reload(self, scope: str) -> None:
        if self.world.chance(self.world.faults.request_lost):
            self.later(TIMEOUT_US, self._tell, stimuli.ReloadFailed(scope))
            return
        shard = subjects.shard_of(scope, self.hub.shards)
        prefix = subjects.meta_scope(scope, self.hub.shards)[:-1]
        entries = tuple(_meta_event(r) for r in self.hub.last(f"META-{shard}", prefix).records)
        self.later(self.world.latency_us(), self._reloaded, scope, entries)

    def _reloaded(self, scope: str, entries: tuple[stimuli.MetaEvent, ...]) -> None:
        last = self.hub.info("CLUSTER").last_seq
        self.later(self.world.latency_us(), self._tell, stimuli.ScopeReloaded(scope, entries, last))


def _meta_event(r: log.Recorded) -> stimuli.MetaEvent:
    _, scope, key = subjects.parse_meta(r.subject)
    return stimuli.MetaEvent(r.seq, scope, key, r.event())


class ReportsProcess(Process):
    """As cloud/reports.py, with the API's changes read from CLUSTER."""

    def __init__(self, world: World, name: str, hub: Hub, api: Api) -> None:
        super().__init__(world, name)
        self.hub, self.api = hub, api
        self.core = Reports()
        self._positions: dict[str, int] = {}
        self.loaded = False

    def on_start(self) -> None:
        self.core, self.loaded, self._positions = Reports(), False, {}
        self.later(self.world.latency_us(), self._load)

    def _load(self) -> None:
        for stream in self.hub.streams:
            if not stream.startswith("META"):
                state = self.hub.last(stream)
                self._positions[stream] = state.up_to
                for r in state.records:
                    self._record(r)
        self.loaded = True
        self._tell(words.Loaded(self.world.now_us))
        for stream in self._positions:
            self._follow(stream)
        self._tick()

    def _follow(self, stream: str) -> None:
        for r in self.hub.after(stream, self._positions[stream]):
            self._positions[stream] = r.seq
            self._record(r)
            if not self.up:
                return
        self.later(self.world.rng.randrange(1 * MS, 300 * MS), self._follow, stream)

    def _record(self, r: log.Recorded) -> None:
        ev = r.event()
        if r.stream == "CLUSTER":
            if (ev.group, ev.resource) in FOLDED:
                self._tell(words.ApiEvent(r.seq, ev.key, ev.data, r.time_us))
        else:
            self._tell(words.Reported(r.seq, ev, r.time_us))

    def _tick(self) -> None:
        self._tell(words.Tick(self.world.now_us))
        self.later(S, self._tick)

    def beat(self, node: str) -> bool:
        """Whether it is answered."""
        if self.up and self.loaded:
            self._tell(words.BeatSeen(node, self.world.now_us))
        return self.up and self.loaded

    def link_down(self, node: str) -> None:
        if self.up and self.loaded:
            self._tell(words.LinkDown(node, self.world.now_us))

    def _tell(self, s: words.Stimulus) -> None:
        if not self.up or not self.step(self.world.faults.crash_cloud):
            return
        for i in self.core.handle(s):
            if isinstance(i, Write):
                self.later(self.world.latency_us(), self._write, i)
            else:
                raise AssertionError(f"{self.name} complains about what nobody garbled: {i}")

    def _write(self, w: Write) -> None:
        world = self.world
        lost = words.WriteFailed(w.key)
        if world.chance(world.faults.request_lost):
            self.later(TIMEOUT_US, self._tell, lost)
            return
        answer: words.Stimulus
        match run_now(api_writes.execute(self.api.registry, w, "system:edge-reports")):
            case api_writes.Done(rev):
                answer = words.Written(w.key, rev)
            case api_writes.Stale():
                answer = words.WriteConflict(w.key)
            case api_writes.Unreachable():
                answer = lost
            case api_writes.Refused(reason):
                raise AssertionError(f"{self.name} wrote what the API refuses: {reason}")
        if world.chance(world.faults.answer_lost):
            self.later(TIMEOUT_US, self._tell, lost)
        elif self.step(world.faults.crash_cloud):
            self.later(world.latency_us(), self._tell, answer)


class SyncModel:
    """The sync service: stateless, its answer made by the real ``page_of``."""

    def __init__(self, world: World, hub: Hub) -> None:
        self.world, self.hub = world, hub
        self.answers = 0

    def answer(self, cursors: list[sync.ScopeCursor]) -> list[sync.ScopePage]:
        self.answers += 1
        return [self._page(c) for c in cursors]

    def _page(self, asked: sync.ScopeCursor) -> sync.ScopePage:
        stream = f"META-{subjects.shard_of(asked.scope, self.hub.shards)}"
        info = self.hub.info(stream)
        after = 0 if sync_service.starts_anew(asked, info) else asked.cursor
        limit = self.world.rng.choice([1, PAGE_EVENTS, 10 * PAGE_EVENTS])
        prefix = subjects.meta_scope(asked.scope, self.hub.shards)[:-1]
        return sync_service.page_of(asked, info, self.hub.last(stream, prefix, after, limit))
