"""What the pods core remembers.  Plain data and questions about it; every change of it is made in ``PodsCore.handle``.

All of it can be lost: it is rebuilt from the engine's labels and the replica.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge.core.instructions import Effect
from edge.core.pod_spec import Pod, ProbeKind
from edge.core.stimuli import ObjectApplied, Observed
from edge.core.volumes_plan import Plan
from schemas.reports import Hop

VANISHED = "ContainerStatusUnknown"  # the kubelet's word for a container that was running and is no longer there


@dataclass(slots=True)
class Lane:
    """Things that must not happen at the same time.  At most one effect at once; a failed one waits before the next."""

    effect: Effect | None = None
    touched: int = 0  # number of the last effect that began or ended here: a snapshot from before it doesn't count
    failures: int = 0
    failed_mono: int = 0
    retry_mono: int = 0
    hint: str = ""  # id of a container to look up when the lane is free

    def free(self, mono_us: int) -> bool:
        return self.effect is None and mono_us >= self.retry_mono


@dataclass(slots=True)
class ProbeState:
    successes: int = 0
    failures: int = 0


@dataclass(slots=True)
class ContainerState:
    name: str
    lane: Lane = field(default_factory=Lane)
    pull: Lane = field(default_factory=Lane)
    attempts: dict[int, Observed] = field(default_factory=dict)
    waiting: tuple[str, str] | None = None  # (reason, message) of a container that isn't there yet or waits for its next try
    image_ready: str = ""  # image that the node is known to have, for the next start
    probing: str = ""  # id of the container whose probes run
    probes: dict[ProbeKind, ProbeState] = field(default_factory=dict)
    started: bool = False
    ready: bool = False
    undecided: bool = False  # adopted, and its readiness probe has not answered yet
    kill: tuple[str, str, int | None] | None = None  # (container id, why, grace) when a probe has condemned it
    excused: str = ""  # id of a container that we stopped for a reason of our own: no backoff
    forced: str = ""  # id of a container that must be replaced whatever the restart policy
    restart: tuple[str, int, int] | None = None  # (id of the exited container, delay in ms, monotonic time of the next try)

    @property
    def current(self) -> Observed | None:
        return self.attempts[max(self.attempts)] if self.attempts else None

    @property
    def previous(self) -> Observed | None:
        """The attempt before, when it is still known."""
        order = sorted(self.attempts)
        return self.attempts[order[-2]] if len(order) > 1 else None

    @property
    def running(self) -> bool:
        current = self.current
        return current is not None and current.state == "running"

    def any_running(self) -> list[Observed]:
        return [o for o in self.attempts.values() if o.state == "running"]


@dataclass(slots=True)
class Told:
    """One event that was told, for counting instead of repeating."""

    count: int
    first_us: int


@dataclass(slots=True)
class PodState:
    uid: str
    namespace: str
    name: str
    seen_us: int
    pod: Pod | None = None  # None: an orphan, or refused
    invalid: str = ""
    cause: str = ""
    trace: str = ""
    hops: list[Hop] = field(default_factory=list)
    containers: dict[str, ContainerState] = field(default_factory=dict)
    sandboxes: dict[int, Observed] = field(default_factory=dict)
    sandbox_lane: Lane = field(default_factory=Lane)
    sandbox_attempt: int = -1  # the highest ever used
    volumes_lane: Lane = field(default_factory=Lane)
    plan: Plan | None = None
    writing: str = ""  # digest of the plan that is being written
    written: str = ""  # digest of the plan that is on disk
    on_disk: bool = False  # something of it is on disk, from this daemon or one before it
    problem: tuple[str, str] | None = None  # (reason, message) why containers can't start yet: volumes, sandbox
    adopted: bool = False  # containers of it were here before this life of the daemon
    finished: str = ""  # Succeeded or Failed, for ever
    finish_reason: tuple[str, str] | None = None
    doomed: bool = False
    grace_s: int = 30
    confirmed_gone: bool = False
    withdrawn: bool = False  # its object is no longer in the replica
    kill_mono: int | None = None
    kill_lanes: dict[str, Lane] = field(default_factory=dict)
    orphan_mono: int | None = None  # when an unclaimed pod may be removed
    adopt_mono: int | None = None  # the first report waits for probes until then
    transitions: dict[str, tuple[str, str]] = field(default_factory=dict)
    start_time: str = ""
    told: dict[tuple[str, str], Told] = field(default_factory=dict)
    reported: dict[str, Any] | None = None
    must_report: bool = False
    fading: bool = False  # its containers are being removed: the last status, with all of them ended, stays the last
    silent: bool = False  # its name belongs to another pod, whose reports its own would replace: nothing more is told
    again: ObjectApplied | None = None  # it was withdrawn and came back while it was ending: start anew when it has ended
    wake_mono: int | None = None  # when this pod wants to be looked at again

    @property
    def sandbox(self) -> Observed | None:
        return self.sandboxes[max(self.sandboxes)] if self.sandboxes else None

    @property
    def pod_ip(self) -> str:
        sandbox = self.sandbox
        return sandbox.ip if sandbox is not None and sandbox.state == "running" else ""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    def container(self, name: str) -> ContainerState:
        state = self.containers.get(name)
        if state is None:
            state = self.containers[name] = ContainerState(name)
        return state

    def empty(self) -> bool:
        """Nothing of it is left in the engine, as far as is known."""
        return not self.sandboxes and not any(c.attempts for c in self.containers.values())
