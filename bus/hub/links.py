"""Which nodes are linked to the hub, as nats-server tells it (``$SYS.ACCOUNT.<EDGE>.CONNECT`` and ``DISCONNECT``).

A hint, and a quick one: a link that ends with a TCP reset is told at once, one that just falls silent after the server's
pings (``bus.hub.config``), and nothing is told while SYS itself is not connected.  Whether a node is alive is decided by its
beats.  What it is good for: nudging what waits for a node (``bus.hub.telemetry.nudge``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats.errors
import structlog

from bus import connect
from bus import log as buslog
from bus.identity import nodes

log = structlog.get_logger("bus.hub.links")

READ_S_MIN = 0.5  # IDENTITY is read at most this often for keys that nobody knows
WAITING_MAX = 10_000  # a hub that restarts tells all its nodes in seconds; beyond it the oldest hints are dropped


@dataclass(frozen=True, slots=True)
class LinkChange:
    """``time`` is the server's, RFC 3339.  ``leaf``: a leaf server's link, not a client's."""

    node: str
    public_key: str
    up: bool
    leaf: bool
    time: str


@dataclass(frozen=True, slots=True)
class _Told:
    public_key: str
    up: bool
    leaf: bool
    time: str


class Links:
    """``async for change in links.changes()``; over a SYS connection.  ``log`` is CORE's, to know whose key a link has."""

    def __init__(self, sys: connect.Connection, log_: buslog.Log, edge_account: str) -> None:
        self._sys, self._log, self._account = sys, log_, edge_account
        self._queue: asyncio.Queue[_Told] = asyncio.Queue(WAITING_MAX)
        self._subscriptions: list[connect.Subscribed] = []
        self._nodes: dict[str, str] = {}
        self._read_at: float | None = None
        self.dropped = 0

    async def start(self) -> None:
        for what in ("CONNECT", "DISCONNECT"):
            subject = f"$SYS.ACCOUNT.{self._account}.{what}"
            self._subscriptions.append(await self._sys.subscribe(subject, self._take))
        with contextlib.suppress(nats.errors.Error, OSError):  # no link now: the subscriptions are made when there is one
            await self._sys.flush()

    async def stop(self) -> None:
        for s in self._subscriptions:
            await s.unsubscribe()
        self._subscriptions.clear()

    async def changes(self) -> AsyncIterator[LinkChange]:
        """For ever.  Links of keys that no node has are left out."""
        while True:
            told = await self._queue.get()
            node = await self._node_of(told.public_key)
            if node is not None:
                yield LinkChange(node, told.public_key, told.up, told.leaf, told.time)

    async def _node_of(self, public_key: str) -> str | None:
        """By what IDENTITY says, not by what a leaf calls itself."""
        if public_key not in self._nodes and (self._read_at is None or time.monotonic() - self._read_at > READ_S_MIN):
            self._read_at = time.monotonic()
            try:
                self._nodes = {state.public_key: name for name, state in (await nodes.read_nodes(self._log)).items()}
            except buslog.LogError as e:
                log.warning("links.identity_unreadable", reason=str(e))
        return self._nodes.get(public_key)

    async def _take(self, msg: connect.Message) -> None:
        told = parse(msg.subject, msg.data)
        if told is None:
            return
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(told)


def parse(subject: str, payload: bytes) -> _Told | None:
    """None for what is not about a user's link."""
    try:
        data = json.loads(payload)
        client = data["client"]
        key, when = client["user"], data["timestamp"]
        leaf = client.get("kind") == "Leafnode"
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        log.debug("links.unreadable", subject=subject, reason=str(e))
        return None
    if not isinstance(key, str) or not isinstance(when, str):
        return None
    return _Told(key, subject.endswith(".CONNECT"), leaf, when)
