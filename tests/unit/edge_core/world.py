"""A container engine and a clock that exist only here, to play with the pods core in microseconds.

``World`` runs a core's effects as an engine would: each takes effect at one moment and is answered at a later one; events
may be lost; the daemon may die in between, and what it had asked for may still happen.  It is also the judge: the rules that
must hold at every instant are checked where the engine changes, outside the code that they are about.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from edge.core import instructions as do
from edge.core import stimuli as saw
from edge.core.container_config import Identity
from edge.core.pods import PodsCore
from edge.core.settings import NodeFacts, PodSettings
from edge.core.stimuli import Observed
from schemas.subjects import ObjectKey

S = 1_000_000
START_US = 1_795_000_000 * S
NODE = NodeFacts("edge-1", "10.0.0.7", 4000, 1 << 30)

Obj = dict[str, Any]


def key(resource: str, name: str) -> ObjectKey:
    return ObjectKey("", resource, "" if resource == "persistentvolumes" else "default", name)


def event_id(n: int) -> str:
    return f"{n:08x}-0000-7000-8000-000000000000"


def pod(name: str, uid: str, *containers: Obj, **spec: Any) -> Obj:
    listed = list(containers) or [{"name": "main"}]
    return {
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {"containers": [{"image": "app:1", **c} for c in listed], **spec},
    }


def config_map(name: str, **data: str) -> Obj:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


class RuleBroken(AssertionError):
    pass


@dataclass
class Engine:
    """The containers that exist.  Every change goes through here, and is judged."""

    containers: dict[str, Observed] = field(default_factory=dict)
    names: dict[tuple[str, str, int], str] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    volumes: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def create(self, identity: Identity, image: str, now_us: int) -> Observed:
        name = (identity.pod_uid, identity.container, identity.attempt)
        if name in self.names:
            return self.containers[self.names[name]]  # the executor adopts the one of this name
        made = Observed(
            id=f"c{next(self.ids)}",
            pod_uid=identity.pod_uid,
            namespace=identity.namespace,
            pod=identity.pod,
            container=identity.container,
            attempt=identity.attempt,
            state="created",
            spec_hash=identity.spec_hash,
            sandbox=identity.sandbox,
            backoff_ms=identity.backoff_ms,
            grace_s=identity.grace_s,
            cause=identity.cause,
            trace=identity.trace,
            created_us=now_us,
            image=image,
        )
        self.containers[made.id] = made
        self.names[name] = made.id
        return made

    def start(self, container_id: str, now_us: int) -> Observed:
        one = self.containers[container_id]
        if one.state != "created":
            return one
        for other in self.containers.values():
            if other.state == "running" and other.container == one.container and other.container != "":
                if other.pod_uid == one.pod_uid:
                    raise RuleBroken(f"two of one container run: {other.id} and {one.id} of {one.pod_uid}/{one.container}")
                if (other.namespace, other.pod) == (one.namespace, one.pod):
                    raise RuleBroken(f"two pods of the name {one.pod} run: {other.pod_uid} and {one.pod_uid}")
        ip = f"172.17.0.{len(self.containers) % 250 + 2}" if one.container == "" else ""
        return self._set(replace(one, state="running", started_us=now_us, ip=ip))

    def exit(self, container_id: str, code: int, now_us: int) -> Observed | None:
        one = self.containers.get(container_id)
        if one is None or one.state != "running":
            return one
        return self._set(replace(one, state="exited", exit_code=code, finished_us=now_us))

    def remove(self, container_id: str) -> Observed | None:
        one = self.containers.pop(container_id, None)
        if one is not None:
            del self.names[one.pod_uid, one.container, one.attempt]
        return one

    def _set(self, one: Observed) -> Observed:
        self.containers[one.id] = one
        return one

    def running(self, container: str, pod_uid: str = "") -> list[Observed]:
        return [
            c
            for c in self.containers.values()
            if c.state == "running" and c.container == container and pod_uid in ("", c.pod_uid)
        ]


class World:
    def __init__(self, settings: PodSettings | None = None, seed: int = 0) -> None:
        self.random = Random(seed)
        self.settings = settings or PodSettings()
        self.now_us, self.mono_us = START_US, 5 * S
        self.engine = Engine()
        self.core = PodsCore(self.settings, NODE)
        self.engine_up = False
        self.life = 0  # of the daemon
        self.latency_us: Callable[[], int] = lambda: 1000
        self.lose_events = 0.0
        self.images: set[str] = {"app:1", "app:2"}
        self.fail: dict[str, int] = defaultdict(int)  # kind of effect: how many of the next fail
        self.exit_codes: dict[str, int] = {}  # container: exits at once with this code when started
        self.start_order: list[str] = []
        self.stopped: list[tuple[str, str, int]] = []  # (pod uid, container, grace) of every stop that was carried out
        self.asked: list[do.Instruction] = []
        self.reports: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        self.report_log: list[do.ReportPod] = []
        self.events: list[do.EmitEvent] = []
        self.probes: dict[tuple[str, str], do.StartProbe] = {}
        self.timer: int | None = None
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._events = itertools.count(1)

    # --- time -------------------------------------------------------------------------------------------------------

    def at(self, delay_us: int, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.mono_us + delay_us, next(self._order), what))

    def step(self) -> bool:
        """The next thing that happens; False when nothing will."""
        timer = self.timer if self.timer is not None else None
        if self._queue and (timer is None or self._queue[0][0] <= timer):
            when, _, what = heapq.heappop(self._queue)
            self._pass(when)
            what()
            return True
        if timer is None:
            return False
        self._pass(timer)
        self.timer = None
        self.feed(saw.Tick(self.now_us, self.mono_us))
        return True

    def _pass(self, until_mono_us: int) -> None:
        passed = max(0, until_mono_us - self.mono_us)
        self.mono_us += passed
        self.now_us += passed

    def run(self, seconds: float) -> None:
        end = self.mono_us + int(seconds * S)
        while True:
            due = min(self._queue[0][0] if self._queue else end + 1, self.timer if self.timer is not None else end + 1)
            if due > end:
                break
            self.step()
        self._pass(end)

    # --- the core ---------------------------------------------------------------------------------------------------

    def feed(self, stimulus: saw.Stimulus) -> list[do.Instruction]:
        out = self.core.handle(stimulus)
        self.asked.extend(out)
        lanes: set[tuple[str, str]] = set()
        for one in out:
            if isinstance(one, do.Effect):
                assert (one.pod_uid, one.lane, type(one)) not in lanes
                self._effect(one)
            elif isinstance(one, do.SetTimer):
                self.timer = one.at_mono_us
            elif isinstance(one, do.ReportPod):
                self.reports[one.namespace, one.name] = one.report.status
                self.report_log.append(one)
            elif isinstance(one, do.EmitEvent):
                self.events.append(one)
            elif isinstance(one, do.StartProbe):
                self.probes[one.container_id, one.probe.kind] = one
            elif isinstance(one, do.StopProbe):
                for k in [k for k in self.probes if k[0] == one.container_id and one.kind in ("", k[1])]:
                    del self.probes[k]
        return out

    def apply(self, resource: str, name: str, obj: Obj | None, *, loaded: bool = False) -> str:
        one = event_id(next(self._events))
        self.feed(saw.ObjectApplied(self.now_us, self.mono_us, key(resource, name), one, one, obj, loaded))
        return one

    def apply_pod(self, obj: Obj, *, loaded: bool = False) -> str:
        return self.apply("pods", obj["metadata"]["name"], obj, loaded=loaded)

    def complete(self) -> None:
        self.feed(saw.ReplicaComplete(self.now_us, self.mono_us))

    def up(self) -> None:
        self.engine_up = True
        self.feed(saw.RuntimeUp(self.now_us, self.mono_us))

    def down(self) -> None:
        self.engine_up = False
        self.feed(saw.RuntimeDown(self.now_us, self.mono_us, "gone"))

    def probe(self, container_id: str, kind: Any, ok: bool) -> None:
        spec = self.probes[container_id, kind]
        self.feed(saw.ProbeResult(self.now_us, self.mono_us, spec.pod_uid, spec.container, container_id, kind, ok, "no"))

    def crash(self) -> None:
        """The daemon dies at this instant; what it had asked of the engine may still happen, or not."""
        self.life += 1
        self.core = PodsCore(self.settings, NODE)
        self.timer = None
        self.probes.clear()

    # --- the engine -------------------------------------------------------------------------------------------------

    def _effect(self, effect: do.Effect) -> None:
        life = self.life
        latency = self.latency_us()
        if isinstance(effect, do.StopContainer):
            latency += min(effect.grace_s, 2) * S

        def happens() -> None:
            ours = isinstance(effect, do.WriteVolumes | do.RemoveVolumes)  # done by the daemon itself, not by the engine
            if life != self.life and (ours or self.random.random() < 0.5):
                return  # it died with the daemon
            end = self._do(effect)
            if life == self.life:
                self.at(self.latency_us(), lambda: self._answer(life, effect, end))

        self.at(latency, happens)

    def _answer(self, life: int, effect: do.Effect, end: saw.EffectDone) -> None:
        if life == self.life:
            self.feed(replace(end, now_us=self.now_us, mono_us=self.mono_us))

    def _do(self, effect: do.Effect) -> saw.EffectDone:
        def end(ok: bool = True, reason: str = "", **more: Any) -> saw.EffectDone:
            return saw.EffectDone(0, 0, effect.id, ok, reason, reason, **more)

        kind = type(effect).__name__
        if not self.engine_up and not isinstance(effect, do.WriteVolumes):
            return end(False, "RuntimeUnavailable")
        lost = self.fail[kind] > 0
        if lost:
            self.fail[kind] -= 1
            if self.random.random() < 0.5:
                return end(False, "Injected")  # it didn't happen; below: it happens, but the answer says that it failed
        done = self._really(effect, end)
        return end(False, "AnswerLost") if lost else done

    def _really(self, effect: do.Effect, end: Callable[..., saw.EffectDone]) -> saw.EffectDone:
        e = self.engine
        match effect:
            case do.TakeSnapshot():
                return end(listing=tuple(e.containers.values()), volume_uids=tuple(sorted(e.volumes)))
            case do.ListPod():
                return end(listing=tuple(c for c in e.containers.values() if c.pod_uid == effect.pod_uid))
            case do.Inspect():
                return end(container=e.containers.get(effect.container_id))
            case do.EnsureSandbox():
                return end(container=self._started(e.create(effect.config.identity, "pause", self.now_us)))
            case do.PullImage():
                return end() if effect.image in self.images else end(False, "ErrImagePull")
            case do.RunContainer():
                config = effect.config
                made = e.create(config.identity, config.image, self.now_us)
                sandbox = e.containers.get(made.sandbox)
                if made.state == "created" and (sandbox is None or sandbox.state != "running"):
                    return end(False, "RunContainerError", container=made)
                self.start_order.append(made.container)
                return end(container=self._started(made))
            case do.StopContainer():
                if effect.container_id in e.containers and e.containers[effect.container_id].state == "running":
                    self.stopped.append((effect.pod_uid, effect.lane, effect.grace_s))
                    self.exit(effect.container_id, 0)
                return end(container=e.containers.get(effect.container_id))
            case do.KillContainer():
                self.exit(effect.container_id, 137)
                return end(container=e.containers.get(effect.container_id))
            case do.RemoveContainer():
                self.remove(effect.container_id)
                return end()
            case do.WriteVolumes():
                files = e.volumes.setdefault(effect.pod_uid, {})
                for v in effect.volumes:
                    files.update({f"{v.name}/{f.path}": f.content for f in getattr(v, "files", ())})
                return end()
            case do.RemoveVolumes():
                e.volumes.pop(effect.pod_uid, None)
                return end()
        raise AssertionError(f"the world doesn't know {effect}")

    def _started(self, made: Observed) -> Observed:
        before = made.state
        started = self.engine.start(made.id, self.now_us)
        if before == "created":
            self._hint(started, "start")
            if started.container in self.exit_codes:
                code = self.exit_codes[started.container]
                self.at(500, lambda: self.exit(started.id, code))
        return started

    def exit(self, container_id: str, code: int) -> None:
        before = self.engine.containers.get(container_id)
        after = self.engine.exit(container_id, code, self.now_us)
        if before is not None and after is not None and before.state == "running":
            self._hint(after, "die")

    def remove(self, container_id: str) -> None:
        self.exit(container_id, 137)
        gone = self.engine.remove(container_id)
        if gone is not None:
            self._hint(gone, "destroy")

    def _hint(self, one: Observed, action: Any) -> None:
        life = self.life
        if self.random.random() < self.lose_events:
            return

        def tell() -> None:
            if life == self.life and self.engine_up:
                self.feed(saw.Hint(self.now_us, self.mono_us, one.pod_uid, one.container, one.id, action))

        self.at(self.latency_us(), tell)

    # --- what a user sees -------------------------------------------------------------------------------------------

    def status(self, name: str) -> Mapping[str, Any]:
        found = self.reports.get(("default", name))
        assert found is not None, f"{name} has no status: {self.reports}"
        return found

    def container_status(self, pod_name: str, container: str = "main") -> Mapping[str, Any]:
        status = self.status(pod_name)
        both = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        return next(c for c in both if c["name"] == container)

    def ready(self, name: str) -> bool:
        status = self.reports.get(("default", name))
        return status is not None and any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
        )

    def reasons(self) -> list[str]:
        return [e.report.reason for e in self.events]
