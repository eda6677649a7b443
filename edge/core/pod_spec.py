"""A pod as the node needs it: what pod_parse.py makes of an API object.

Volumes and environment stay raw maps: the modules that resolve them (volumes_plan.py, env.py) read them against config maps
and secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Raw = Mapping[str, Any]
T = TypeVar("T")
RestartPolicy = Literal["Always", "OnFailure", "Never"]
ProbeKind = Literal["startup", "liveness", "readiness"]
ContainerKind = Literal["init", "sidecar", "app", "ephemeral"]


class InvalidPod(ValueError):
    """A pod that can't be run; the message names the field."""


def reading(what: str, read: Callable[[], T]) -> T:
    """The answer of code that reads raw maps: what Python trips over there is the pod's fault; raises InvalidPod."""
    try:
        return read()
    except InvalidPod:
        raise
    except (TypeError, AttributeError, KeyError, ValueError) as e:
        raise InvalidPod(f"{what} is malformed: {e}") from e


# --- handlers, probes, hooks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpGet:
    port: int
    path: str = "/"
    host: str = ""  # empty: the pod's address
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpSocket:
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class Exec:
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Only as a lifecycle hook."""

    seconds: int


Handler = HttpGet | TcpSocket | Exec
Hook = HttpGet | TcpSocket | Exec | Sleep


@dataclass(frozen=True, slots=True)
class Probe:
    """Defaults are those of Kubernetes, "Configure Probes"."""

    kind: ProbeKind
    handler: Handler
    initial_delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    successes: int = 1
    failures: int = 3
    grace_s: int | None = None


# --- containers and the pod -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    container: int
    host: int
    host_ip: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Security:
    """Container and pod security context, merged (the container's wins)."""

    privileged: bool = False
    user: int | None = None
    group: int | None = None
    read_only_root: bool = False
    allow_escalation: bool = True
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    seccomp_unconfined: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    volume: str
    path: str
    read_only: bool
    sub_path: str
    sub_path_expr: str
    propagation: str


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits and requests; None where not given."""

    cpu_limit_milli: int | None = None
    memory_limit: int | None = None
    cpu_request_milli: int | None = None
    memory_request: int | None = None


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    image: str
    kind: ContainerKind
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[Raw, ...]
    env_from: tuple[Raw, ...]
    ports: tuple[Port, ...]
    mounts: tuple[Mount, ...]
    resources: Resources
    security: Security
    probes: tuple[Probe, ...]
    post_start: Hook | None
    pre_stop: Hook | None
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    working_dir: str
    tty: bool
    stdin: bool
    target: str = ""  # an ephemeral container sees the processes of this one


@dataclass(frozen=True, slots=True)
class Known:
    """What the API holds of the pod's status.  Our own reports come back in it, so it never counts as a change."""

    phase: str = ""  # a finished pod is never run again
    start_time: str = ""
    conditions: tuple[
        tuple[str, str, str], ...
    ] = ()  # (type, status, lastTransitionTime): kept over a restart of the daemon


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    uid: str
    labels: dict[str, str]
    annotations: dict[str, str]
    deleting: bool
    delete_grace_s: int | None
    containers: tuple[Container, ...]  # init and sidecar containers first, ephemeral ones last, in order
    volumes: tuple[Raw, ...]
    restart_policy: RestartPolicy
    grace_s: int
    deadline_s: int | None
    host_network: bool
    host_pid: bool
    host_ipc: bool
    share_pid: bool
    hostname: str
    subdomain: str
    dns_policy: str
    dns_config: Raw
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...]
    sysctls: tuple[tuple[str, str], ...]
    groups: tuple[int, ...]  # supplemental groups and fsGroup
    fs_group: int | None
    pull_secrets: tuple[str, ...]
    service_account: str
    service_links: bool
    qos: str
    known: Known = field(compare=False)

    def inits(self) -> list[Container]:
        return [c for c in self.containers if c.kind in ("init", "sidecar")]

    def apps(self) -> list[Container]:
        return [c for c in self.containers if c.kind == "app"]

    def ephemerals(self) -> list[Container]:
        """Added to a running pod to look into it (`kubectl debug`)."""
        return [c for c in self.containers if c.kind == "ephemeral"]
