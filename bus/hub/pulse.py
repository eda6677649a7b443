"""Whether a nats-server answers, seen from outside: the greeting that it gives to whoever connects, and its CPU time.

A server that is silent may hang (a deadlock, a SIGSTOP, a disk that never answers), or have its hands full (a store of many
gigabytes is recovered, a hundred thousand nodes come back at once).  To restart the first is help, to restart the second is
harm, and only what it does meanwhile tells them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE_EVERY_S = 10.0
PROBE_S_MAX = 5.0
PROBE_S_MIN = 0.5  # one that fails at once is not repeated at once
IDLE_PROBES_MAX = 4  # in a row: 20 s of silence of one that does nothing
BUSY_PROBES_MAX = 60  # 5 minutes of one that works
BUSY_SHARE = 0.05  # of one core; a server that serves nobody uses far less
GREETING_BYTES_MAX = 64 << 10


async def server_name(host: str, port: int) -> str:
    """The name in a server's greeting.  Raises OSError, ValueError."""
    try:
        return str((await greeting(host, port))["server_name"])
    except KeyError as e:
        raise ValueError("a greeting without a server name") from e


async def greeting(host: str, port: int) -> dict[str, Any]:
    """The INFO line that a nats-server greets with, also on a TLS port (the handshake comes after it).
    Raises OSError, ValueError."""
    reader, writer = await asyncio.open_connection(host, port, limit=GREETING_BYTES_MAX)
    try:
        line = await reader.readline()
        if not line.startswith(b"INFO "):
            raise ValueError(f"not a nats-server: {line[:40]!r}")
        found: dict[str, Any] = json.loads(line[5:])
        return found
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far (proc(5), stat fields 14 and 15); 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Patience:
    """How many probes in a row may fail."""

    every_s: float = PROBE_EVERY_S
    probe_s: float = PROBE_S_MAX
    idle: int = IDLE_PROBES_MAX
    busy: int = BUSY_PROBES_MAX


async def silent(host: str, port: int, pid: int, patience: Patience) -> str:
    """Returns when the server has been silent for longer than its patience, and says how.

    Probes are counted, not seconds: after we stood still ourselves (a suspended machine, a SIGSTOP), one that fails proves
    nothing."""
    while True:
        await asyncio.sleep(patience.every_s)
        failed = 0
        since, worked = time.monotonic(), cpu_s(pid)
        while (why := await _probe(host, port, patience.probe_s)) is not None:
            failed += 1
            seconds = time.monotonic() - since
            busy = cpu_s(pid) - worked > BUSY_SHARE * seconds
            if failed >= (patience.busy if busy else patience.idle):
                return f"no greeting to {failed} connections in {seconds:.0f} s, {'busy' if busy else 'idle'} ({why})"


async def _probe(host: str, port: int, seconds: float) -> str | None:
    """None when somebody there said anything at all: a refusal is an answer, and not the deed of one that hangs."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            await server_name(host, port)
    except ValueError:
        return None
    except (OSError, TimeoutError) as e:
        await asyncio.sleep(max(0.0, min(PROBE_S_MIN, seconds) - (time.monotonic() - began)))
        return f"{type(e).__name__} {e}".strip()
    return None
