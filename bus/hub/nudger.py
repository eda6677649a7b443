"""Telemetry soon after a link came back, instead of at the end of the hub's own growing pauses (40 s and more).

Told by the server when a leaf links up (``bus.hub.links``); after a loss of our own connection, when such a word may have
been
missed, every silent source is looked at.  Whoever is silent after the last look is left to the hub's own retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time

import structlog

from bus import connect, tasks
from bus import log as buslog
from bus.hub import links, telemetry

log = structlog.get_logger("bus.hub.nudger")

# Looks after a link came up.  The first is early; a leaf that was away for less than the silence that shows is found by the
# next; the last is for a hub that was busy.
LOOKS_S = (0.3, 3.0, 8.0)
TOGETHER_S = 0.3  # looks due within this are one: each rewrites the stream's configuration


class Nudger:
    """``run`` over a SYS connection and CORE's log, in one cloud process (in several: a waste).  May run again."""

    def __init__(self, sys: connect.Connection, log_: buslog.Log, edge_account: str) -> None:
        self._links = links.Links(sys, log_, edge_account)
        self._log = log_
        self._due: list[tuple[float, str]] = []  # heap; "" means everyone
        self._wake = asyncio.Event()
        self.nudges = 0
        sys.on_change(self._on_change)

    def _on_change(self, up: bool) -> None:
        if up:
            self._plan("")

    def _plan(self, node: str) -> None:
        for after in LOOKS_S:
            heapq.heappush(self._due, (time.monotonic() + after, node))
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        await self._links.start()
        listening = asyncio.create_task(self._listen(), name="nudger listens")
        self._plan("")
        try:
            while True:
                nodes = await self._next()
                try:
                    silent = await telemetry.stalled(self._log)
                    chosen = silent if "" in nodes else silent & nodes
                    if chosen:
                        self.nudges += await telemetry.nudge(self._log, chosen)
                        log.info("telemetry.nudged", nodes=len(chosen))
                except buslog.LogError as e:
                    log.warning("telemetry.not_nudged", reason=str(e))
        finally:
            await tasks.end(listening)
            await self._links.stop()

    async def _listen(self) -> None:
        async for change in self._links.changes():
            if change.up and change.leaf:
                self._plan(change.node)

    async def _next(self) -> set[str]:
        """The nodes whose look is due, when one is."""
        while True:
            now = time.monotonic()
            if self._due and self._due[0][0] <= now:
                nodes = set()
                while self._due and self._due[0][0] <= now + TOGETHER_S:
                    nodes.add(heapq.heappop(self._due)[1])
                return nodes
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._due[0][0] - now if self._due else None):
                    await self._wake.wait()
