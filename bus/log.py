"""The log: append with an expectation, read the last state, follow.  The only module that knows JetStream's wire.

    append()  one event; ``expect`` is optimistic concurrency, the event's id makes a retry harmless
    last()    state, not history: the last event of every subject under a filter, complete up to a sequence
    follow()  everything from a sequence on, in batches, each sequence once, with a gap check of our own

Why not nats-py's JetStream classes: its ordered consumer goes on with gaps when its reader is slow, and it has no call for
``multi_last`` (NATS-FACTS.md).  The requests here are a dozen lines of JSON.
Source: NATS ADR-8 and ADR-13 (consumers, pull), ADR-22 (publish acknowledgements), ADR-31 (direct get).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.connect import Connection, NotConnected, Subscribed
from schemas import codec, event, subjects

logger = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S = 5.0  # a hub answers in milliseconds; five seconds is a link that is gone
DIRECT_KEYS_MAX = 1024  # nats-server's own limit for multi_last
DIRECT_BATCH = 512  # messages of one paged direct get; bounded by bytes as well
DIRECT_BYTES_MAX = 4 << 20
FOLLOW_BATCH = 512  # messages asked for at once; at most 1.5 times as many wait in memory
FOLLOW_EXPIRES_S = 30.0
FOLLOW_HEARTBEAT_S = 5.0  # the server's idle heartbeat; two missed and we ask again
FOLLOW_RETRY_S_MAX = 5.0
CONNECTION_LOOK_S = 0.5  # how soon a follower notices that its connection was replaced
EPOCH_METADATA = "skerry.epoch"
HORIZON_METADATA = "skerry.horizon"

_HDR_ID = "Nats-Msg-Id"
_HDR_EXPECT = "Nats-Expected-Last-Subject-Sequence"
_HDR_EXPECT_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
_HDR_STREAM = "Nats-Expected-Stream"


_NO_ANSWER = (nats.errors.Error, NotConnected, TimeoutError, OSError)


class LogError(Exception):
    """Base of what the log can answer."""


class LogUnavailable(LogError):
    """No answer: whether an append happened is unknown; repeating it with the same event id is harmless."""


class WrongSequence(LogError):
    """The expectation of an append does not hold: somebody else wrote (or we are stale)."""


class EventTooLarge(LogError):
    """The server refuses messages of this size."""


class EpochChanged(LogError):
    """The stream is not the one we followed: it was made anew or restored from a backup.  Start again from nothing."""


class ForeignEvent(codec.DecodeError):
    """A well-formed event on a subject that is not its own address."""


@dataclass(frozen=True, slots=True)
class Expect:
    """The last sequence of the subject (or of ``filter``, as ``meta.<shard>.<scope>.>``) must be ``seq``; 0: none yet."""

    seq: int
    filter: str | None = None


def check_address(subject: str, ev: event.Event) -> None:
    """Raises ForeignEvent unless the event's own address is the subject it came on (reply injection, NATS-FACTS.md)."""
    try:
        room = subject.partition(".")[0]
        if room == "cluster":
            ok = subjects.parse_cluster(subject) == ev.key and ev.scope == ""
        elif room == "meta":
            _, scope, key = subjects.parse_meta(subject)
            ok = (scope, key) == (ev.scope, ev.key)
        elif room == "live":
            ok = subjects.parse_live(subject) == (ev.scope, ev.key)
        elif room == "report":
            a = subjects.parse_report(subject)
            own = (ev.scope, ev.resource, ev.namespace, ev.name if a.name else "")
            ok = (a.node, a.kind, a.namespace, a.name) == own
        else:
            ok = True  # audit and identity events name their subject's last token
    except subjects.SubjectError as e:
        raise ForeignEvent(f"on {subject[:160]!r}: {e}") from e
    if not ok:
        raise ForeignEvent(f"event {ev.id} of {ev.scope or '-'} {ev.key} came on {subject[:160]!r}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a stream, as stored.  ``time_us`` is the server's time of storing."""

    stream: str
    seq: int
    subject: str
    time_us: int
    payload: bytes
    headers: dict[str, str] | None = None

    def event(self) -> event.Event:
        """Raises DecodeError (ForeignEvent, UnknownVersion), the message naming subject and sequence."""
        try:
            ev = codec.decode_event(self.payload)
            check_address(self.subject, ev)
        except codec.UnknownVersion as e:
            raise codec.UnknownVersion(f"{self.stream} #{self.seq} {self.subject[:160]}: {e}") from e
        except ForeignEvent as e:
            raise ForeignEvent(f"{self.stream} #{self.seq}: {e}") from e
        except codec.DecodeError as e:
            raise codec.DecodeError(f"{self.stream} #{self.seq} {self.subject[:160]}: {e}") from e
        return ev


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in stream order; ``pending`` is how many more the server knew of after the last one (0: caught up)."""

    records: list[Recorded]
    pending: int


@dataclass(frozen=True, slots=True)
class LastState:
    """Records in stream order, complete up to sequence ``up_to``; ``more`` when a page limit was hit (ask from up_to)."""

    records: list[Recorded]
    up_to: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class StreamInfo:
    name: str
    epoch: str
    horizon: int
    first_seq: int
    last_seq: int
    messages: int
    bytes: int
    config: dict[str, Any] = field(repr=False, default_factory=dict)


class Appender(Protocol):
    """The writing half of the log, for those who need no more (and for tests and simulation)."""

    async def append(self, subject: str, ev: event.Event, *, expect: Expect | None = None) -> int: ...


class Log:
    """The streams of one account (CORE at the hub).  ``domain`` is JetStream's, when it is not the connection's own."""

    def __init__(self, connection: Connection, *, domain: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._connection = connection
        self._api = f"$JS.{domain}.API" if domain else "$JS.API"
        self._timeout = timeout_s
        self._direct = _DirectGets(connection)

    async def close(self) -> None:
        """Drops our inbox; the connection stays open (it is not ours)."""
        await self._direct.close()

    async def request(self, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One JetStream API request; raises LogUnavailable, LogError with the server's own words."""
        try:
            data = json.dumps(body).encode() if body is not None else b""
            msg = await self._connection.request(f"{self._api}.{what}", data, timeout_s=self._timeout)
        except _NO_ANSWER as e:
            raise LogUnavailable(f"{what}: no answer from JetStream: {e!r}") from e
        answer: dict[str, Any] = json.loads(msg.data)
        if "error" in answer:
            err = answer["error"]
            raise LogError(f"{what}: {err.get('description')} ({err.get('err_code')})")
        return answer

    async def info(self, stream: str) -> StreamInfo:
        a = await self.request(f"STREAM.INFO.{stream}")
        meta = a["config"].get("metadata") or {}
        s = a["state"]
        epoch = meta.get(EPOCH_METADATA, a["created"])
        horizon = int(meta.get(HORIZON_METADATA, 0))
        return StreamInfo(stream, epoch, horizon, s["first_seq"], s["last_seq"], s["messages"], s["bytes"], a["config"])

    async def append(self, subject: str, ev: event.Event, *, expect: Expect | None = None) -> int:
        """The sequence at which the event is stored (also when it already was: a repeated id within the server's window)."""
        return await self.append_bytes(subject, codec.encode_event(ev), ev.id, expect=expect)

    async def append_bytes(self, subject: str, payload: bytes, msg_id: str, *, expect: Expect | None = None) -> int:
        headers = {_HDR_ID: msg_id}
        if expect is not None:
            headers[_HDR_EXPECT] = str(expect.seq)
            if expect.filter is not None:
                headers[_HDR_EXPECT_SUBJECT] = expect.filter
        size = len(payload) + _headers_size(headers)
        try:
            if size > (limit := self._connection.client.max_payload):
                # nats-py counts the payload only, and the server closes the connection of whoever sends more.
                raise EventTooLarge(f"{subject}: {size} bytes with headers, the server takes {limit}")
            msg = await self._connection.request(subject, payload, timeout_s=self._timeout, headers=headers)
        except nats.errors.MaxPayloadError as e:
            raise EventTooLarge(f"{subject}: {len(payload)} bytes are more than the server takes") from e
        except nats.errors.NoRespondersError as e:
            raise LogUnavailable(f"{subject}: no stream takes this subject (or the link to it is down)") from e
        except _NO_ANSWER as e:
            raise LogUnavailable(f"{subject}: append not acknowledged: {e!r}") from e
        try:
            return ack_sequence(subject, msg.data)
        except WrongSequence:
            # The server looks at the expectation before the id: a repeated append whose acknowledgement was lost fails so.
            last = await self.last_of(subjects.stream_of(subject), subject)
            if last is not None and last.headers is not None and last.headers.get(_HDR_ID) == msg_id:
                return last.seq
            raise

    async def get(self, stream: str, seq: int) -> Recorded | None:
        """One record by sequence, None when it is no longer there."""
        found, _ = await self._direct.get(f"{self._api}.DIRECT.GET.{stream}", {"seq": seq}, self._timeout, single=True)
        return found[0] if found else None

    async def last_of(self, stream: str, subject: str) -> Recorded | None:
        """The last record of a subject (or of a filter with wildcards)."""
        body = {"last_by_subj": subject}
        found, _ = await self._direct.get(f"{self._api}.DIRECT.GET.{stream}", body, self._timeout, single=True)
        return found[0] if found else None

    async def last(self, stream: str, filters: list[str], *, after: int = 0, bytes_max: int | None = None) -> LastState:
        """The last record of every subject under the filters with a sequence above ``after``.

        State, not history, while at most 1,024 subjects match; above that (or above ``bytes_max``) a page of history in
        stream order with ``more`` set, which folds to the same state."""
        api = f"{self._api}.DIRECT.GET.{stream}"
        body: dict[str, Any] = {"multi_last": filters, "seq": after + 1}
        try:
            found, end = await self._direct.get(api, body, self._timeout)
        except _TooMany:
            return await self._page(stream, api, filters, after, bytes_max or DIRECT_BYTES_MAX)
        if not found:
            # The end of an empty answer carries no sequence: the stream's last one, read before nothing else was found.
            return LastState([], max(after, end.up_to) if end.up_to else after)
        if bytes_max is not None and sum(len(r.payload) for r in found) > bytes_max:
            size, keep = 0, 0
            for r in found:
                size += len(r.payload)
                if keep and size > bytes_max:
                    break
                keep += 1
            return LastState(found[:keep], found[keep - 1].seq, keep < len(found))
        return LastState(found, max(end.up_to, found[-1].seq))

    async def _page(self, stream: str, api: str, filters: list[str], after: int, bytes_max: int) -> LastState:
        if len(filters) != 1:
            raise LogError(f"{stream}: more than {DIRECT_KEYS_MAX} subjects match several filters; ask for one at a time")
        body = {"batch": DIRECT_BATCH, "max_bytes": bytes_max, "seq": after + 1, "next_by_subj": filters[0]}
        found, end = await self._direct.get(api, body, self._timeout)
        up_to = found[-1].seq if found else after
        return LastState(found, up_to, end.pending > 0)

    async def follow(
        self,
        stream: str,
        filters: list[str] | None = None,
        *,
        after: int = 0,
        last_per_subject: bool = False,
        epoch: str | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """Batches for ever, through reconnects and server restarts; each sequence once, in order.

        ``last_per_subject`` (with after=0) begins with the last record of every subject, then goes on live.  The first batch
        may be empty: it tells that nothing was pending.  Raises EpochChanged when the stream is no longer the same."""
        follower = _Follower(self, self._connection, self._api, stream, filters or [], after, last_per_subject, epoch)
        try:
            async for batch in follower.batches():
                yield batch
        finally:
            await follower.close()


def _headers_size(headers: dict[str, str]) -> int:
    """Bytes of a header block on the wire (NATS ADR-4)."""
    return len("NATS/1.0\r\n\r\n") + sum(len(k.encode()) + len(v.encode()) + len(": \r\n") for k, v in headers.items())


def ack_sequence(subject: str, data: bytes) -> int:
    """The sequence in a publish acknowledgement (ADR-22); raises WrongSequence, EventTooLarge, LogError."""
    try:
        ack = json.loads(data)
    except ValueError as e:
        raise LogUnavailable(f"{subject}: the answer is not a publish acknowledgement: {data[:80]!r}") from e
    if "error" in ack:
        err = ack["error"]
        code = err.get("err_code")
        text = f"{subject}: {err.get('description')} ({code})"
        if code in (10071, 10070, 10060):
            raise WrongSequence(text)
        if code == 10054:
            raise EventTooLarge(text)
        if err.get("code") == 503:
            raise LogUnavailable(text)
        raise LogError(text)
    return int(ack["seq"])


# --- direct get -----------------------------------------------------------------------------------------------------


class _TooMany(Exception):
    """413: more subjects than the server answers at once."""


@dataclass(slots=True)
class _End:
    up_to: int = 0
    pending: int = 0


class _Collector:
    def __init__(self) -> None:
        self.records: list[Recorded] = []
        self.done: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self.progress = 0


class _DirectGets:
    """Direct gets answer with many messages; one inbox serves all of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sub: Subscribed | None = None
        self._prefix = ""
        self._next = 0
        self._open: dict[str, tuple[_Collector, bool]] = {}
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        if self._sub is not None:
            await self._sub.unsubscribe()
            self._sub = None

    async def _ready(self) -> None:
        async with self._lock:
            if self._sub is None:
                self._prefix = f"{self._connection.settings.inbox}.{os.urandom(12).hex()}"
                self._sub = await self._connection.subscribe(f"{self._prefix}.*", self._take)

    async def get(
        self, api: str, body: dict[str, Any], timeout: float, *, single: bool = False
    ) -> tuple[list[Recorded], _End]:
        self._next += 1
        token = str(self._next)
        c = _Collector()
        self._open[token] = (c, single)
        try:
            await self._ready()
            await self._connection.client.publish(api, json.dumps(body).encode(), reply=f"{self._prefix}.{token}")
            while True:
                seen = c.progress
                try:
                    async with asyncio.timeout(timeout):
                        end = await asyncio.shield(c.done)
                    return c.records, end
                except TimeoutError as e:
                    if c.progress == seen:  # nothing at all came within the timeout
                        raise LogUnavailable(f"{api}: no answer within {timeout:g} s") from e
        except _NO_ANSWER as e:
            raise LogUnavailable(f"{api}: {e!r}") from e
        finally:
            del self._open[token]
            if c.done.done():
                c.done.exception()
            else:
                c.done.cancel()

    async def _take(self, msg: Msg) -> None:
        entry = self._open.get(msg.subject.rpartition(".")[2])
        if entry is None or entry[0].done.done():
            return
        c, single = entry
        c.progress += 1
        h = msg.headers or {}
        status = h.get("Status")
        if status is None:
            c.records.append(_direct_record(msg, h))
            if single:
                c.done.set_result(_End())
        elif status == "204":
            c.done.set_result(_End(int(h.get("Nats-UpTo-Sequence", 0) or 0), int(h.get("Nats-Num-Pending", 0))))
        elif status == "404":
            c.done.set_result(_End(int(h.get("Nats-UpTo-Sequence", 0) or 0)))
        elif status == "413":
            c.done.set_exception(_TooMany())
        elif status == "503":
            c.done.set_exception(LogUnavailable("no stream answers (or the link to it is down)"))
        else:
            c.done.set_exception(LogError(f"direct get: {status} {h.get('Description', '')}"))


def _direct_record(msg: Msg, h: dict[str, str]) -> Recorded:
    stamp = h["Nats-Time-Stamp"]
    return Recorded(h["Nats-Stream"], int(h["Nats-Sequence"]), h["Nats-Subject"], _parse_time_us(stamp), msg.data, dict(h))


def _parse_time_us(text: str) -> int:
    """Microseconds of an RFC 3339 time with up to nanoseconds."""
    whole, dot, rest = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000 + (int(rest[:6].ljust(6, "0")) if dot else 0)


# --- follow ---------------------------------------------------------------------------------------------------------


class _Gap(Exception):
    """The server's consumer is gone or a message was lost on the way: make a new one from where we are."""


class _Follower:
    """One pull consumer (ack none, in memory) and its replacements."""

    def __init__(
        self,
        log: Log,
        connection: Connection,
        api: str,
        stream: str,
        filters: list[str],
        after: int,
        last_per_subject: bool,
        epoch: str | None,
    ) -> None:
        self._log, self._connection, self._api = log, connection, api
        self._nc: Client | None = None
        self._connects = 0
        self._stream, self._filters = stream, filters
        self._seq = after
        self._last_per_subject = last_per_subject and after == 0
        self._epoch = epoch
        self._queue: deque[Msg] = deque()
        self._wake = asyncio.Event()
        self._sub: Any = None
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._asked = 0
        self._pending = 0
        self._failures = 0

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            try:
                self._pending = await self._start()
                if self._pending == 0:
                    yield Batch([], 0)
                while True:
                    records = await self._records()
                    if records:
                        self._failures = 0
                        yield Batch(records, self._pending)
            except EpochChanged:
                raise
            except (_Gap, LogError) as e:
                self._failures += 1
                wait = min(FOLLOW_RETRY_S_MAX, 0.05 * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
                if self._failures == 3:
                    logger.warning("log.follow.retrying", stream=self._stream, after=self._seq, error=str(e))
                await self.close()
                await asyncio.sleep(wait)

    async def close(self) -> None:
        sub, self._sub = self._sub, None
        name, self._consumer = self._consumer, None
        self._queue.clear()
        if sub is not None:
            with contextlib.suppress(*_NO_ANSWER):
                await sub.unsubscribe()
        if name is not None and self._nc is not None and self._nc.is_connected:
            with contextlib.suppress(*_NO_ANSWER):  # it ends by itself when this doesn't arrive
                await self._nc.publish(f"{self._api}.CONSUMER.DELETE.{self._stream}.{name}", b"")

    async def _start(self) -> int:
        info = await self._log.info(self._stream)
        if self._epoch is None:
            self._epoch = info.epoch
        if info.epoch != self._epoch or info.last_seq < self._seq:
            raise EpochChanged(
                f"{self._stream}: epoch {info.epoch} at #{info.last_seq}, we were in {self._epoch} at #{self._seq}"
            )
        config: dict[str, Any] = {
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(3 * FOLLOW_EXPIRES_S * 1e9),
            "max_waiting": 8,
        }
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
            self._sub = await self._nc.subscribe(self._inbox, cb=self._take, pending_msgs_limit=4 * FOLLOW_BATCH)
        except _NO_ANSWER as e:
            raise LogUnavailable(f"{self._stream}: can't subscribe: {e!r}") from e
        await self._ask()
        return int(created["num_pending"])

    async def _take(self, msg: Msg) -> None:
        self._queue.append(msg)
        self._wake.set()

    async def _ask(self) -> None:
        want = FOLLOW_BATCH - self._asked
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
            msg = self._queue.popleft()
            h = msg.headers or {}
            if "Status" in h:
                self._status(h)
                continue
            self._asked -= 1
            record, cseq, self._pending = _consumer_record(msg, h)
            if cseq != self._consumer_seq + 1:
                raise _Gap(f"delivery {cseq} after {self._consumer_seq}")
            self._consumer_seq = cseq
            if record.seq <= self._seq:
                continue
            self._seq = record.seq
            out.append(record)
        if self._asked <= FOLLOW_BATCH // 2:
            await self._ask()
        return out

    async def _something(self) -> None:
        """Returns when a message is there; raises _Gap when the connection is another or the server fell silent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 2.5 * FOLLOW_HEARTBEAT_S
        while not self._queue:
            self._wake.clear()
            if not self._connection.connected or self._connection.reconnects != self._connects:
                raise _Gap("the connection is another")
            if loop.time() > deadline:
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


def _consumer_record(msg: Msg, h: dict[str, str]) -> tuple[Recorded, int, int]:
    """(record, consumer sequence, pending) from the reply subject ``$JS.ACK...`` (ADR-15; counted from its end)."""
    t = msg.reply.split(".")
    if len(t) >= 11:  # $JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>[.<token>]
        stream, sseq, cseq, ns, pending = t[4], t[7], t[8], t[9], t[10]
    else:
        stream, sseq, cseq, ns, pending = t[2], t[5], t[6], t[7], t[8]
    headers = dict(h) if h else None
    return Recorded(stream, int(sseq), msg.subject, int(ns) // 1000, msg.data, headers), int(cseq), int(pending)
