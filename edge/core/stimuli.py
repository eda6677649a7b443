"""Everything that can happen to the pods core.

Times: ``now_us`` is wall time (for statuses), ``mono_us`` is the monotonic clock (for waiting: an edge node's wall clock may
jump by years when it finds a time server).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge.core.pod_spec import ProbeKind
from schemas.subjects import ObjectKey

ContainerStateName = Literal["created", "running", "exited"]


@dataclass(frozen=True, slots=True)
class Observed:
    """One container of this node as the engine has it; the sandbox's ``container`` is "".  Times: wall us, 0 is never."""

    id: str
    pod_uid: str
    namespace: str
    pod: str
    container: str
    attempt: int
    state: ContainerStateName
    spec_hash: str = ""
    sandbox: str = ""  # id of the sandbox that it joined
    backoff_ms: int = -1
    grace_s: int = 30
    cause: str = ""
    trace: str = ""
    created_us: int = 0
    started_us: int = 0
    finished_us: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    image: str = ""
    image_id: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Stimulus:
    now_us: int
    mono_us: int


@dataclass(frozen=True, slots=True)
class ObjectApplied(Stimulus):
    """A pod, config map, secret or service of this node, as the replica has it now; ``obj`` None: withdrawn."""

    key: ObjectKey
    event_id: str
    trace: str
    obj: Mapping[str, Any] | None
    loaded: bool = False  # read back from the node's own store, not new


@dataclass(frozen=True, slots=True)
class ReplicaComplete(Stimulus):
    """The replica holds everything that the cloud knows for this node: only now can a container be nobody's."""


@dataclass(frozen=True, slots=True)
class RuntimeUp(Stimulus):
    """The engine answers (again, or for the first time): nothing that was known of its containers counts any more."""


@dataclass(frozen=True, slots=True)
class RuntimeDown(Stimulus):
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Hint(Stimulus):
    """The engine says that something happened to a container.  Not believed, only looked up."""

    pod_uid: str
    container: str
    container_id: str
    action: Literal["start", "die", "destroy"]


@dataclass(frozen=True, slots=True)
class EffectDone(Stimulus):
    """The end of an effect.  ``reason`` is a CamelCase word when it failed; ``container`` is what is there afterwards
    (None: nothing); ``listing`` and ``volume_uids`` are the answer to TakeSnapshot."""

    effect_id: int
    ok: bool
    reason: str = ""
    message: str = ""
    container: Observed | None = None
    listing: tuple[Observed, ...] = ()
    volume_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeResult(Stimulus):
    pod_uid: str
    container: str
    container_id: str
    kind: ProbeKind
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class NodeChanged(Stimulus):
    """The node's own address or size became known or changed."""

    host_ip: str
    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ReportAll(Stimulus):
    """Report every pod again, changed or not: for a cloud that may have written something else meanwhile."""


@dataclass(frozen=True, slots=True)
class Tick(Stimulus):
    """A timer that SetTimer armed, or any other reason to look at the clock."""
