"""What this machine is and how it fares: the NodeStatus of a report, from the real machine.

No heartbeat times in it: a report says what changed, and the link's own sign of life says that the node is there.  So two
statuses of a healthy node are equal, and nothing is sent.
Source: Kubernetes API reference, NodeStatus; "Node-pressure Eviction" for the thresholds.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bus import stamp
from edge.core.settings import NodeFacts
from edge.core.times import rfc3339
from schemas.reports import NodeReport

PODS_MAX = 110  # Kubernetes: the kubelet's default
MEMORY_PRESSURE_BYTES = 100 << 20  # Kubernetes: memory.available<100Mi
DISK_PRESSURE_SHARE = 0.10  # Kubernetes: nodefs.available<10%
INODE_PRESSURE_SHARE = 0.05  # Kubernetes: nodefs.inodesFree<5%
PID_PRESSURE_SHARE = 0.10  # of the kernel's pid_max left
API_LEVEL = "1.31"  # the Kubernetes whose pod rules we follow; tools read kubeletVersion as a semantic version

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}  # Go's names, which node selectors use


class NodeStatus:
    """Looks at the machine when asked.  ``data_dir`` is where pods' volumes are (its file system is the node's disk)."""

    def __init__(self, node: str, data_dir: Path, labels: Mapping[str, str] | None = None) -> None:
        self._node = node
        self._data_dir = data_dir
        self._labels = dict(labels or {})
        self._since: dict[str, tuple[str, str]] = {}

    def facts(self) -> NodeFacts:
        return facts(self._node)

    def report(
        self,
        ready: bool,
        reason: str,
        engine: Mapping[str, Any],
        trouble: str = "",
        *,
        volumes: Sequence[str] = (),
    ) -> NodeReport:
        """``ready``, ``reason``: PodsRim.runtime_ready; ``engine``: PodsRim.engine; ``trouble``: of the store, if any;
        ``volumes``: PodsRim.volumes_in_use."""
        status = {
            **self._sizes(),
            "addresses": self._addresses(),
            "conditions": self._conditions(),
            "nodeInfo": node_info(engine),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},  # reached through the cloud, never directly
            "volumesInUse": list(volumes),
        }
        return NodeReport(
            status=status,
            labels=self._all_labels(),
            ready=ready,
            reason="" if ready else "ContainerRuntimeDown",
            message=trouble if ready else reason,
            boot=stamp.boot_id(),
        )

    def _sizes(self) -> dict[str, Any]:
        sizes = {
            "cpu": str(_cpus()),
            "memory": f"{_memory_bytes() >> 10}Ki",
            "ephemeral-storage": f"{_disk(self._data_dir)[0] >> 10}Ki",
            "pods": str(PODS_MAX),
        }
        return {"capacity": sizes, "allocatable": dict(sizes)}

    def _addresses(self) -> list[dict[str, str]]:
        ip = host_ip()
        return [
            *([{"type": "InternalIP", "address": ip}] if ip else []),
            {"type": "Hostname", "address": self._node},
        ]

    def _all_labels(self) -> dict[str, str]:
        """Kubernetes, "Well-Known Labels", and those the operator gave."""
        known = {
            "kubernetes.io/hostname": self._node,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
            "node-role.kubernetes.io/edge": "",
        }
        return {**known, **self._labels}

    def _conditions(self) -> list[dict[str, Any]]:
        total, free, inodes_share = _disk(self._data_dir)
        disk = free < total * DISK_PRESSURE_SHARE or inodes_share < INODE_PRESSURE_SHARE
        return [
            self._condition("MemoryPressure", _memory_available() < MEMORY_PRESSURE_BYTES, "Memory", "sufficient memory"),
            self._condition("DiskPressure", disk, "Disk", "no disk pressure"),
            self._condition("PIDPressure", _pids_share() < PID_PRESSURE_SHARE, "PID", "sufficient PID"),
        ]

    def _condition(self, kind: str, pressed: bool, what: str, fine: str) -> dict[str, Any]:
        value = "True" if pressed else "False"
        since = self._since.get(kind)
        if since is None or since[0] != value:
            since = self._since[kind] = (value, rfc3339(stamp.now_us()))
        verb = "HasInsufficient" if pressed else "HasSufficient"
        reason = {"Disk": "NodeHasDiskPressure" if pressed else "NodeHasNoDiskPressure"}.get(what, f"Node{verb}{what}")
        return {
            "type": kind,
            "status": value,
            "lastTransitionTime": since[1],
            "reason": reason,
            "message": f"the node is short of {what.lower()}" if pressed else f"the node has {fine}",
        }


def facts(node: str) -> NodeFacts:
    """What pods can ask about this machine."""
    return NodeFacts(node, host_ip(), _cpus() * 1000, _memory_bytes())


def node_info(engine: Mapping[str, Any]) -> dict[str, str]:
    uname = os.uname()
    name = "podman" if "BuildahVersion" in engine else "docker"
    return {
        "machineID": _read("/etc/machine-id"),
        "systemUUID": _read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        "bootID": stamp.boot_id(),
        "kernelVersion": uname.release,
        "osImage": _os_image(),
        "containerRuntimeVersion": f"{name}://{engine.get('ServerVersion') or 'unknown'}",
        "kubeletVersion": f"v{API_LEVEL}.0-skerry-{stamp.VERSION}",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture(),
    }


def architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def host_ip() -> str:
    """The address that this machine uses towards the world; without a way out, the one of its own name; else ""."""
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            # Connecting a datagram socket sends nothing: it only asks the kernel for a route (documentation addresses)
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                s.connect((somewhere, 9))
                return str(s.getsockname()[0])
        except OSError:
            continue
    try:
        found = socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""
    return "" if found.startswith("127.") else found


# --- reading the machine --------------------------------------------------------------------------------------------


def _cpus() -> int:
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory_available() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return _memory_bytes()


def _disk(path: Path) -> tuple[int, int, float]:
    """(bytes, free bytes, share of inodes free) of the file system that a path is or will be on."""
    while not path.exists() and path != path.parent:
        path = path.parent
    usage, fs = shutil.disk_usage(path), os.statvfs(path)
    return usage.total, usage.free, fs.f_favail / fs.f_files if fs.f_files else 1.0


def _pids_share() -> float:
    try:
        in_use = int(_read("/proc/loadavg").split()[3].split("/")[1])
        most = int(_read("/proc/sys/kernel/pid_max"))
    except (ValueError, IndexError):
        return 1.0
    return 1.0 - in_use / most


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
