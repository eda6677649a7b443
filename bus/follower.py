"""Following a stream: one pull consumer (ack none, in memory) and its replacements, for ever (ADR-8, ADR-13)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

import nats.errors
import structlog

from bus import wire
from bus.client import Client
from bus.connect import Connection
from bus.records import NO_ANSWER, Batch, EpochChanged, LogError, LogUnavailable, Recorded, StreamInfo

logger = structlog.get_logger(__name__)

FOLLOW_BATCH = 512  # messages asked for at once; at most 1.5 times as many wait in memory
# And so many bytes, about: half of what the server keeps for a slow reader before it drops him (bus.hub.config).  Not by the
# request's own max_bytes: a `last_per_subject` consumer drops what doesn't fit, silently (2.15.1).
FOLLOW_BYTES = 16 << 20
FOLLOW_BATCH_FIRST = 64  # while nothing is known of the messages' sizes
FOLLOW_EXPIRES_S = 30.0
FOLLOW_HEARTBEAT_S = 5.0  # the server's idle heartbeat; two missed and we ask again
FOLLOW_RETRY_S_MAX = 5.0
DEPOSED_LOOKS = 10  # some 20 s: a leader without a majority steps down after 10 s (nats-server, lostQuorumInterval)
CONNECTION_LOOK_S = 0.5  # how soon a follower notices that its connection was replaced


_Delivery = tuple[bytes, bytes, bytes, bytes]  # subject, reply, headers, payload


class Asking(Protocol):
    """The two questions that a follower asks of its log."""

    async def info(self, stream: str) -> StreamInfo: ...

    async def request(self, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]: ...


class _Gap(Exception):
    """The server's consumer is gone or a message was lost on the way: make a new one from where we are."""


class Follower:
    """One pull consumer (ack none, in memory) and its replacements."""

    def __init__(
        self,
        log: Asking,
        connection: Connection,
        api: str,
        stream: str,
        filters: list[str],
        after: int,
        last_per_subject: bool,
        epoch: str | None,
        addresses_only: bool = False,
        sizes: bool = False,
    ) -> None:
        self._log, self._connection, self._api = log, connection, api
        self._nc: Client | None = None
        self._connects = 0
        self._stream, self._filters = stream, filters
        self._seq = after
        self._last_per_subject = last_per_subject and after == 0
        self._epoch = epoch
        self._headers_only, self._addresses_only = addresses_only or sizes, addresses_only
        self._queue: deque[_Delivery] = deque()
        self._wake = asyncio.Event()
        self._sub: Any = None
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._asked = 0
        self._pending = 0
        self._goal = 0
        self._failures = 0
        self._size_max = 0  # of the stream's messages; 0: not limited
        self._batch = FOLLOW_BATCH_FIRST

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            try:
                self._pending = await self._start()
                if self._left() == 0:
                    yield Batch([], 0, self._epoch or "")
                while True:
                    records = await self._records()
                    if records:
                        self._failures = 0
                        yield Batch(records, self._left(), self._epoch or "")
            except EpochChanged:
                raise
            except (_Gap, LogError) as e:
                self._failures += 1
                wait = min(FOLLOW_RETRY_S_MAX, 0.05 * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
                if self._failures == 3:
                    logger.warning("log.follow.retrying", stream=self._stream, after=self._seq, error=str(e))
                await self.close()
                await asyncio.sleep(wait)

    def _left(self) -> int:
        """How many are to come, at least.  On three servers our consumer lives on any of them, which may lag: "caught up"
        with it is not caught up with the stream, whose leader told its last sequence before."""
        return max(self._pending, 1 if self._seq < self._goal else 0)

    async def close(self) -> None:
        sub, self._sub = self._sub, None
        name, self._consumer = self._consumer, None
        self._queue.clear()
        if sub is not None:
            with contextlib.suppress(*NO_ANSWER):
                await sub.unsubscribe()
        if name is not None and self._nc is not None and self._nc.is_connected:
            with contextlib.suppress(*NO_ANSWER):  # it ends by itself when this doesn't arrive
                await self._nc.publish(f"{self._api}.CONSUMER.DELETE.{self._stream}.{name}", b"")

    async def _start(self) -> int:
        info = await self._log.info(self._stream)
        if self._epoch is None:
            self._epoch = info.epoch
        if info.replicas > 1 and info.epoch == self._epoch and info.last_seq < self._seq and self._failures < DEPOSED_LOOKS:
            raise _Gap(f"#{info.last_seq} is told by a leader that was deposed, or the log lost its tail: looking again")
        if info.epoch != self._epoch or info.last_seq < self._seq:
            raise EpochChanged(
                f"{self._stream}: epoch {info.epoch} at #{info.last_seq}, we were in {self._epoch} at #{self._seq}"
            )
        if 0 < self._seq < info.horizon:
            raise EpochChanged(f"{self._stream}: compacted up to #{info.horizon}, we were at #{self._seq}")
        self._size_max = 0 if self._headers_only else max(0, int(info.config.get("max_msg_size") or 0))
        self._batch = FOLLOW_BATCH_FIRST
        # With filters the last one need not be ours.
        self._goal = 0 if self._filters or info.messages == 0 else info.last_seq
        config: dict[str, Any] = {
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(3 * FOLLOW_EXPIRES_S * 1e9),
            "max_waiting": 8,
        }
        if self._headers_only:
            config["headers_only"] = True
        if self._filters:
            config["filter_subjects"] = self._filters
        if self._last_per_subject and self._seq == 0:
            config["deliver_policy"] = "last_per_subject"
            config.setdefault("filter_subjects", [">"])
        else:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = self._seq + 1
        name = f"follow-{random.getrandbits(64):016x}"
        created = await self._log.request(
            f"CONSUMER.CREATE.{self._stream}.{name}",
            {"stream_name": self._stream, "config": {"name": name, **config}, "action": "create"},
        )
        self._consumer = name
        self._consumer_seq = 0
        self._asked = 0
        self._queue.clear()
        try:
            self._nc = self._connection.client
            self._connects = self._connection.reconnects
            self._inbox = self._nc.new_inbox()
            self._sub = await self._nc.take(self._inbox, self._take)
        except NO_ANSWER as e:
            raise LogUnavailable(f"{self._stream}: can't subscribe: {e!r}") from e
        await self._ask()
        return int(created["num_pending"])

    def _take(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        self._queue.append((subject, reply, block, payload))
        self._wake.set()

    async def _ask(self) -> None:
        want = self._batch - self._asked
        body = {"batch": want, "expires": int(FOLLOW_EXPIRES_S * 1e9), "idle_heartbeat": int(FOLLOW_HEARTBEAT_S * 1e9)}
        self._asked += want
        assert self._nc is not None
        try:
            subject = f"{self._api}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
            await self._nc.publish(subject, json.dumps(body).encode(), reply=self._inbox)
        except (nats.errors.Error, OSError) as e:
            raise _Gap(f"can't ask for more: {e!r}") from e

    async def _records(self) -> list[Recorded]:
        if not self._queue:
            await self._something()
        out: list[Recorded] = []
        while self._queue and len(out) < FOLLOW_BATCH:
            delivery = self._queue.popleft()
            if wire.status(delivery[2]):
                self._status(wire.headers(delivery[2]))
                continue
            self._asked -= 1
            record, cseq, self._pending = _consumer_record(*delivery, self._addresses_only)
            if cseq != self._consumer_seq + 1:
                raise _Gap(f"delivery {cseq} after {self._consumer_seq}")
            self._consumer_seq = cseq
            if record.seq <= self._seq:
                continue
            self._seq = record.seq
            out.append(record)
        self._fit(out)
        if self._asked <= self._batch // 2:
            await self._ask()
        return out

    def _fit(self, records: list[Recorded]) -> None:
        """How many messages to have asked for, by the largest of late: twice as many at most as before."""
        if not records:
            return
        largest = max(1024, *(len(r.payload) for r in records))
        room = FOLLOW_BYTES // largest
        if self._size_max:
            room = min(room, max(1, FOLLOW_BYTES // self._size_max))  # the next ones may be as large as any
        self._batch = max(1, min(FOLLOW_BATCH, room, 2 * self._batch))

    async def _something(self) -> None:
        """Returns when a message is there; raises _Gap when the connection is another or the server fell silent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 2.5 * FOLLOW_HEARTBEAT_S
        while not self._queue:
            self._wake.clear()
            if not self._connection.connected or self._connection.reconnects != self._connects:
                raise _Gap("the connection is another")
            if loop.time() > deadline:
                self._connection.doubt()
                raise _Gap("no message and no heartbeat from the server")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECTION_LOOK_S):
                    await self._wake.wait()

    def _status(self, h: dict[str, str]) -> None:
        status = h["Status"]
        if status == "100":
            return  # idle heartbeat
        if status == "408":
            # The request ended with some of it unfilled (Nats-Pending-Messages); the next _ask fills up.
            self._asked = max(0, self._asked - int(h.get("Nats-Pending-Messages", FOLLOW_BATCH)))
            return
        raise _Gap(f"{status} {h.get('Description', '')}")


def _consumer_record(
    subject: bytes, reply: bytes, block: bytes, payload: bytes, address_only: bool
) -> tuple[Recorded, int, int]:
    """(record, consumer sequence, pending) from the reply subject ``$JS.ACK...`` (ADR-15; counted from its end)."""
    t = reply.split(b".")
    if len(t) >= 11:  # $JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>[.<token>]
        stream, sseq, cseq, ns, pending = t[4], t[7], t[8], t[9], t[10]
    else:
        stream, sseq, cseq, ns, pending = t[2], t[5], t[6], t[7], t[8]
    headers = None if address_only else wire.headers(block) or None
    record = Recorded(stream.decode(), int(sseq), subject.decode(), int(ns) // 1000, payload, headers)
    return record, int(cseq), int(pending)
