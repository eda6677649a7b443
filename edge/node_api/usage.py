"""What this node and its containers use now, for ``kubectl top``: asked for when somebody looks, measured over a second.

Source: Docker Engine API, "Get container stats based on resource usage" (how CPU and the working set are computed);
kubelet, "Resource metrics pipeline" (memory is the working set: without what the kernel can drop at once).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.containers.errors import RuntimeFailure
from edge.core.pod_state import PodState
from edge.effects import PodsRim
from schemas import usage

WINDOW_S = 1.0
AT_ONCE_MAX = 32  # containers that are asked at the same time: each answer takes the engine a second of waiting


async def measure(pods: PodsRim) -> usage.NodeUsage:
    """Containers that end meanwhile are left out."""
    slots = asyncio.Semaphore(AT_ONCE_MAX)
    found = [
        (state, name, run.id)
        for state in pods.core.pods.values()
        for name, own in state.containers.items()
        for run in own.attempts.values()
        if run.state == "running"
    ]
    asked = asyncio.gather(*(_container(pods, cid, slots) for _, _, cid in found))
    node, each = await asyncio.gather(_node(), asked)
    by_pod: dict[str, tuple[PodState, list[usage.ContainerUsage]]] = {}
    for (state, name, _), used in zip(found, each, strict=True):
        if used is not None:
            cpu, memory, total = used
            line = usage.ContainerUsage(name=name, cpu_nano=cpu, memory_bytes=memory, cpu_total_nano=total)
            by_pod.setdefault(state.uid, (state, []))[1].append(line)
    told = [usage.PodUsage(namespace=s.namespace, name=s.name, uid=s.uid, containers=c) for s, c in by_pod.values()]
    cpu, memory, total = node
    window_ms = int(WINDOW_S * 1000)
    return usage.NodeUsage(window_ms=window_ms, cpu_nano=cpu, memory_bytes=memory, cpu_total_nano=total, pods=told)


async def _node() -> tuple[int, int, int]:
    busy, total = _cpu_ticks()
    await asyncio.sleep(WINDOW_S)
    busy_now, total_now = _cpu_ticks()
    cpus = max(1, sum(1 for line in Path("/proc/stat").read_text().splitlines() if line[:3] == "cpu") - 1)
    share = (busy_now - busy) / max(1, total_now - total)
    return int(share * cpus * 1_000_000_000), _memory_used(), busy_now * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _cpu_ticks() -> tuple[int, int]:
    """(busy, all) since the machine started."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def _memory_used() -> int:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) > 1}
    return (kib["MemTotal"] - kib.get("MemAvailable", kib["MemFree"])) << 10


async def _container(pods: PodsRim, container_id: str, slots: asyncio.Semaphore) -> tuple[int, int, int] | None:
    try:
        return of(await pods.runtime.stats(container_id, slots))
    except RuntimeFailure:
        return None


def of(stats: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(nanocores, bytes, nanoseconds of CPU since its start) of an engine's answer; None for one of a container that doesn't
    run any more."""
    now, before, memory = (stats.get(k) or {} for k in ("cpu_stats", "precpu_stats", "memory_stats"))
    total = int((now.get("cpu_usage") or {}).get("total_usage", 0))
    used = total - (before.get("cpu_usage") or {}).get("total_usage", 0)
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if not memory.get("usage"):
        return None
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    nano = int(max(0, used) / passed * cpus * 1_000_000_000) if passed > 0 else 0
    inner = memory.get("stats") or {}
    droppable = inner.get("inactive_file", inner.get("total_inactive_file", 0))
    return nano, max(0, memory["usage"] - droppable), total
