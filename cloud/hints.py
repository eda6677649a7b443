"""Quick words about links, from the hub: a leaf that hung up, one that is back.

Beats are rare, because they are most of what an idle node sends.  What makes them enough:

* a link that ended is asked about at once, and a node that doesn't answer within DEBOUNCE_S is told lost: a flap is none;
* a link that came back, or a cloud that did, asks the node for a beat, marked as renewed: what was published in between is
  lost to its subscribers, so the node catches up now and not at its next beat;
* a node that is silent for longer than its beats should be (``cloud.beats``) is asked before its grace is over.

Only an answer proves a link: what the hub tells is never more than a reason to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable

import structlog

from bus import connect
from bus import log as buslog
from bus.hub import links
from bus.identity import nodes
from cloud.beats import Beats

logger = structlog.get_logger(__name__)

DEBOUNCE_S = 10.0  # a leaf comes back after 2 s (its `reconnect`), over a slow radio link in five more
# After a link came up: the leaf must have told the hub what it wants to hear, which takes a round trip or two.
ASK_AFTER_S = (0.3, 1.5, 5.0)
ASK_LOST_S = (0.0, 3.0, 6.0)
EVERYBODY_A_S = 500.0  # nodes asked a second when all must be: 100,000 beats in three minutes
RETRY_S = 2.0


class Hints:
    """``run`` in one or several cloud processes; ``on_lost(node)`` when a link ended and the node didn't answer."""

    def __init__(
        self,
        sys: connect.Connection,
        core: connect.Connection,
        store: buslog.Log,
        edge_account: str,
        beats: Beats,
        on_lost: Callable[[str], None],
        *,
        debounce_s: float = DEBOUNCE_S,
    ) -> None:
        self._links = links.Links(sys, store, edge_account)
        self._log, self._beats, self._on_lost, self._debounce_s = store, beats, on_lost, debounce_s
        self._due: list[tuple[float, str, str, float]] = []  # heap of (when, node, what, since)
        self._wake = asyncio.Event()
        self._everybody = asyncio.Event()
        self._everybody.set()  # who was connected while we were not
        for connection in (sys, core):
            connection.on_change(lambda up: self._everybody.set() if up else None)

    async def run(self) -> None:
        """For ever."""
        await self._links.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(), name="hints.listen")
                tasks.create_task(self._ask_everybody(), name="hints.everybody")
                while True:
                    await self._next()
        finally:
            await self._links.stop()

    async def _listen(self) -> None:
        async for change in self._links.changes():
            now = time.monotonic()
            if change.up:
                self._plan(change.node, "renewed", now, ASK_AFTER_S)
            else:
                self._plan(change.node, "", now, [s for s in ASK_LOST_S if s < self._debounce_s])
                self._plan(change.node, "lost", now, [self._debounce_s])

    def _plan(self, node: str, what: str, now: float, after: tuple[float, ...] | list[float]) -> None:
        for s in after:
            heapq.heappush(self._due, (now + s, node, what, now))
        self._wake.set()

    async def _next(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, node, what, since = heapq.heappop(self._due)
            if self._beats.seen(node) > since:
                continue  # it answered
            if what == "lost":
                logger.info("hints.lost", node=node)
                self._on_lost(node)
            else:
                await self._beats.ask(node, renewed=what == "renewed")
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._due[0][0] - now if self._due else None):
                await self._wake.wait()

    async def _ask_everybody(self) -> None:
        while True:
            await self._everybody.wait()
            self._everybody.clear()
            try:
                known = await nodes.read_nodes(self._log)
            except buslog.LogError as e:
                logger.warning("hints.identity_unreadable", reason=str(e))
                self._everybody.set()
                await asyncio.sleep(RETRY_S)
                continue
            for name, state in known.items():
                if not state.revoked:
                    await self._beats.ask(name, renewed=True)
                    await asyncio.sleep(1 / EVERYBODY_A_S)
