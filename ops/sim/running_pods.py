"""The pods core's rim in the simulation: effects to the model engine, answers and hints back, reports to the outbox."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal, Protocol, cast

from bus import fold
from edge.core import instructions as do
from edge.core import stimuli as st
from edge.core.pods import PodsCore
from edge.core.settings import NodeFacts, PodSettings
from edge.state import Report
from ops.sim.engine import Engine, EngineError
from ops.sim.schedule import MS, Clock, S, Schedule, Timer
from schemas import event

CALL_US_MAX = 300 * MS
KINDS = ("pods", "configmaps", "secrets", "services")


class Host(Protocol):
    schedule: Schedule
    lots: Random
    engine: Engine
    clock: Clock

    def step(self) -> None: ...

    def mine(self, run: Callable[[], None]) -> Callable[[], None]: ...

    def say(self, reports: list[Report]) -> None: ...


class PodsRim:
    def __init__(self, host: Host, node: str, make: Callable[[PodSettings, NodeFacts], PodsCore]) -> None:
        self._host = host
        facts = NodeFacts(node, host_ip="10.0.0.7", cpu_milli=4000, memory_bytes=1 << 32)
        self.core = make(PodSettings(), facts)
        self._timer: Timer | None = None
        self._events = 0

    def _now(self) -> tuple[int, int]:
        return self._host.clock.now_us, self._host.schedule.mono_us

    # --- in

    def applied(self, fact: fold.Fact, *, loaded: bool = False) -> None:
        ev = fact.event
        if ev is None or fact.key.group != "" or fact.key.resource not in KINDS:
            return
        obj = None if ev.type == event.OBJECT_DELETED else ev.data
        self.tell(st.ObjectApplied(*self._now(), fact.key, ev.id, ev.trace, obj, loaded))

    def complete(self) -> None:
        self.tell(st.ReplicaComplete(*self._now()))

    def report_all(self) -> None:
        self.tell(st.ReportAll(*self._now()))

    def runtime(self, up: bool) -> None:
        self.tell(st.RuntimeUp(*self._now()) if up else st.RuntimeDown(*self._now(), "gone"))

    def hint(self, pod_uid: str, container: str, container_id: str, action: str) -> None:
        known = cast(Literal["start", "die", "destroy"], action)
        self.tell(st.Hint(*self._now(), pod_uid, container, container_id, known))

    def tell(self, stimulus: st.Stimulus) -> None:
        for i in self.core.handle(stimulus):
            self._host.step()
            self._do(i)

    # --- out

    def _do(self, i: do.Instruction) -> None:
        match i:
            case do.SetTimer(at_mono_us=at):
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._later(at - self._host.schedule.mono_us, lambda: self.tell(st.Tick(*self._now())))
            case do.ReportPod(namespace=namespace, name=name, report=report, cause=cause, trace=trace):
                self._host.say([Report("pod", namespace, name, report, cause or None, trace or None)])
            case do.EmitEvent(namespace=namespace, name=name, report=told, cause=cause, trace=trace):
                self._host.say([Report("event", namespace, name, told, cause or None, trace or None)])
            case do.Effect():
                self._effect(i)
            case _:
                pass  # probes: the workload has none yet

    def _later(self, delay_us: int, run: Callable[[], None]) -> Timer:
        return self._host.schedule.after(delay_us, self._host.mine(run))

    def _effect(self, i: do.Effect) -> None:
        engine = self._host.engine
        match i:
            case do.TakeSnapshot():
                self._call(i, lambda: (engine.listing(), tuple(engine.volumes)), self._listed)
            case do.ListPod(pod_uid=uid):
                self._call(i, lambda: (tuple(c for c in engine.listing() if c.pod_uid == uid), ()), self._listed)
            case do.Inspect(container_id=cid):
                self._call(i, lambda: self._look(cid), self._ended)
            case do.EnsureSandbox(config=sandbox):
                self._call(i, lambda: engine.create(sandbox.identity, "pause"), self._created)
            case do.PullImage():
                self._call(i, lambda: None, self._ended)
            case do.RunContainer(config=config):
                self._call(i, lambda: engine.create(config.identity, config.image), self._created)
            case do.StopContainer(container_id=cid, grace_s=grace_s):
                takes_us = self._host.lots.randrange(1 + grace_s * S // 4)
                self._call(i, lambda: self._exit(cid, 0), self._ended, takes_us)
            case do.KillContainer(container_id=cid):
                self._call(i, lambda: self._exit(cid, 137), self._ended)
            case do.RemoveContainer(container_id=cid):
                self._call(i, lambda: engine.remove(cid), self._ended)
            case do.WriteVolumes(pod_uid=uid, volumes=volumes):
                self._call(i, lambda: engine.write(uid, volumes), self._ended)
            case do.RemoveVolumes(pod_uid=uid):
                self._call(i, lambda: engine.volumes.pop(uid, None) and None, self._ended)
            case _:
                raise AssertionError(i)

    def _call(
        self,
        i: do.Effect,
        run: Callable[[], object],
        answered: Callable[[do.Effect, object], None],
        takes_us: int = 0,
    ) -> None:
        """The call happens in any case; its answer reaches only the daemon that made it."""
        lots, mine = self._host.lots, self._host.mine

        def happen() -> None:
            try:
                answer = run()
            except EngineError as e:
                reason = str(e)
                self._host.schedule.after(lots.randrange(1, CALL_US_MAX), mine(lambda: self._end(i, False, reason)))
                return
            self._host.schedule.after(lots.randrange(1, CALL_US_MAX), mine(lambda: answered(i, answer)))

        self._host.schedule.after(takes_us + lots.randrange(1, CALL_US_MAX), happen)

    def _look(self, container_id: str) -> st.Observed | None:
        self._host.engine.listing()
        return self._host.engine.containers.get(container_id)

    def _exit(self, container_id: str, code: int) -> st.Observed | None:
        self._host.engine.listing()
        return self._host.engine.exit(container_id, code)

    def _created(self, i: do.Effect, answer: object) -> None:
        """The second half of a start: a daemon that died in between leaves a created container behind."""
        assert isinstance(answer, st.Observed)
        container_id = answer.id

        def started(i: do.Effect, seen: object) -> None:
            if isinstance(seen, st.Observed) and seen.state != "created":
                self._end(i, True, container=seen)
            else:
                self._end(i, False, "RunContainerError")

        self._call(i, lambda: self._host.engine.start(container_id), started)

    def _listed(self, i: do.Effect, answer: object) -> None:
        listing, volumes = cast(tuple[tuple[st.Observed, ...], tuple[str, ...]], answer)
        self.tell(st.EffectDone(*self._now(), i.id, True, listing=listing, volume_uids=volumes))

    def _ended(self, i: do.Effect, answer: object) -> None:
        self._end(i, True, container=answer if isinstance(answer, st.Observed) else None)

    def _end(self, i: do.Effect, ok: bool, reason: str = "", container: st.Observed | None = None) -> None:
        self.tell(st.EffectDone(*self._now(), i.id, ok, reason, reason, container))
