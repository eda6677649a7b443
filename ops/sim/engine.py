"""A model of a node's container engine: it survives the daemon, keeps names unique, and does one thing after another.

It watches what the daemon must never do: run two containers of one pod and name at a time (DESIGN.md, section 5).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from edge.core import instructions as do
from edge.core.container_config import Identity
from edge.core.stimuli import Observed
from ops.sim.world import SimulationError


@dataclass(frozen=True, slots=True)
class Result:
    container: Observed | None = None
    listing: tuple[Observed, ...] = ()
    volume_uids: tuple[str, ...] = ()


@dataclass
class Engine:
    node: str
    boxes: dict[str, Observed] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    made: int = 0

    def execute(self, effect: do.Effect, now_us: int) -> Result:
        match effect:
            case do.TakeSnapshot():
                return Result(None, tuple(self.boxes.values()), tuple(sorted(self.volumes)))
            case do.Inspect(container_id=i):
                return Result(self.boxes.get(i))
            case do.EnsureSandbox(config=c):
                return Result(self._run(c.identity, "pause", now_us))
            case do.RunContainer(config=c):
                return Result(self._run(c.identity, c.image, now_us))
            case do.StopContainer(container_id=i) | do.KillContainer(container_id=i):
                return Result(self.end(i, 0, now_us))
            case do.RemoveContainer(container_id=i):
                self.boxes.pop(i, None)
            case do.WriteVolumes(pod_uid=uid):
                self.volumes.add(uid)
            case do.RemoveVolumes(pod_uid=uid):
                self.volumes.discard(uid)
        return Result()

    def _run(self, i: Identity, image: str, now_us: int) -> Observed:
        name = (i.pod_uid, i.container, i.attempt)
        for known in self.boxes.values():
            if (known.pod_uid, known.container, known.attempt) == name:
                return known  # the name is taken: the one that has it is ours
        self.made += 1
        made = Observed(
            id=f"{self.node}-{self.made}",
            pod_uid=i.pod_uid,
            namespace=i.namespace,
            pod=i.pod,
            container=i.container,
            attempt=i.attempt,
            state="running",
            spec_hash=i.spec_hash,
            sandbox=i.sandbox,
            backoff_ms=i.backoff_ms,
            grace_s=i.grace_s,
            cause=i.cause,
            trace=i.trace,
            created_us=now_us,
            started_us=now_us,
            image=image,
            ip=f"10.0.0.{self.made % 250}" if not i.container else "",
        )
        self.boxes[made.id] = made
        self._never_two()
        return made

    def end(self, container_id: str, exit_code: int, now_us: int) -> Observed | None:
        known = self.boxes.get(container_id)
        if known is not None and known.state == "running":
            known = self.boxes[container_id] = replace(known, state="exited", finished_us=now_us, exit_code=exit_code)
        return known

    def running(self) -> list[Observed]:
        return [b for b in self.boxes.values() if b.state == "running"]

    def _never_two(self) -> None:
        of_pod = Counter((b.namespace, b.pod, b.container) for b in self.running())
        for name, n in of_pod.items():
            if n > 1:
                raise SimulationError(f"{self.node} runs {n} containers of {name}")
