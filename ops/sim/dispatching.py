"""The dispatcher's rim in the simulation: what cloud/dispatcher.py does with the log, done with the model."""

from __future__ import annotations

from collections.abc import Callable

from bus import log
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from ops.sim.hub import Hub
from ops.sim.schedule import Schedule
from ops.sim.wire import Wire
from ops.sim.worker import Worker
from schemas import codec, event, subjects


class DispatcherWorker(Worker):
    """``fenced`` is False for a mutant only: it writes whatever the log says."""

    def __init__(
        self, name: str, schedule: Schedule, hub: Hub, wire: Wire, make: Callable[[int], Dispatcher], *, fenced: bool = True
    ) -> None:
        super().__init__(name, schedule, hub, wire)
        self._make, self._fenced = make, fenced
        self.core = make(hub.shards)
        self.loaded = False

    def begin(self) -> None:
        self.core = self._make(self.hub.shards)
        self.loaded = False
        self._load_meta(0)

    @property
    def idle(self) -> bool:
        return self.core.idle and self.core.folded == self.hub.streams["CLUSTER"].last_seq

    def _load_meta(self, shard: int) -> None:
        if shard == self.hub.shards:
            self.follow("CLUSTER", self._fold, self._folded)
        else:
            self.follow(f"META-{shard}", lambda r, _: self._tell(_entry(r)), lambda: self._load_meta(shard + 1))

    def _fold(self, r: log.Recorded, more: bool) -> None:
        self._tell(stimuli.ClusterEvent(r.seq, r.event(), more))

    def _folded(self) -> None:
        self.loaded = True
        self._tell(stimuli.Loaded(self.core.folded))

    def _tell(self, stimulus: stimuli.Stimulus) -> None:
        for i in self.core.handle(stimulus):
            self.step()
            match i:
                case stimuli.Append():
                    self._append(i)
                case stimuli.ReloadScope():
                    self._reload(i)

    def _append(self, a: stimuli.Append) -> None:
        subject = subjects.meta(a.scope, a.key, self.hub.shards)
        expect = log.Expect(a.prev, subjects.meta_scope(a.scope, self.hub.shards)) if self._fenced else None
        ev = self._event(a)
        payload, epoch = codec.encode_event(ev), self.epoch

        def done(answer: int | log.LogError) -> None:
            match answer:
                case log.WrongSequence():
                    self._tell(stimuli.AppendConflict(a.scope))
                case log.LogError():
                    self._tell(stimuli.AppendFailed(a.scope))
                case seq:
                    self._tell(stimuli.Appended(a.scope, seq))

        self.ask(lambda: self.hub.append(subject, payload, ev.id, expect, epoch), done, write=True)

    def _event(self, a: stimuli.Append) -> event.Event:
        ident = self.schedule.new_id()
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
            time=self.clock.now_us,
            source=f"{self.name}@{self.epoch}",
            cause=a.cause,
            trace=a.trace or ident,
            prev=a.prev,
            data=a.data,
        )

    def _reload(self, r: stimuli.ReloadScope) -> None:
        shards = self.hub.shards
        stream, filter_ = f"META-{subjects.shard_of(r.scope, shards)}", subjects.meta_scope(r.scope, shards)

        def read() -> log.LastState:
            return self.hub.last(stream, filter_, after=0, bytes_max=1 << 30)

        def got(state: log.LastState | log.LogError) -> None:
            if isinstance(state, log.LogError):
                self._tell(stimuli.ReloadFailed(r.scope))
            else:
                self.ask(lambda: self.hub.info("CLUSTER"), lambda info: told(state, info))

        def told(state: log.LastState, info: log.StreamInfo | log.LogError) -> None:
            if isinstance(info, log.LogError):
                self._tell(stimuli.ReloadFailed(r.scope))
                return
            entries = tuple(_entry(x) for x in state.records)
            head = max((x.seq for x in state.records), default=0)
            self._tell(stimuli.ScopeReloaded(r.scope, entries, info.last_seq, head, state.up_to))

        self.later(r.delay_ms * 1000, lambda: self.ask(read, got))


def _entry(r: log.Recorded) -> stimuli.MetaEvent:
    _, scope, key = subjects.parse_meta(r.subject)
    return stimuli.MetaEvent(r.seq, scope, key, r.event())
