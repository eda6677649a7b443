"""What the services refuse on their own, into the audit log: floods, clones, forgeries.

Told from callbacks that must not wait for the log; what can't be written is said in our own log and dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bus import log as buslog
from bus.identity import tokens
from schemas import identity, subjects

logger = structlog.get_logger(__name__)

WAITING_MAX = 1000  # each is rare by itself (once a minute a node); beyond it the newest are dropped, and said


class AccessLog:
    """``run`` writes what ``tell`` was told."""

    def __init__(self, store: buslog.Log) -> None:
        self._log = store
        self._queue: asyncio.Queue[tuple[str, str, str, identity.Audited]] = asyncio.Queue(WAITING_MAX)

    def tell(self, type_: str, what: str, node: str, reason: str, count: int = 1) -> None:
        """``what`` is the subject's second token, e.g. ``flood``."""
        node = node[: identity.NODE_NAME_MAX]
        try:
            self._queue.put_nowait((type_, what, node, identity.Audited(reason=reason[:500], node=node, count=count)))
        except asyncio.QueueFull:
            logger.error("access_log.full", what=what, node=node, reason=reason[:200])

    def on_flood(self, service: str) -> Callable[[str, int], None]:
        """For ``cloud.shares.Shares``."""
        return lambda node, dropped: self.tell(identity.AUDIT_FLOOD, "flood", node, f"{service}: asks too much", dropped)

    async def run(self) -> None:
        """For ever."""
        while True:
            type_, what, node, audited = await self._queue.get()
            ev = tokens.identity_event(type_, what, node, audited.model_dump(), actor="cloud")
            try:
                await self._log.append(subjects.audit(what, node), ev)
            except buslog.LogError as e:
                logger.error("access_log.not_written", what=what, node=node, reason=audited.reason, error=str(e))
