"""The dispatcher's rim in the simulation: what cloud/dispatcher.py and cloud/sharding.py do, with the model of the log."""

from __future__ import annotations

from collections.abc import Callable

from bus import log
from cloud import sharding
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from ops.sim.hub import Hub
from ops.sim.leading import Lead
from ops.sim.schedule import MS, S, Schedule
from ops.sim.wire import Wire
from ops.sim.worker import Worker
from schemas import codec, event, subjects

SETTLE_US = int(sharding.SETTLE_S * S)
STAGGER_US = 400 * MS
PATIENCE_US = 4 * S  # a shard: as long as a look, for those who look rarely here (leading.py)


class DispatcherWorker(Worker):
    """``lead`` None: it writes all shards, whoever else does.  ``fenced`` is False for a mutant only: it writes whatever the
    log says."""

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        hub: Hub,
        wire: Wire,
        make: Callable[[int, frozenset[int]], Dispatcher],
        *,
        lead: Lead | None = None,
        fenced: bool = True,
    ) -> None:
        super().__init__(name, schedule, hub, wire)
        self._make, self._fenced, self._lead = make, fenced, lead
        self._owned: set[int] = set()
        self._settling = 0
        self._work = self.life
        self.core = make(hub.shards, frozenset())
        self.loaded = False

    def begin(self) -> None:
        self._owned = set()
        if self._lead is None:
            self._owned = set(range(self.hub.shards))
            self._work_anew()
            return
        for n in range(self.hub.shards):
            shard = (n + self.lots.randrange(self.hub.shards)) % self.hub.shards
            self._campaign(self._lead, n, (shard + 1) * STAGGER_US)

    def another_epoch(self) -> None:
        """The process goes on, and leads what it leads."""
        self.epoch = self.hub.epoch
        if self.works:
            self._work_anew()

    # --- leading: as cloud/sharding.py

    @property
    def works(self) -> bool:
        return self.running and not self._work.over

    def _campaign(self, lead: Lead, shard: int, after_us: int) -> None:
        def own(mine: bool) -> None:
            (self._owned.add if mine else self._owned.discard)(shard)
            self._settling += 1
            settling = self._settling
            if not self._owned:
                self._work.end()
            else:
                self.later(SETTLE_US, lambda: self._work_anew() if self._owned and settling == self._settling else None)

        role, patience = f"dispatcher-{shard}", lambda: len(self._owned) * PATIENCE_US
        lead(self, role, lambda: own(True), lambda: own(False), patience).start(after_us)

    def _work_anew(self) -> None:
        self._work.end()
        self._work = self.new_life()
        owned = frozenset(self._owned)
        self.schedule.note(f"{self.name} dispatches {sorted(owned)}")
        self.core = self._make(self.hub.shards, owned)
        self.loaded = False
        self._load_meta(sorted(owned))

    # --- working: as cloud/dispatcher.py

    def _load_meta(self, shards: list[int]) -> None:
        if not shards:
            self._work.follow("CLUSTER", self._fold, self._folded)
        else:
            first, *rest = shards
            self._work.follow(f"META-{first}", lambda r, _: self._tell(_entry(r)), lambda: self._load_meta(rest))

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

        self._work.ask(lambda: self.hub.append(subject, payload, ev.id, expect, epoch), done, write=True)

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
        shards, work = self.hub.shards, self._work
        stream, filter_ = f"META-{subjects.shard_of(r.scope, shards)}", subjects.meta_scope(r.scope, shards)

        def read() -> log.LastState:
            return self.hub.last(stream, filter_, after=0, bytes_max=1 << 30)

        def got(state: log.LastState | log.LogError) -> None:
            if isinstance(state, log.LogError):
                self._tell(stimuli.ReloadFailed(r.scope))
            else:
                work.ask(lambda: self.hub.info("CLUSTER"), lambda info: told(state, info))

        def told(state: log.LastState, info: log.StreamInfo | log.LogError) -> None:
            if isinstance(info, log.LogError):
                self._tell(stimuli.ReloadFailed(r.scope))
                return
            entries = tuple(_entry(x) for x in state.records)
            head = max((x.seq for x in state.records), default=0)
            self._tell(stimuli.ScopeReloaded(r.scope, entries, info.last_seq, head, state.up_to))

        work.later(r.delay_ms * 1000, lambda: work.ask(read, got))


def _entry(r: log.Recorded) -> stimuli.MetaEvent:
    _, scope, key = subjects.parse_meta(r.subject)
    return stimuli.MetaEvent(r.seq, scope, key, r.event())
