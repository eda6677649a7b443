"""One hollow node: a node's parts that speak with the cloud, wired as ``edge.daemon`` wires them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

from bus import connect, link, log, outbox, replica, stamp
from bus.stores import memory
from edge import state
from ops.fleet import runtime
from schemas import event, reports, subjects, tunnel

ALL = "all"
SENT = "fleet.skerry.io/sent"  # annotation: CLOCK_MONOTONIC in ns when the change was written; one clock for all processes
DIGEST_BYTES = 8


class HollowNode:
    """``start`` on a connection, ``stop`` to be away; the store stays.  ``applied(seconds)`` is told for each change that
    says when it was written."""

    def __init__(
        self,
        number: int,
        name: str,
        shards: int,
        *,
        beat_s: float,
        with_reports: bool,
        applied: Callable[[float], None],
    ) -> None:
        self.number = number
        self.name, self._beat_s, self._with_reports, self._applied = name, beat_s, with_reports, applied
        self.store = memory.MemoryStore()
        self.box = outbox.Outbox(self.store)
        self.state = state.NodeState(name, shards, self.store, self.box, component="fleet/hollow")
        self._boot, self._run = stamp.new_id(), stamp.new_id()
        self._said = False
        self._tasks: list[asyncio.Task[None]] = []
        self.connection: connect.Connection | None = None
        self.replica = self._make_replica()
        self.synced_at = 0.0  # time.monotonic() of the last complete catch-up
        self.link: _Link | None = None

    def _make_replica(self) -> replica.Replica:
        return replica.Replica(self.name, [self.name, ALL], self.store, on_change=self._changed, on_synced=self._synced)

    @property
    def started(self) -> bool:
        return bool(self._tasks)

    @property
    def synced(self) -> bool:
        return bool(self._tasks) and self.replica.synced

    async def start(self, connection: connect.Connection, hub: log.Log) -> None:
        """``hub`` is a Log over ``connection``: reports are appended through it."""
        self.connection = connection
        self.replica = self._make_replica()
        await self.replica.attach(connection)
        self.link = _Link(
            connection, self.name, self._beat, on_up=self._link_up, on_down=self.replica.link_down, beat_s=self._beat_s
        )
        connection.on_change(self._nudge)
        await connection.subscribe(subjects.command(self.name, "beat"), self._asked_to_beat)
        # Nobody opens a tunnel to a node that isn't there, but what it hears of is part of what a link costs the hub.
        await connection.subscribe(subjects.command(self.name, tunnel.TUNNEL), _nothing)
        await connection.subscribe(subjects.tunnels_down(self.name), _nothing)
        parts = [("replica", self.replica.run()), ("link", self.link.run())]
        if self._with_reports:
            parts.append(("outbox", self.box.run(hub)))
            if not self._said:
                self._said = True
                self.state.commit({}, [runtime.node_report(self.name, self._boot)])
        self._tasks = [asyncio.create_task(part, name=f"{self.name}.{what}") for what, part in parts]

    async def stop(self) -> None:
        """The connection is the caller's to close."""
        tasks, self._tasks = self._tasks, []
        self._run = stamp.new_id()  # the next start is another daemon
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.state.close()
        self.link = self.connection = None

    def beat_now(self) -> None:
        self._nudge(False)

    def failed(self) -> BaseException | None:
        """Why a part ended; a part that ends is a bug."""
        for t in self._tasks:
            if t.done() and not t.cancelled():
                return t.exception() or RuntimeError(f"{t.get_name()} ended")
        return None

    def digest(self) -> int:
        """What the node holds as one number; those of many nodes are added up (``ops.fleet.truth`` has the other side)."""
        return sum(entry_digest(self.name, k, v) for k, v in self.store.items("objects"))

    # --- what the parts tell each other

    def _nudge(self, up: bool) -> None:
        if self.link is not None:
            self.link.nudge(up)

    async def _asked_to_beat(self, msg: connect.Message) -> None:
        self._nudge(msg.data == reports.RENEWED)

    def _link_up(self) -> None:
        self.replica.link_up()
        self.box.link_up()

    def _synced(self) -> None:
        self.synced_at = time.monotonic()

    def _beat(self) -> reports.Beat:
        heads = {s: c.seq for s, c in self.replica.cursors().items()}
        return reports.Beat(
            boot=stamp.boot_id()[:8], time=stamp.now_us(), heads=heads, outbox=self.box.pending, run=self._run
        )

    def _changed(self, changes: list[replica.Applied]) -> None:
        now_ns = time.monotonic_ns()
        told: list[state.Report] = []
        for change in changes:
            ev = change.fact.event
            if ev is None:
                continue
            if (sent := sent_ns(ev)) is not None:
                self._applied((now_ns - sent) / 1e9)
            if self._with_reports and (report := runtime.pod_report(ev, stamp.now_us())) is not None:
                told.append(report)
        if told:
            self.state.commit({}, told)


class _Link(link.Link):
    """Doesn't ask over a connection that isn't there.  A node has a core for that; thousands of nodes of one process that
    ask once a second would be all that it does while the hub is away.  Each is told at once when its connection is back."""

    async def _asked(self) -> link.Answer:
        return await super()._asked() if self._connection.connected else "refused"

    def _retry_pause(self, silences: int) -> float:
        pause = super()._retry_pause(silences)
        return pause if self._connection.connected else max(pause, min(link.RETRY_S_MAX, self._beat_s / 2))


async def _nothing(_: connect.Message) -> None:
    pass


def sent_ns(ev: event.Event) -> int | None:
    if ev.data is None:
        return None
    text = ((ev.data.get("metadata") or {}).get("annotations") or {}).get(SENT)
    return int(text) if text is not None else None


def entry_digest(node: str, key: bytes, value: bytes) -> int:
    """``key`` and ``value`` of the replica's table (``bus.fold``)."""
    digest = hashlib.blake2b(b"%s\0%d\0%s%s" % (node.encode(), len(key), key, value), digest_size=DIGEST_BYTES)
    return int.from_bytes(digest.digest(), "big")
