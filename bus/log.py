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
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

import nats.errors

from bus import acks
from bus.connect import Connection
from bus.direct import DirectGets, TooMany
from bus.follower import Follower
from bus.pipeline import Pipeline
from bus.records import (
    NO_ANSWER,
    Batch,
    EpochChanged,
    EventTooLarge,
    Expect,
    ForeignEvent,
    LastState,
    LogError,
    LogFull,
    LogUnavailable,
    Recorded,
    RunRefused,
    StreamInfo,
    Undecided,
    WrongSequence,
    check_address,
)
from schemas import codec, event, subjects

__all__ = [
    "Appender",
    "Batch",
    "EpochChanged",
    "EventTooLarge",
    "Expect",
    "ForeignEvent",
    "LastState",
    "Log",
    "LogError",
    "LogFull",
    "LogUnavailable",
    "Recorded",
    "RunRefused",
    "StreamInfo",
    "Undecided",
    "WrongSequence",
    "check_address",
]

REQUEST_TIMEOUT_S = 5.0  # a hub answers in milliseconds; five seconds is a link that is gone
RUN_TIMEOUT_S = 12.0  # over the slowest links, where each loss costs a second; the server gives an open batch up after 10
DIRECT_KEYS_MAX = 1024  # nats-server's own limit for multi_last
DIRECT_BATCH = 512  # messages of one paged direct get; bounded by bytes as well
DIRECT_BYTES_MAX = 4 << 20
EPOCH_METADATA = "skerry.epoch"
HORIZON_METADATA = "skerry.horizon"
EPOCH_HEADER = acks.EPOCH
SIZE_HEADER = "Nats-Msg-Size"  # the payload's, in a message without it (ADR-33, headers_only)

_HDR_BATCH, _HDR_BATCH_SEQUENCE, _HDR_BATCH_COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"


class Appender(Protocol):
    """The writing half of the log, for those who need no more (and for tests and simulation)."""

    async def append(self, subject: str, ev: event.Event, *, expect: Expect | None = None) -> int: ...


class Log:
    """The streams of one account (CORE at the hub).  ``domain`` is JetStream's, when it is not the connection's own."""

    def __init__(self, connection: Connection, *, domain: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._connection = connection
        self._api = f"$JS.{domain}.API" if domain else "$JS.API"
        self._timeout = timeout_s
        self._direct = DirectGets(connection)

    async def close(self) -> None:
        """Drops our inbox; the connection stays open (it is not ours)."""
        await self._direct.close()

    async def request(
        self, what: str, body: dict[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """One JetStream API request; raises LogUnavailable, LogError with the server's own words."""
        try:
            data = json.dumps(body).encode() if body is not None else b""
            msg = await self._connection.request(f"{self._api}.{what}", data, timeout_s=timeout_s or self._timeout)
        except NO_ANSWER as e:
            raise LogUnavailable(f"{what}: no answer from JetStream: {e!r}") from e
        answer: dict[str, Any] = json.loads(msg.data)
        if "error" in answer:
            err = answer["error"]
            text = f"{what}: {err.get('description')} ({err.get('err_code')})"
            # 503: a cluster that has no leader at this moment (starting, or one server was lost).
            raise (LogUnavailable if err.get("code") == 503 else LogError)(text)
        return answer

    async def info(self, stream: str) -> StreamInfo:
        a = await self.request(f"STREAM.INFO.{stream}")
        meta = a["config"].get("metadata") or {}
        s = a["state"]
        epoch = meta.get(EPOCH_METADATA, a["created"])
        horizon = int(meta.get(HORIZON_METADATA, 0))
        return StreamInfo(stream, epoch, horizon, s["first_seq"], s["last_seq"], s["messages"], s["bytes"], a["config"])

    async def append(self, subject: str, ev: event.Event, *, expect: Expect | None = None, epoch: str = "") -> int:
        """The sequence at which the event is stored (also when it already was: a repeated id within the server's window).
        ``epoch``: of the stream, as the writer knows it; live readers of another one don't take the event for theirs."""
        return await self.append_bytes(subject, codec.encode_event(ev), ev.id, expect=expect, epoch=epoch)

    async def append_bytes(
        self, subject: str, payload: bytes, msg_id: str, *, expect: Expect | None = None, epoch: str = ""
    ) -> int:
        """As ``append``.  Raises WrongSequence, EventTooLarge, LogUnavailable (Undecided), LogError."""
        headers = acks.headers(msg_id, expect, epoch)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        for pause_s in acks.pauses():
            try:
                return await self._append(subject, payload, headers)
            except Undecided:
                if loop.time() + pause_s > until:
                    raise
            except WrongSequence:
                # The server looks at the expectation before the id: so fails a repeated append whose first one was stored.
                seq, last_id = await self._last_id(subject)
                if last_id == msg_id:
                    return seq
                raise
            await asyncio.sleep(pause_s)
        raise AssertionError

    async def _append(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        size = len(payload) + _headers_size(headers)
        try:
            if size > (limit := self._connection.payload_bytes_max):
                # nats-py counts the payload only, and the server closes the connection of whoever sends more.
                raise EventTooLarge(f"{subject}: {size} bytes with headers, the server takes {limit}")
            msg = await self._connection.request(subject, payload, timeout_s=self._timeout, headers=headers)
        except nats.errors.MaxPayloadError as e:
            raise EventTooLarge(f"{subject}: {len(payload)} bytes are more than the server takes") from e
        except nats.errors.NoRespondersError as e:
            raise LogUnavailable(f"{subject}: no stream takes this subject (or the link to it is down)") from e
        except NO_ANSWER as e:
            raise LogUnavailable(f"{subject}: append not acknowledged: {e!r}") from e
        return acks.sequence(subject, msg.data)

    async def _last_id(self, subject: str) -> tuple[int, str]:
        """(sequence, message id) of a subject's last message, as the stream's leader has it: a replica, which a direct get
        may ask, can lag behind the leader that just refused us.  (0, "") where there is none."""
        stream = subjects.stream_of(subject)
        try:
            answer = await self.request(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except LogUnavailable:
            raise
        except LogError:  # no message found
            return 0, ""
        found = answer["message"]
        lines = base64.b64decode(found.get("hdrs", "")).decode(errors="replace").split("\r\n")
        return int(found["seq"]), next((v.strip() for k, _, v in (x.partition(":") for x in lines) if k == acks.ID), "")

    def pipeline(self) -> Pipeline:
        """For appending much at once (``bus/pipeline.py``); the caller runs it."""
        return Pipeline(self._connection, timeout_s=self._timeout)

    async def append_run(self, subject: str, run: Sequence[tuple[bytes, str]]) -> None:
        """Several messages of one subject in one round trip, (payload, id) each: all are stored, in this order, or none
        (NATS ADR-50, atomic batch).  Raises RunRefused (one of the ids is there, say), LogUnavailable, EventTooLarge."""
        batch = secrets.token_hex(8)
        try:
            for n, (payload, msg_id) in enumerate(run, start=1):
                headers = {_HDR_BATCH: batch, _HDR_BATCH_SEQUENCE: str(n), acks.ID: msg_id}
                if n < len(run):
                    await self._connection.client.publish(subject, payload, headers=headers)
                    continue
                headers[_HDR_BATCH_COMMIT] = "1"
                msg = await self._connection.request(subject, payload, timeout_s=RUN_TIMEOUT_S, headers=headers)
        except nats.errors.MaxPayloadError as e:
            raise EventTooLarge(f"{subject}: one of {len(run)} messages is more than the server takes") from e
        except NO_ANSWER as e:
            raise LogUnavailable(f"{subject}: {len(run)} messages not acknowledged: {e!r}") from e
        try:
            acks.sequence(subject, msg.data)
        except LogUnavailable:
            raise
        except LogError as e:
            raise RunRefused(str(e)) from e

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
        except TooMany:
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
        addresses_only: bool = False,
        sizes: bool = False,
    ) -> AsyncGenerator[Batch, None]:
        """Batches for ever, through reconnects and server restarts; each sequence once, in order.

        ``last_per_subject`` (with after=0) begins with the last record of every subject, then goes on live.  The first batch
        may be empty: it tells that nothing was pending.  ``addresses_only``: without payloads (b"") and headers, for who
        wants to know that something was written, and where.  ``sizes``: without payloads, whose sizes ``SIZE_HEADER`` tells.
        Raises EpochChanged when the stream is another one."""
        follower = Follower(
            self, self._connection, self._api, stream, filters or [], after, last_per_subject, epoch, addresses_only, sizes
        )
        try:
            async for batch in follower.batches():
                yield batch
        finally:
            await follower.close()


def _headers_size(headers: dict[str, str]) -> int:
    """Bytes of a header block on the wire (NATS ADR-4)."""
    return len("NATS/1.0\r\n\r\n") + sum(len(k.encode()) + len(v.encode()) + len(": \r\n") for k, v in headers.items())
