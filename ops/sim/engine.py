"""A container engine as a model: it outlives the daemon, keeps names unique, and does what it was once asked to do.

Each operation of the daemon is one or two calls to the engine; a call that was sent happens even when the daemon that sent
it is dead by then, which is how a container comes to exist that nobody remembers to have started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from edge.core.container_config import Identity
from edge.core.stimuli import Observed
from edge.core.volumes_plan import FilesVolume, Volume
from ops.sim.schedule import Clock, Schedule

Told = Callable[[str, str, str, str], None]  # (pod uid, container, id, action)


class EngineError(Exception):
    """Why the engine did not do it, as the daemon's rim names it."""


@dataclass
class Engine:
    schedule: Schedule
    lots: Random
    told: Told
    up: bool = True
    fails: float = 0.0  # share of calls that end badly
    clock: Clock = field(init=False)
    containers: dict[str, Observed] = field(default_factory=dict)
    volumes: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)  # pod uid -> volume -> file -> content
    made: int = 0
    changed: bool = False  # since a checker looked

    def __post_init__(self) -> None:
        self.clock = Clock(self.schedule)

    # --- calls

    def create(self, identity: Identity, image: str) -> Observed:
        """Or the one of that name: names are (pod uid, container, attempt)."""
        self._answers()
        for seen in self.containers.values():
            if (seen.pod_uid, seen.container, seen.attempt) == (identity.pod_uid, identity.container, identity.attempt):
                return seen
        self.made += 1
        seen = Observed(
            id=f"c{self.made}",
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
            created_us=self.clock.now_us,
            image=image,
            image_id="sha256:1",
        )
        self.containers[seen.id] = seen
        return seen

    def start(self, container_id: str) -> Observed | None:
        self._answers()
        seen = self.containers.get(container_id)
        if seen is not None and seen.state == "created":
            if seen.sandbox and (self.containers.get(seen.sandbox) or seen).state != "running":
                return seen  # its network is gone: the engine refuses
            ip = f"172.17.0.{1 + self.made % 250}" if seen.container == "" else ""
            seen = self._set(replace(seen, state="running", started_us=self.clock.now_us, ip=ip), "start")
        return seen

    def exit(self, container_id: str, code: int) -> Observed | None:
        seen = self.containers.get(container_id)
        if seen is not None and seen.state == "running":
            seen = self._set(replace(seen, state="exited", exit_code=code, finished_us=self.clock.now_us), "die")
        return seen

    def remove(self, container_id: str) -> None:
        self._answers()
        self.vanish(container_id)

    def vanish(self, container_id: str) -> None:
        """Removed, by us or by somebody with a shell."""
        self.exit(container_id, 137)
        seen = self.containers.pop(container_id, None)
        if seen is not None:
            self._tell(seen, "destroy")

    def listing(self) -> tuple[Observed, ...]:
        self._answers()
        return tuple(self.containers.values())

    def write(self, pod_uid: str, volumes: tuple[Volume, ...]) -> None:
        kept = self.volumes.setdefault(pod_uid, {})
        for v in volumes:
            if isinstance(v, FilesVolume) and not v.missing:
                kept[v.name] = {f.path: f.content for f in v.files}

    # --- the engine itself

    def stop(self, *, kill: bool) -> None:
        """The engine goes down; containers live on or die with it."""
        self.up = False
        if kill:
            for container_id in list(self.containers):
                self.exit(container_id, 255)

    def _answers(self) -> None:
        if not self.up:
            raise EngineError("RuntimeUnavailable")
        if self.fails and self.lots.random() < self.fails:
            raise EngineError(self.lots.choice(("RuntimeUnavailable", "CreateContainerError", "RunContainerError")))

    def _set(self, seen: Observed, action: str) -> Observed:
        self.containers[seen.id] = seen
        self._tell(seen, action)
        return seen

    def _tell(self, seen: Observed, action: str) -> None:
        self.changed = True
        self.schedule.note(f"engine {action} {seen.pod} {seen.pod_uid} {seen.container or '@'}/{seen.attempt}")
        self.told(seen.pod_uid, seen.container, seen.id, action)
