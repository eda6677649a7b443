"""Finds nodes that lack an event and don't know it: every beat carries the node's cursors, and now and then they are held
against the log.

A live event that was lost is found by the next of its scope (its chain) or by the catch-up after a reconnect.  Without
either the node would have to ask for itself again and again, and an empty catch-up costs its link about a kilobyte.  Here
the question costs the link nothing: only a node that is behind is asked to beat as after a reconnect, and so catches up.

It asks rather too often than not at all: an event that was under way when the node beat is a catch-up with nothing in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from bus import log
from cloud import sync as service
from schemas import reports, subjects

logger = structlog.get_logger(__name__)

CHECK_S = 900.0  # a node's cursors are held against the log this often at most; a node beats every 300 s
WAITING_MAX = 10_000  # nodes whose check is due; who finds no room is checked at its next beat
NODES_MAX = 200_000  # remembered; beyond it those checked longest ago are forgotten, and checked again sooner


class Reader(Protocol):
    """What is needed of ``bus.log.Log``."""

    async def last(
        self, stream: str, filters: list[str], *, after: int = 0, bytes_max: int | None = None
    ) -> log.LastState: ...


class Behind:
    """``beat`` for each beat, ``run`` until cancelled.  ``catch_up(node)`` is told who lacks something."""

    def __init__(
        self,
        store: Reader,
        shards: int,
        catch_up: Callable[[str], Awaitable[None]],
        *,
        scopes_of: Callable[[str], list[str]] = service.scopes_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._shards, self._catch_up, self._scopes_of, self._clock = store, shards, catch_up, scopes_of, clock
        self._checked: dict[str, float] = {}  # node -> when, the oldest first
        self._due: asyncio.Queue[tuple[str, dict[str, int]]] = asyncio.Queue(WAITING_MAX)
        self.checks = 0
        self.found = 0

    def beat(self, node: str, beat: reports.Beat) -> None:
        now = self._clock()
        if now - self._checked.get(node, float("-inf")) < CHECK_S or self._due.full():
            return
        self._checked.pop(node, None)
        self._checked[node] = now
        if len(self._checked) > NODES_MAX:
            del self._checked[next(iter(self._checked))]
        # Its own scopes only: what else a beat names is none of its business.
        self._due.put_nowait((node, {s: beat.heads[s] for s in self._scopes_of(node) if s in beat.heads}))

    async def run(self) -> None:
        while True:
            node, heads = await self._due.get()
            try:
                if await self._lacks(heads):
                    self.found += 1
                    logger.info("node.behind", node=node)
                    await self._catch_up(node)
            except log.LogError as e:
                self._checked.pop(node, None)  # at its next beat
                logger.debug("behind.unknown", node=node, error=str(e))

    async def _lacks(self, heads: dict[str, int]) -> bool:
        for scope, head in heads.items():
            self.checks += 1
            stream = f"META-{subjects.shard_of(scope, self._shards)}"
            last = await self._log.last(stream, [subjects.meta_scope(scope, self._shards)], after=head, bytes_max=1)
            if last.records or last.more:
                return True
        return False
