"""What processes use, from /proc, and what a hub's servers say of themselves."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus import connect

ANSWERS_S = 30.0  # a server that takes thousands of connections answers late
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the start of the process (user and system), resident memory in bytes."""

    cpu_s: float
    rss: int


def of(pid: int) -> Usage:
    """Zeros for a process that is gone.  Source: proc(5), stat fields 14 and 15, status VmRSS."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Usage(0.0, 0)
    rss = next((int(row.split()[1]) << 10 for row in status.splitlines() if row.startswith("VmRSS:")), 0)
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, rss)


def total(pids: list[int]) -> Usage:
    each = [of(p) for p in pids]
    return Usage(sum(u.cpu_s for u in each), sum(u.rss for u in each))


class Meter:
    """Between ``Meter(...)`` and ``read``: CPU seconds spent, memory at the end, by name of the group of processes."""

    def __init__(self, groups: Mapping[str, list[int]]) -> None:
        self._groups = dict(groups)
        self._before = {name: total(pids) for name, pids in self._groups.items()}

    def read(self) -> dict[str, dict[str, float]]:
        out = {}
        for name, pids in self._groups.items():
            now = total(pids)
            spent = max(0.0, now.cpu_s - self._before[name].cpu_s)
            out[name] = {"cpu_s": round(spent, 2), "rss_mb": round(now.rss / 1e6, 1)}
        return out


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of all servers of a hub together, since they started.  Payload and subjects as the server counts them, without TLS,
    TCP and IP."""

    in_bytes: int
    out_bytes: int
    connections: int


async def traffic(system: connect.Connection, servers: int = 1) -> Traffic:
    """``system`` is a SYS connection.  Source: nats-server, ``$SYS.REQ.SERVER.PING.VARZ``, which each server answers.
    Raises TimeoutError when fewer than ``servers`` do."""
    found: dict[str, dict[str, Any]] = {}
    complete = asyncio.Event()

    async def take(msg: connect.Message) -> None:
        data = json.loads(msg.data)["data"]
        found[data["server_name"]] = data
        if len(found) >= servers:
            complete.set()

    inbox = system.client.new_inbox()
    subscribed = await system.subscribe(inbox, take)
    try:
        async with asyncio.timeout(ANSWERS_S):
            await system.publish("$SYS.REQ.SERVER.PING.VARZ", b"{}", reply=inbox)
            await complete.wait()
    finally:
        await subscribed.unsubscribe()
    rows = found.values()
    return Traffic(sum(r["in_bytes"] for r in rows), sum(r["out_bytes"] for r in rows), sum(r["connections"] for r in rows))


@dataclass(frozen=True, slots=True)
class Live:
    """Bytes that a Go process needs, without what its collector leaves lying and has not given back."""

    heap: int
    stacks: int

    @property
    def total(self) -> int:
        return self.heap + self.stacks


async def live(profile_port: int) -> Live:
    """After a collection.  Source: Go, net/http/pprof and runtime.MemStats, whose fields end the text form of a profile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", profile_port)
    try:
        async with asyncio.timeout(ANSWERS_S):
            writer.write(b"GET /debug/pprof/heap?gc=1&debug=1 HTTP/1.0\r\n\r\n")
            text = (await reader.read(-1)).decode(errors="replace")
    finally:
        writer.close()
    found = dict(re.findall(r"^# (HeapAlloc|Stack) = (\d+)", text, re.MULTILINE))
    if len(found) != 2:
        raise OSError(f"no memory profile at port {profile_port}: {text[:100]!r}")
    return Live(int(found["HeapAlloc"]), int(found["Stack"]))


def free_mb() -> float:
    """What the kernel could still give.  Source: proc(5), MemAvailable."""
    rows = Path("/proc/meminfo").read_text().splitlines()
    return round(next(int(row.split()[1]) for row in rows if row.startswith("MemAvailable")) / 1e3, 1)


def machine() -> dict[str, Any]:
    """What a figure is worth nothing without."""
    info = Path("/proc/meminfo").read_text().splitlines()
    memory = next(int(row.split()[1]) for row in info if row.startswith("MemTotal"))
    names = Path("/proc/cpuinfo").read_text().splitlines()
    load = Path("/proc/loadavg").read_text().split()[:3]
    cpu = next((row.split(":")[1].strip() for row in names if row.startswith("model name")), "")
    return {"cpus": os.cpu_count(), "cpu": cpu, "memory_gb": round(memory / 1e6, 1), "load": [float(x) for x in load]}
