"""No node pushes out what others wrote: who holds most of a stream loses its own oldest before the stream is full.

The rules are in ``cloud/core/holdings.py``.  Here it is found out who holds what: the stream is followed without payloads,
but only from when it is a quarter full, so the usual installation pays one question in five seconds.  Looked after are the
streams that nodes write into:

    TELEMETRY           a message counts for the node that it was fetched from, whatever its subject says
    REPORT-<shard>      state: what goes is the node's word of long ago, so it is asked to say everything again
    HISTORY-REPORT-...  every version for a month

(AUDIT, into which a node makes others write, is bounded for each name by the stream itself; CLUSTER by how many Events a
node may tell, cloud/core/reports.py.)  What a stream may hold is its own limit, or what the disk has left (bus/hub/room.py),
whichever is less.

A purge by subject makes the server read the whole stream, 1.3 s for each GB, and nobody writes into it meanwhile (measured,
2.15.1).  So purges have a tenth of the time, the largest holder first.  Whoever would hold twice what it may before its turn
comes again is paused: the hub does not fetch its telemetry for a while, longer each time, and it stays on the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import structlog

from bus import log as buslog
from bus.hub import room
from bus.hub.telemetry import STREAM as TELEMETRY
from bus.hub.telemetry import origin_of
from cloud.core import gates
from cloud.core.holdings import STATE, Holdings, Rules, Trim
from schemas import identity, subjects

logger = structlog.get_logger(__name__)

LOOK_S = 5.0
PURGES_SHARE = 0.1  # of the time
READ_SHARE = 0.25  # of the time while what is old is read
BEHIND = 5_000  # messages; who holds what is known well enough when fewer are unread
MESSAGE_BYTES = 34  # that the server's store takes for each, beside subject, headers and payload (filestore.go)
FORGED_AT_ONCE = 1_000  # forged messages that are removed at a look; each is found anew if more are there
PURGE_S = 120.0  # of a stream of 8 GB on a slow disk; the server goes on when nobody waits
FLOOD_S = 60.0  # trimmed twice in that time is a flood
PAUSES = gates.Limits()  # how long, by how often


@dataclass(frozen=True, slots=True)
class Shared:
    """One stream of many nodes.  ``prefix`` of a node's subjects."""

    name: str
    prefix: str
    rules: Rules


def streams(shards: int) -> list[Shared]:
    reports = [(n, f"report.{n}.") for n in range(shards)]
    return [
        Shared(TELEMETRY, "telemetry.", Rules()),
        *(Shared(f"REPORT-{n}", prefix, STATE) for n, prefix in reports),
        *(Shared(f"HISTORY-REPORT-{n}", prefix, Rules()) for n, prefix in reports),
    ]


def owner(record: buslog.Recorded) -> str:
    """The token of the node that wrote it; "" for nobody known."""
    if record.stream == TELEMETRY and (origin := origin_of(record.headers)):
        return origin
    tokens = record.subject.split(".", 3)
    at = 1 if record.stream == TELEMETRY else 2
    return tokens[at] if len(tokens) > at else ""


def size_of(record: buslog.Recorded) -> int:
    """As the server counts it, about."""
    headers = record.headers or {}
    told = headers.get(buslog.SIZE_HEADER, "")
    return (
        MESSAGE_BYTES
        + len(record.subject)
        + sum(len(k) + len(v) + 4 for k, v in headers.items())
        + (int(told) if told.isdigit() else 0)
    )


class Fairness:
    """``run`` in one cloud process.  ``pause(node, seconds)``: its telemetry is not to be fetched for so long.
    ``say_again(node)``: it should report everything once more.  ``tell`` as the gatekeeper's."""

    def __init__(
        self,
        store: buslog.Log,
        shards: int,
        *,
        pause: Callable[[str, float], None],
        say_again: Callable[[str], Awaitable[None]] | None = None,
        tell: Callable[[str, str, str, str], None] = lambda *_: None,
        look_s: float = LOOK_S,
        of: Collection[Shared] | None = None,
    ) -> None:
        self._log, self._shared = store, list(of if of is not None else streams(shards))
        self._pause, self._say_again, self._tell, self._look_s = pause, say_again, tell, look_s
        self._gates = gates.Gates(PAUSES)
        self._paused: dict[str, tuple[int, float]] = {}  # node -> how often, and when last
        self._may_purge = 0.0

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for shared in self._shared:
                tasks.create_task(self._look_after(shared), name=f"fairness.{shared.name}")

    async def _look_after(self, shared: Shared) -> None:
        while True:
            with contextlib.suppress(buslog.LogError):  # the hub is away; or the stream is a new one
                info = await self._log.info(shared.name)
                if info.bytes > shared.rules.look_from * await self.capacity(info) and info.bytes > shared.rules.least:
                    await _Watch(self, shared, self._log, self._look_s).run(info)
            await asyncio.sleep(self._look_s)

    async def capacity(self, info: buslog.StreamInfo) -> int:
        """Bytes that the stream may hold.  Raises LogError."""
        limit = int(info.config.get("max_bytes") or 0)
        _, spare = room.least_room((await self._log.info("CLUSTER")).config.get("metadata") or {})
        by_disk = info.bytes + spare if spare else 0  # nobody has looked at the disk yet
        return min((c for c in (limit, by_disk) if c > 0), default=room.ROOM_BYTES_MAX)

    async def trim(self, shared: Shared, trim: Trim, may: int, last: float) -> bool:
        """Whether it was done now; ``last``: when this node was trimmed before.  Raises LogError."""
        began = time.monotonic()
        due = began >= self._may_purge
        node = subjects.unescape(trim.node)
        if shared.name == TELEMETRY and (trim.held > 2 * may or began - last < FLOOD_S):
            self.paused(node, f"holds {trim.held} bytes of telemetry, of {may} that it may")
        if not due:
            return False
        await self._log.request(
            f"STREAM.PURGE.{shared.name}", {"filter": f"{shared.prefix}{trim.node}.>", "seq": trim.below}, timeout_s=PURGE_S
        )
        took = time.monotonic() - began
        self._may_purge = time.monotonic() + took * (1 / PURGES_SHARE - 1)
        logger.warning("fairness.trimmed", stream=shared.name, node=node, bytes=trim.bytes, held=trim.held, may=may)
        reason = f"{shared.name}: {trim.held} bytes held, {may} are a node's share; its oldest {trim.bytes} bytes went"
        self._tell(identity.AUDIT_FLOOD, "flood", node, reason)
        if shared.name.startswith("REPORT-") and self._say_again is not None:
            await self._say_again(node)
        return True

    def paused(self, node: str, reason: str) -> None:
        now = time.monotonic()
        times, until = self._paused.get(node, (0, float("-inf")))
        if now < until:
            return
        times = self._gates.times(times, until, now)
        for_s = self._gates.shut_for_s(times)
        self._paused[node] = times + 1, now + for_s
        logger.warning("fairness.paused", node=node, seconds=for_s, reason=reason)
        self._tell(identity.AUDIT_FLOOD, "flood", node, f"telemetry is not fetched for {for_s:g} s: {reason}")
        self._pause(node, for_s)


class _Watch:
    """One stream, for as long as it is more than a little full."""

    def __init__(self, fairness: Fairness, shared: Shared, store: buslog.Log, look_s: float) -> None:
        self._fairness, self._shared, self._log, self._look_s = fairness, shared, store, look_s
        self._holdings = Holdings(shared.rules)
        self._forged: list[int] = []
        self._trimmed: dict[str, float] = {}
        self._pending = 1

    async def run(self, info: buslog.StreamInfo) -> None:
        """Raises LogError (EpochChanged)."""
        self._holdings.may_hold(await self._fairness.capacity(info))
        reading = asyncio.create_task(self._read(info.first_seq - 1), name=f"fairness.read.{info.name}")
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=self._look_s)
                if done:
                    reading.result()
                info = await self._log.info(self._shared.name)
                capacity = await self._fairness.capacity(info)
                if info.bytes < self._shared.rules.look_from * capacity / 2:
                    return
                self._holdings.forget(info.first_seq)
                await self._remove_forged()
                may = self._holdings.may_hold(capacity)
                if info.bytes > self._shared.rules.trim_from * capacity and self._pending < BEHIND:
                    await self._trim(may)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, buslog.LogError):
                await reading

    async def _trim(self, may: int) -> None:
        for trim in self._holdings.over(may):
            last = self._trimmed.get(trim.node, float("-inf"))
            if await self._fairness.trim(self._shared, trim, may, last):
                self._trimmed[trim.node] = time.monotonic()
                self._holdings.trimmed(trim)

    async def _read(self, after: int) -> None:
        async with contextlib.aclosing(self._log.follow(self._shared.name, after=after, sizes=True)) as batches:
            began = time.monotonic()
            async for batch in batches:
                for r in batch.records:
                    self._take(r)
                self._pending = batch.pending
                took = time.monotonic() - began
                await asyncio.sleep(took * (1 / READ_SHARE - 1) if batch.pending > BEHIND else 0)
                began = time.monotonic()

    def _take(self, r: buslog.Recorded) -> None:
        node = owner(r)
        if not r.subject.startswith(f"{self._shared.prefix}{node}."):
            if node and len(self._forged) < FORGED_AT_ONCE:
                self._forged.append(r.seq)
                with contextlib.suppress(subjects.SubjectError):
                    self._fairness.paused(subjects.unescape(node), f"telemetry in another's name, {r.subject[:100]}")
            return
        self._holdings.take(node, r.seq, size_of(r))

    async def _remove_forged(self) -> None:
        forged, self._forged = self._forged, []
        for seq in forged:
            with contextlib.suppress(buslog.LogError):  # it is gone already
                await self._log.request(f"STREAM.MSG.DELETE.{self._shared.name}", {"seq": seq, "no_erase": True})
