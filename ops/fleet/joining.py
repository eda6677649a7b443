"""Joining, the long way: a token for each node, its own key, the join service, the files that a node keeps.

Telemetry sources make the thousandth join dearer than the first (``bus.hub.telemetry`` says why), so the second half is
told apart from the first.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from bus.identity import join, tokens
from ops.bench.latency import percentile
from ops.fleet import usage
from ops.fleet.lab import Lab
from ops.lab.show import Show

AT_ONCE = 32
READY_S = 60.0


async def measure(lab: Lab, show: Show, count: int) -> dict[str, Any]:
    """``count`` nodes join, AT_ONCE at a time.  Raises join.JoinError."""
    lab.start("join")
    with tempfile.TemporaryDirectory(prefix="skerry-joins-") as folder:
        with show.step(f"{count} join tokens") as line:
            began = time.monotonic()
            made = [await tokens.create_token(lab.log, lab.hub) for _ in range(count)]
            token_ms = (time.monotonic() - began) / count * 1000
            line.detail(f"{token_ms:.1f} ms each")
        await _first(made[0], Path(folder) / "0")
        with show.step(f"{count - 1} nodes join") as line:
            meter, slots = usage.Meter(lab.groups()), asyncio.Semaphore(AT_ONCE)
            took: list[float] = []

            async def one(n: int) -> None:
                async with slots:
                    at = time.monotonic()
                    await join.join(made[n], f"joiner-{n}", Path(folder) / str(n))
                    took.append(time.monotonic() - at)

            began = time.monotonic()
            await asyncio.gather(*(one(n) for n in range(1, count)))
            seconds = time.monotonic() - began
            line.detail(f"{(count - 1) / seconds:.0f} a second")
    half = len(took) // 2
    return {
        "bench": "join", "nodes": count, "at_once": AT_ONCE, "token_ms": round(token_ms, 2), "seconds": round(seconds, 2),
        "joins_s": round((count - 1) / seconds, 1), "p50_ms": round(percentile(took, 0.5) * 1000, 1),
        "p99_ms": round(percentile(took, 0.99) * 1000, 1), "first_half_ms": round(sum(took[:half]) / half * 1000, 1),
        "second_half_ms": round(sum(took[half:]) / (len(took) - half) * 1000, 1), "used": meter.read(),
    }  # fmt: skip


async def _first(token: str, folder: Path) -> None:
    """A service that is still starting is waited for; what it did not hear uses no token."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            await join.join(token, "joiner-0", folder)
            return
        except join.HubUnreachable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
