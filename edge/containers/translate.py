"""Our configurations in the Docker Engine API's words, and its answers in ours.

Source: Docker Engine API 1.41 (ContainerCreate, ContainerInspect), which Podman's compatible API follows.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Callable, Mapping
from typing import Any

from edge.containers import labels
from edge.core.container_config import ContainerConfig, MountConfig, SandboxConfig
from edge.core.stimuli import ContainerStateName, Observed
from edge.core.volumes_plan import MemoryDir

Json = dict[str, Any]

LOG_BYTES_MAX = "10m"  # Kubernetes: containerLogMaxSize
LOG_FILES_MAX = "3"  # a third of the kubelet's five files would do, one node's disk is small
SHM_BYTES = 64 << 20  # Docker's own default, said because the sandbox owns the pod's /dev/shm

LOG_CONFIG: Json = {"Type": "json-file", "Config": {"max-size": LOG_BYTES_MAX, "max-file": LOG_FILES_MAX}}

_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}
_STATES: dict[str, ContainerStateName] = {"created": "created", "exited": "exited", "dead": "exited", "stopped": "exited"}
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z")


def sandbox(config: SandboxConfig, image: str, label_map: Mapping[str, str]) -> Json:
    host: Json = {
        "NetworkMode": config.network,
        "IpcMode": "host" if config.host_ipc else "shareable",
        "LogConfig": LOG_CONFIG,
        "Sysctls": dict(config.sysctls),
        "OomScoreAdj": -998,  # the kubelet's: losing the sandbox loses the pod
        "SecurityOpt": ["no-new-privileges"],
        "ShmSize": SHM_BYTES,
        "Mounts": [_memory_mount(v, f"/volumes/{v.name}", label_map) for v in config.memory_volumes],
        "ExtraHosts": [f"{name}:{ip}" for name, ip in config.hosts],
        "RestartPolicy": {"Name": "no"},
    }
    if config.host_pid:
        host["PidMode"] = "host"
    if config.dns_servers:
        host["Dns"] = list(config.dns_servers)
    if config.dns_searches:
        host["DnsSearch"] = list(config.dns_searches)
    if config.dns_options:
        host["DnsOptions"] = list(config.dns_options)
    body: Json = {"Image": image, "Labels": dict(label_map), "HostConfig": host}
    if config.network != "host":
        bindings: dict[str, list[Json]] = {}
        for port in config.ports:
            bindings.setdefault(f"{port.container}/{port.protocol}", []).append(
                {"HostIp": port.host_ip, "HostPort": str(port.host)}
            )
        host["PortBindings"] = bindings
        body |= {"Hostname": config.hostname, "ExposedPorts": {p: {} for p in bindings}}
        if config.domain:
            body["Domainname"] = config.domain
    return body


def container(config: ContainerConfig, label_map: Mapping[str, str], resolve: Callable[[MountConfig], str]) -> Json:
    """``resolve`` gives the path on the host of a mount that is not a tmpfs volume."""
    sandbox_id = config.identity.sandbox
    security = (["no-new-privileges"] if config.no_new_privileges else []) + (
        ["seccomp=unconfined"] if config.seccomp_unconfined else []
    )
    host: Json = {
        "NetworkMode": f"container:{sandbox_id}",
        "IpcMode": "host" if config.host_ipc else f"container:{sandbox_id}",
        "LogConfig": LOG_CONFIG,
        "Privileged": config.privileged,
        "ReadonlyRootfs": config.read_only_root,
        "CapAdd": list(config.cap_add),
        "CapDrop": list(config.cap_drop),
        "SecurityOpt": security,
        "GroupAdd": [str(g) for g in config.groups],
        "OomScoreAdj": config.oom_score_adj,
        "CpuShares": config.cpu_shares,
        "NanoCpus": config.cpu_nano,
        "Memory": config.memory_bytes,
        "RestartPolicy": {"Name": "no"},  # restarts are ours to decide and to count
    }
    if config.memory_bytes:
        host["MemorySwap"] = config.memory_bytes  # no swap, as the kubelet's default
    if config.target:
        host["PidMode"] = f"container:{config.target}"
    elif config.host_pid:
        host["PidMode"] = "host"
    elif config.share_pid:
        host["PidMode"] = f"container:{sandbox_id}"
    host["Mounts"] = [_mount(m, label_map, resolve) for m in config.mounts]
    body: Json = {
        "Image": config.image,
        "Labels": dict(label_map),
        "Env": [f"{k}={v}" for k, v in config.env],
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "HostConfig": host,
        "Healthcheck": {"Test": ["NONE"]},  # probes are ours; an image's own health check would only wake the node
    }
    if config.command:
        body["Entrypoint"] = list(config.command)
    if config.args or config.command:
        body["Cmd"] = list(config.args)  # a command without arguments drops the image's, as in Kubernetes
    if config.working_dir:
        body["WorkingDir"] = config.working_dir
    if config.user:
        body["User"] = config.user
    return body


def _mount(mount: MountConfig, label_map: Mapping[str, str], resolve: Callable[[MountConfig], str]) -> Json:
    if isinstance(mount.source, MemoryDir):
        return {**_memory_mount(mount.source, mount.target, label_map), "ReadOnly": mount.read_only}
    propagation = _PROPAGATION.get(mount.propagation, "rprivate")
    return {
        "Type": "bind",
        "Source": resolve(mount),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": propagation},
    }


def memory_volume_name(label_map: Mapping[str, str], volume: MemoryDir) -> str:
    return f"skerry_{label_map[labels.POD_UID]}_{volume.name}"


def _memory_mount(volume: MemoryDir, target: str, label_map: Mapping[str, str]) -> Json:
    """A tmpfs that all containers of the pod share.  The engine mounts it for the first of them and drops it after the last:
    the sandbox mounts it too, so it lives as long as the pod."""
    options = "mode=1777" + (f",size={volume.size}" if volume.size else "")
    return {
        "Type": "volume",
        "Source": memory_volume_name(label_map, volume),
        "Target": target,
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": {k: label_map[k] for k in (labels.NODE, labels.HUB, labels.POD_UID)},
            "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": options}},
        },
    }


# --- what the engine answers ----------------------------------------------------------------------------------------


def observed(inspected: Mapping[str, Any]) -> Observed | None:
    """From ContainerInspect; None for a container that isn't ours."""
    config, state = inspected.get("Config") or {}, inspected.get("State") or {}
    identity = labels.read(config.get("Labels") or {})
    if identity is None:
        return None
    name = "running" if state.get("Running") or state.get("Paused") else _STATES.get(str(state.get("Status", "")), "exited")
    return Observed(
        id=str(inspected["Id"]),
        pod_uid=identity.pod_uid,
        namespace=identity.namespace,
        pod=identity.pod,
        container=identity.container,
        attempt=identity.attempt,
        state="running" if name == "running" else "created" if name == "created" else "exited",
        spec_hash=identity.spec_hash,
        sandbox=identity.sandbox,
        backoff_ms=identity.backoff_ms,
        grace_s=identity.grace_s,
        cause=identity.cause,
        trace=identity.trace,
        created_us=micros(inspected.get("Created")),
        started_us=micros(state.get("StartedAt")),
        finished_us=micros(state.get("FinishedAt")),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        image=str(config.get("Image") or ""),
        image_id=_image_id(str(inspected.get("Image") or "")),
        ip=_ip(inspected.get("NetworkSettings") or {}),
    )


def _image_id(image: str) -> str:
    return f"docker://{image}" if image else ""


def _ip(settings: Mapping[str, Any]) -> str:
    for network in (settings.get("Networks") or {}).values():
        if isinstance(network, dict) and network.get("IPAddress"):
            return str(network["IPAddress"])
    return str(settings.get("IPAddress") or "")


def micros(text: Any) -> int:
    """An engine's RFC 3339 time as wall microseconds; 0 for its zero time and for what isn't one."""
    match = _TIME.match(text) if isinstance(text, str) else None
    if match is None or match.group(1) == "0001":
        return 0
    year, month, day, hour, minute, second = (int(g) for g in match.groups()[:6])
    us = timegm((year, month, day, hour, minute, second)) * 1_000_000 + int((match.group(7) or "0").ljust(9, "0")[:6])
    zone = match.group(8)
    if zone != "Z":
        offset_s = (int(zone[1:3]) * 60 + int(zone[4:6])) * 60
        us -= (offset_s if zone[0] == "+" else -offset_s) * 1_000_000
    return max(us, 0)
