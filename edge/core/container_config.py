"""A container and its sandbox as a container engine needs them, in nobody's dialect (edge/containers translates).

The sandbox holds what the containers of a pod share: network, IPC, names, host ports; the containers join it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge.core import env
from edge.core.expand import expand
from edge.core.pod_spec import Container, Hook, InvalidPod, Pod, Port, reading
from edge.core.references import References
from edge.core.settings import NodeFacts, PodSettings
from edge.core.spec_hash import spec_hash
from edge.core.volumes_plan import HostPath, KeptDir, MemoryDir, Plan

SHARES_PER_CPU = 1024  # cgroup v1 cpu.shares of one CPU; engines convert to cpu.weight
SHARES_MIN = 2  # the kernel's least
HOSTNAME_MAX = 63  # of the kernel and of DNS labels


@dataclass(frozen=True, slots=True)
class Identity:
    """What labels say about a container: enough to rebuild the pod's state from the engine alone."""

    pod_uid: str
    namespace: str
    pod: str
    container: str  # "" is the sandbox
    attempt: int
    spec_hash: str = ""
    sandbox: str = ""
    backoff_ms: int = -1
    grace_s: int = 30
    cause: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    identity: Identity
    hostname: str
    domain: str
    network: str  # a network's name, or "host"
    ports: tuple[Port, ...]
    dns_servers: tuple[str, ...]
    dns_searches: tuple[str, ...]
    dns_options: tuple[str, ...]
    hosts: tuple[tuple[str, str], ...]  # (name, ip)
    sysctls: tuple[tuple[str, str], ...]
    host_pid: bool
    host_ipc: bool
    memory_volumes: tuple[MemoryDir, ...]


@dataclass(frozen=True, slots=True)
class MountConfig:
    """``source``: the name of a pod volume on disk, a tmpfs volume, a path of the host, or a folder that is kept."""

    source: str | MemoryDir | HostPath | KeptDir
    target: str
    read_only: bool
    sub_path: str
    propagation: str


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    identity: Identity
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    mounts: tuple[MountConfig, ...]
    tty: bool
    stdin: bool
    user: str
    groups: tuple[int, ...]
    privileged: bool
    read_only_root: bool
    no_new_privileges: bool
    seccomp_unconfined: bool
    cap_add: tuple[str, ...]
    cap_drop: tuple[str, ...]
    cpu_nano: int
    cpu_shares: int
    memory_bytes: int
    oom_score_adj: int
    host_pid: bool
    share_pid: bool
    host_ipc: bool
    post_start: Hook | None
    pod_ip: str
    target: str = ""  # id of the container whose processes this one sees


def sandbox_config(pod: Pod, identity: Identity, plan: Plan, settings: PodSettings) -> SandboxConfig:
    """Raises InvalidPod."""
    servers, searches, options = reading("pod.spec.dnsConfig", lambda: _dns(pod, settings))
    return SandboxConfig(
        identity=identity,
        hostname="" if pod.host_network else (pod.hostname or pod.name)[:HOSTNAME_MAX].rstrip("-."),
        domain="" if pod.host_network or not pod.subdomain else _domain(pod, settings),
        network="host" if pod.host_network else settings.network,
        ports=() if pod.host_network else tuple(p for c in pod.containers for p in c.ports if p.host),
        dns_servers=servers,
        dns_searches=searches,
        dns_options=options,
        hosts=tuple((name, ip) for ip, names in pod.host_aliases for name in names),
        sysctls=pod.sysctls,
        host_pid=pod.host_pid,
        host_ipc=pod.host_ipc,
        memory_volumes=tuple(v for v in plan.volumes if isinstance(v, MemoryDir)),
    )


def _domain(pod: Pod, settings: PodSettings) -> str:
    return f"{pod.subdomain}.{pod.namespace}.svc.{settings.cluster_domain}"


def _dns(pod: Pod, settings: PodSettings) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Kubernetes, "DNS for Services and Pods", dnsPolicy and dnsConfig."""
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    cluster = pod.dns_policy == "ClusterFirstWithHostNet" or (pod.dns_policy == "ClusterFirst" and not pod.host_network)
    if cluster and settings.cluster_dns:
        domain = settings.cluster_domain
        servers, options = settings.cluster_dns, ("ndots:5",)
        searches = (f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain)
    config = pod.dns_config
    servers += tuple(str(s) for s in config.get("nameservers") or [])
    searches += tuple(str(s) for s in config.get("searches") or [])
    for option in config.get("options") or []:
        if isinstance(option, dict) and option.get("name"):
            options += (f"{option['name']}:{option['value']}" if option.get("value") else str(option["name"]),)
    return servers, searches, options


def container_config(
    container: Container,
    pod: Pod,
    identity: Identity,
    plan: Plan,
    refs: References,
    node: NodeFacts,
    pod_ip: str,
    settings: PodSettings,
    target: str = "",
) -> ContainerConfig:
    """Raises references.Missing (wait) or InvalidPod."""
    variables = reading(
        f"the environment of container {container.name}",
        lambda: env.environment(container, pod, refs, node, pod_ip, settings.service_links),
    )
    security, resources = container.security, container.resources
    return ContainerConfig(
        identity=replace(identity, spec_hash=spec_hash(container.name, container.image)),
        image=container.image,
        command=tuple(expand(c, variables) for c in container.command),
        args=tuple(expand(a, variables) for a in container.args),
        env=tuple(variables.items()),
        working_dir=container.working_dir,
        mounts=_mounts(container, plan, variables),
        tty=container.tty,
        stdin=container.stdin,
        user=_user(security.user, security.group),
        groups=pod.groups,
        privileged=security.privileged,
        read_only_root=security.read_only_root,
        no_new_privileges=not security.allow_escalation,
        seccomp_unconfined=security.seccomp_unconfined,
        cap_add=tuple(c.removeprefix("CAP_") for c in security.add),
        cap_drop=tuple(c.removeprefix("CAP_") for c in security.drop),
        cpu_nano=(resources.cpu_limit_milli or 0) * 1_000_000,
        cpu_shares=_shares(
            resources.cpu_request_milli if resources.cpu_request_milli is not None else resources.cpu_limit_milli
        ),
        memory_bytes=resources.memory_limit or 0,
        oom_score_adj=_oom_score(container, pod, node),
        host_pid=pod.host_pid,
        share_pid=pod.share_pid,
        host_ipc=pod.host_ipc,
        post_start=container.post_start,
        pod_ip=pod_ip,
        target=target,
    )


def _user(user: int | None, group: int | None) -> str:
    if user is None:
        return "" if group is None else f"0:{group}"
    return str(user) if group is None else f"{user}:{group}"


def _shares(cpu_milli: int | None) -> int:
    return max(SHARES_MIN, (cpu_milli or 0) * SHARES_PER_CPU // 1000)


def _oom_score(container: Container, pod: Pod, node: NodeFacts) -> int:
    """Kubernetes, "Node-pressure Eviction", node out of memory behaviour."""
    if pod.qos == "Guaranteed":
        return -997
    if pod.qos == "BestEffort" or not node.memory_bytes:
        return 1000
    request = container.resources.memory_request or container.resources.memory_limit or 0
    return min(max(2, 1000 - 1000 * request // node.memory_bytes), 999)


def _mounts(container: Container, plan: Plan, variables: Mapping[str, str]) -> tuple[MountConfig, ...]:
    volumes = {v.name: v for v in plan.volumes}
    mounts = []
    for m in container.mounts:
        volume = volumes.get(m.volume)
        if volume is None:
            raise InvalidPod(f"container {container.name}: volume {m.volume!r} is not among the pod's volumes")
        sub_path = expand(m.sub_path_expr, variables) if m.sub_path_expr else m.sub_path
        if sub_path.startswith("/") or ".." in sub_path.split("/"):
            raise InvalidPod(f"container {container.name}: subPath {sub_path[:80]!r} is not a relative path without '..'")
        if sub_path and isinstance(volume, MemoryDir):
            raise InvalidPod(f"container {container.name}: subPath of the memory volume {m.volume} is not supported")
        source = volume if isinstance(volume, MemoryDir | HostPath | KeptDir) else volume.name
        read_only = m.read_only or (isinstance(volume, HostPath | KeptDir) and volume.read_only)
        mounts.append(MountConfig(source, m.path, read_only, sub_path, m.propagation))
    return tuple(mounts)
