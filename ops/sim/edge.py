"""An edge node: real replica and pods cores, the real outbox format, on a store and an engine that outlive the daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
from pydantic import BaseModel

from bus import fold, outbox, replica_core, replica_write
from bus.stores import base
from bus.stores.memory import MemoryStore
from edge.core import instructions as do
from edge.core import stimuli as saw
from edge.core.pods import PodsCore
from edge.core.settings import NodeFacts, PodSettings
from ops.sim.cloud import TIMEOUT_US, ReportsProcess, SyncModel
from ops.sim.engine import Engine
from ops.sim.hub import Hub
from ops.sim.world import MS, Process, S, SimulationError, World
from schemas import codec, event, reports, subjects, sync
from schemas.subjects import ObjectKey

BEAT_US = 20 * S
REFRESH_US = 300 * S
ASK_RETRY_US = 500 * MS
ENGINE_US = 3 * S  # the longest effect
SENDS_MAX = 8


class EdgeNode(Process):
    """``cut``: nothing gets through.  ``on_commit`` and ``on_report`` are the checkers."""

    def __init__(self, world: World, name: str, hub: Hub, syncs: SyncModel, cloud: list[ReportsProcess]) -> None:
        super().__init__(world, name)
        self.hub, self.syncs, self.cloud = hub, syncs, cloud
        self.scopes = [name, "all"]
        self.store = MemoryStore()
        self.engine = Engine(name)
        self.cut = False
        self.on_commit: Callable[[EdgeNode, str], None] = lambda n, s: None
        self.on_report: Callable[[EdgeNode, str, event.Event], None] = lambda n, s, e: None
        self.core: replica_core.ReplicaCore
        self.pods: PodsCore
        self.box: outbox.Outbox
        self.link = "unknown"
        self.between_pages: set[str] = set()  # scopes whose last transaction was a page with more to come: durable, like it
        self._more: dict[str, bool] = {}
        self._skew_us = world.rng.randrange(-3600 * S, 3600 * S)  # edge clocks are wrong
        self._failures = self._asks = self._ask_failures = 0
        self._timer = 0
        self._late: dict[str, event.Event] = {}
        self._flying: set[int] = set()
        self._busy: set[str] = set()

    # --- life ------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self.core = self.make_replica_core(self._cursors())
        self.pods = PodsCore(PodSettings(), NodeFacts(self.name))
        self.box = outbox.Outbox(self.store)
        self.link, self._failures, self._ask_failures = "unknown", 0, 0
        self._late, self._flying, self._busy = {}, set(), set()
        for scope in self.scopes:
            for _, value in self.store.items("objects", fold.scope_prefix(scope)):
                self._give(codec.decode_event(fold.split_value(value)[1]), loaded=True)
        if all(self.core.cursor(s).epoch for s in self.scopes):
            self._pods(saw.ReplicaComplete(*self._now()))
        self.later(self.world.latency_us(), self._runtime_up)
        self.later(self.world.latency_us(), self._beat)
        self.later(REFRESH_US, self._refresh)
        self.later(S, self._sending)

    def make_replica_core(self, cursors: dict[str, fold.Cursor]) -> replica_core.ReplicaCore:
        return replica_core.ReplicaCore(cursors)

    def _runtime_up(self) -> None:
        self._pods(saw.RuntimeUp(*self._now()))
        info = {"operatingSystem": "linux", "architecture": "arm64"}
        status = {"capacity": {"pods": "110"}, "allocatable": {"pods": "110"}, "nodeInfo": info}
        self._report("node", "", "", reports.NodeReport(status=status, ready=True, boot=str(self._life)), None, None)

    def _now(self) -> tuple[int, int]:
        return self.world.now_us + self._skew_us, self.world.now_us

    def _step(self) -> bool:
        return self.step(self.world.faults.crash_edge)

    # --- link ------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        w = self.world
        reached = not self.cut and not w.chance(w.faults.request_lost)
        answered = reached and any([r.beat(self.name) for r in self.cloud])
        if answered and not w.chance(w.faults.answer_lost):
            self.later(w.latency_us(), self._beaten, True)
        else:
            self.later(TIMEOUT_US, self._beaten, False)

    def _beaten(self, ok: bool) -> None:
        self._failures = 0 if ok else self._failures + 1
        if ok and self.link != "up":
            self.link = "up"
            self._replica(replica_core.Connected())
        elif not ok and self.link != "down" and (self._failures >= 2 or self.link == "unknown"):
            self.link = "down"
            self._replica(replica_core.Disconnected())
        if self.up:
            self.later(BEAT_US if ok else S, self._beat)

    def _refresh(self) -> None:
        self._replica(replica_core.Refresh())
        self.later(REFRESH_US, self._refresh)

    def live(self, scope: str, key: ObjectKey, seq: int, payload: bytes) -> None:
        """One republished message, unless the link is cut when it arrives."""
        if self.up and not self.cut:
            self._replica(replica_core.Live(scope, key, seq, payload))

    # --- replica ---------------------------------------------------------------------------------------------------

    def _cursors(self) -> dict[str, fold.Cursor]:
        return {s: fold.Cursor.from_bytes(self.store.get("cursors", s.encode())) for s in self.scopes}

    def _replica(self, stimulus: replica_core.Stimulus) -> None:
        if not self.up or not self._step():
            return
        group: list[replica_core.Instruction] = []
        for i in self.core.handle(stimulus):
            if isinstance(i, replica_core.Apply | replica_core.Stage | replica_core.Finish):
                group.append(i)
                continue
            if not self._commit(group):
                return
            group = []
            match i:
                case replica_core.Ask():
                    self._start_ask(i)
                case replica_core.Synced():
                    self._pods(saw.ReplicaComplete(*self._now()))
                case replica_core.Refuse(scope, seq, about, reason):
                    raise SimulationError(f"{self.name} refuses {scope} #{seq} {about}: {reason}")
        self._commit(group)

    def _commit(self, group: list[replica_core.Instruction]) -> bool:
        """One transaction; False when it failed or the daemon died, and the rest must wait."""
        if not group:
            return True
        if self.world.chance(self.world.faults.store_full):
            for i in self.core.handle(replica_core.Lost(self._cursors())):
                if isinstance(i, replica_core.Ask):
                    self._start_ask(i)
            return False
        with self.store.transact() as txn:
            changed = [a for i in group for a in replica_write.write(txn, i)]
        for scope, more in self._more.items():
            (self.between_pages.add if more else self.between_pages.discard)(scope)
        self._more = {}
        for scope in self.scopes:
            self.on_commit(self, scope)
        if not self._step():
            return False
        for a in changed:
            if a.fact.event is not None:
                self._give(a.fact.event, loaded=False)
        return self.up

    def _start_ask(self, ask: replica_core.Ask) -> None:
        self._asks += 1
        wait = 0
        if not ask.soon:
            self._ask_failures += 1
            wait = min(15 * S, ASK_RETRY_US << min(self._ask_failures, 10))
        self.later(wait + self.world.latency_us(), self._ask, self._asks, ask)

    def _ask(self, number: int, ask: replica_core.Ask) -> None:
        w = self.world
        if number != self._asks:
            return
        lost = self.cut or w.chance(w.faults.request_lost) or w.chance(w.faults.answer_lost)
        if lost:
            self.later(2 * TIMEOUT_US, self._answered, number, None)
        else:
            self.later(w.latency_us(), self._answered, number, self.syncs.answer(ask.cursors))

    def _answered(self, number: int, pages: list[sync.ScopePage] | None) -> None:
        if number != self._asks:
            return  # an answer to a question that was asked again
        if pages is None or self.cut:
            self._replica(replica_core.Failed())
            return
        self._ask_failures = 0
        self._more = {p.scope: p.more for p in pages}
        self._replica(replica_core.Answered(pages))
        self._more = {}

    # --- pods ------------------------------------------------------------------------------------------------------

    def _give(self, ev: event.Event, *, loaded: bool) -> None:
        if ev.group == "" and ev.resource != "nodes":
            data = None if ev.deleted else ev.data
            self._pods(saw.ObjectApplied(*self._now(), ev.key, ev.id, ev.trace, data, loaded))

    def _pods(self, stimulus: saw.Stimulus) -> None:
        if not self.up:
            return
        for i in self.pods.handle(stimulus):
            match i:
                case do.Effect():
                    self.later(self.world.rng.randrange(1 * MS, ENGINE_US), self._effect, i)
                case do.SetTimer(at_mono_us=at):
                    self._timer += 1
                    self.later(at - self.world.now_us, self._tick, self._timer)
                case do.ReportPod(namespace, name, report, cause, trace):
                    self._report("pod", namespace, name, report, cause or None, trace or None)
                case do.EmitEvent(namespace, name, told, cause, trace):
                    self._report("event", namespace, name, told, cause or None, trace or None)

    def _tick(self, timer: int) -> None:
        if timer == self._timer:
            self._pods(saw.Tick(*self._now()))

    def _effect(self, effect: do.Effect) -> None:
        w = self.world
        if w.chance(w.faults.engine_fails):
            reason = w.rng.choice(["RuntimeUnavailable", "CreateContainerError"])
            end = (effect.id, False, reason, "", None, (), ())
        else:
            r = self.engine.execute(effect, w.now_us + self._skew_us)
            w.note(self.name, f"{type(effect).__name__} {effect.pod_uid[:8]} {effect.lane}")
            end = (effect.id, True, "", "", r.container, r.listing, r.volume_uids)  # type: ignore[assignment]
        if self._step():
            self.later(w.latency_us(), self._effect_done, end)

    def _effect_done(self, end: tuple[Any, ...]) -> None:
        self._pods(saw.EffectDone(*self._now(), *end))

    def container_dies(self) -> None:
        """As by a crash of what runs in it; the engine's word of it may be lost."""
        running = [b for b in self.engine.running()]
        if not running:
            return
        box = self.world.rng.choice(running)
        self.world.note(self.name, f"{box.pod}/{box.container or 'sandbox'} dies by itself")
        self.engine.end(box.id, 1, self.world.now_us + self._skew_us)
        if self.up and self.world.chance(0.7):
            hint = (box.pod_uid, box.container, box.id, "die")
            self.later(self.world.latency_us(), self._hint, hint)

    def _hint(self, hint: tuple[Any, ...]) -> None:
        self._pods(saw.Hint(*self._now(), *hint))

    # --- reports ---------------------------------------------------------------------------------------------------

    def _report(
        self, kind: str, namespace: str, name: str, payload: BaseModel, cause: str | None, trace: str | None
    ) -> None:
        ident = self.world.new_id()
        ev = event.Event(
            id=ident,
            type=event.REPORT,
            scope=self.name,
            resource=kind,
            namespace=namespace,
            name=name,
            time=max(0, self.world.now_us + self._skew_us),
            source="sim/edge",
            cause=cause,
            trace=trace or ident,
            data=payload.model_dump(exclude_defaults=True),
        )
        subject = subjects.report(self.name, kind, self.hub.shards, namespace if name else None, name or None)
        self._late.pop(subject, None)
        self._late[subject] = ev
        self._flush()

    def _flush(self) -> None:
        """What could not be written waits, the newest of each subject (edge/state.py)."""
        if not self._late:
            return
        if self.world.chance(self.world.faults.store_full):
            self.later(2 * S, self._flush)
            return
        self.keep_reports(self._late)
        self._late = {}
        self._send()

    def keep_reports(self, told: dict[str, event.Event]) -> None:
        added: list[tuple[int, str]] = []
        with self.store.transact() as txn:
            for subject, ev in told.items():
                added.append((self._put(txn, subject, ev), subject))
        self.box.committed(added)
        for subject, ev in told.items():
            self.on_report(self, subject, ev)

    def _put(self, txn: base.Transaction, subject: str, ev: event.Event) -> int:
        return self.box.add(txn, subject, ev)

    def _sending(self) -> None:
        self._send()
        self.later(S, self._sending)

    def _send(self) -> None:
        for key, value in self.store.items("outbox"):
            n, (subject, _, payload) = int.from_bytes(key, "big"), msgpack.unpackb(value)
            if len(self._flying) >= SENDS_MAX:
                return
            if n not in self._flying and subject not in self._busy:
                self._flying.add(n)
                self._busy.add(subject)
                self.later(self.world.latency_us(), self._sent, n, subject, codec.decode_event(payload))

    def _sent(self, n: int, subject: str, ev: event.Event) -> None:
        w = self.world
        if self.cut or w.chance(w.faults.request_lost):
            self.later(TIMEOUT_US, self._acked, n, subject, False)
            return
        self.hub.append(subject, ev)
        if self._step():
            lost = w.chance(w.faults.answer_lost)
            self.later(TIMEOUT_US if lost else w.latency_us(), self._acked, n, subject, not lost)

    def _acked(self, n: int, subject: str, ok: bool) -> None:
        self._flying.discard(n)
        self._busy.discard(subject)
        if ok and not self.world.chance(self.world.faults.store_full):
            with self.store.transact() as txn:
                txn.delete("outbox", n.to_bytes(8, "big"))
            if self._step():
                self._send()
