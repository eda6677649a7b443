"""Everything that the pods core can ask of the rim.

An *effect* has an id and comes back as EffectDone, exactly once, whatever happens (the rim's timeouts see to it).  The core
has at most one effect in flight for each (pod, lane): that, and container names that engines keep unique, is why there are
never two containers of one.  All others are fire and forget.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.core.container_config import ContainerConfig, SandboxConfig
from edge.core.pod_spec import Hook, Probe
from edge.core.volumes_plan import Volume
from schemas.reports import EventReport, PodReport

SANDBOX_LANE = "@sandbox"
VOLUMES_LANE = "@volumes"
SNAPSHOT_LANE = "@snapshot"


@dataclass(frozen=True, slots=True)
class Effect:
    id: int
    pod_uid: str
    lane: str  # a container's name, or one of the three above


@dataclass(frozen=True, slots=True)
class TakeSnapshot(Effect):
    """List all containers of this node, and the pods that have volumes on disk."""


@dataclass(frozen=True, slots=True)
class ListPod(Effect):
    """List the containers of one pod: the last look before it is called gone."""


@dataclass(frozen=True, slots=True)
class Inspect(Effect):
    container_id: str


@dataclass(frozen=True, slots=True)
class EnsureSandbox(Effect):
    """Create and start, or adopt the one of the same name; failure: CreatePodSandboxError."""

    config: SandboxConfig


@dataclass(frozen=True, slots=True)
class PullImage(Effect):
    """Get the image unless the policy says that the present one is good.  Failures: ErrImagePull, ErrImageNeverPull,
    InvalidImageName.

    ``auth`` are (registry, user, password) triples from imagePullSecrets."""

    image: str
    policy: str
    fallback: bool
    auth: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class RunContainer(Effect):
    """Create, start, and run postStart; or adopt the one of the same name.  Failures: CreateContainerError,
    RunContainerError, PostStartHookError, ImageMissing."""

    config: ContainerConfig


@dataclass(frozen=True, slots=True)
class StopContainer(Effect):
    """preStop, SIGTERM, the rest of the grace period, SIGKILL."""

    container_id: str
    grace_s: int
    pre_stop: Hook | None
    pod_ip: str


@dataclass(frozen=True, slots=True)
class KillContainer(Effect):
    container_id: str


@dataclass(frozen=True, slots=True)
class RemoveContainer(Effect):
    """Also of a sandbox; whatever its state."""

    container_id: str


@dataclass(frozen=True, slots=True)
class WriteVolumes(Effect):
    """Make the pod's volumes be as planned; failure: FailedMount."""

    volumes: tuple[Volume, ...]
    group: int | None


@dataclass(frozen=True, slots=True)
class RemoveVolumes(Effect):
    pass


@dataclass(frozen=True, slots=True)
class StartProbe:
    pod_uid: str
    container: str
    container_id: str
    pod_ip: str
    started_us: int
    probe: Probe


@dataclass(frozen=True, slots=True)
class StopProbe:
    """All probes of a container, or the one of a kind."""

    container_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """One Tick is wanted at this monotonic time; a later SetTimer replaces this one."""

    at_mono_us: int


@dataclass(frozen=True, slots=True)
class ReportPod:
    namespace: str
    name: str
    report: PodReport
    cause: str
    trace: str


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """``name`` is the series': the pod's name and what is told again and again."""

    namespace: str
    name: str
    report: EventReport
    cause: str
    trace: str


@dataclass(frozen=True, slots=True)
class RemoveKept:
    """The folder of a persistent volume that is being deleted with its data.  What failed is tried again when the daemon
    starts: the volume stays in the replica until the folder is gone."""

    handle: str


Instruction = RemoveKept | Effect | StartProbe | StopProbe | SetTimer | ReportPod | EmitEvent
