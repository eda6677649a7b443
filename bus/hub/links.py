"""Which nodes are linked to the hub, as nats-server tells it (``$SYS.ACCOUNT.<EDGE>.CONNECT`` and ``DISCONNECT``).

A hint, and a quick one: a link that ends with a TCP reset is told at once, one that just falls silent after the server's
pings (``bus.hub.config``), and nothing is told while SYS itself is not connected.  Whether a node is alive is decided by its
beats.  What it is good for: nudging what waits for a node (``bus.hub.telemetry.nudge``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from bus import connect

log = structlog.get_logger("bus.hub.links")

WAITING_MAX = 10_000  # a hub that restarts tells all its nodes in seconds; beyond it the oldest hints are dropped


@dataclass(frozen=True, slots=True)
class LinkChange:
    """``time`` is the server's, RFC 3339.  ``leaf``: a leaf server's link, not a client's."""

    node: str
    public_key: str
    up: bool
    leaf: bool
    time: str


class Links:
    """``async for change in links.changes()``; over a SYS connection."""

    def __init__(self, sys: connect.Connection, edge_account: str) -> None:
        self._sys, self._account = sys, edge_account
        self._queue: asyncio.Queue[LinkChange] = asyncio.Queue(WAITING_MAX)
        self._subscriptions: list[connect.Subscribed] = []
        self.dropped = 0

    async def start(self) -> None:
        for what in ("CONNECT", "DISCONNECT"):
            subject = f"$SYS.ACCOUNT.{self._account}.{what}"
            self._subscriptions.append(await self._sys.subscribe(subject, self._take))
        await self._sys.flush()

    async def stop(self) -> None:
        for s in self._subscriptions:
            await s.unsubscribe()
        self._subscriptions.clear()

    async def changes(self) -> AsyncIterator[LinkChange]:
        while True:
            yield await self._queue.get()

    async def _take(self, msg: connect.Message) -> None:
        change = parse(msg.subject, msg.data)
        if change is None:
            return
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(change)


def parse(subject: str, payload: bytes) -> LinkChange | None:
    """None for what is not about a node."""
    try:
        data = json.loads(payload)
        client = data["client"]
        node, key = client["name_tag"], client["user"]
        time = data["timestamp"]
        leaf = client.get("kind") == "Leafnode"
    except (ValueError, KeyError, TypeError) as e:
        log.debug("link.unreadable", subject=subject, reason=str(e))
        return None
    if not all(isinstance(v, str) for v in (node, key, time)):
        return None
    return LinkChange(node, key, subject.endswith(".CONNECT"), leaf, time)
