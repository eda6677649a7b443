"""Direct gets: one question, many messages as the answer (ADR-31).  One inbox serves all questions of a log."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus.connect import Connection, Message, Subscribed
from bus.records import NO_ANSWER, LogError, LogUnavailable, Recorded


class TooMany(Exception):
    """413: more subjects than the server answers at once."""


@dataclass(slots=True)
class End:
    up_to: int = 0
    pending: int = 0


class _Collector:
    def __init__(self) -> None:
        self.records: list[Recorded] = []
        self.done: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.progress = 0


class DirectGets:
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
    ) -> tuple[list[Recorded], End]:
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
                        self._connection.doubt()
                        raise LogUnavailable(f"{api}: no answer within {timeout:g} s") from e
        except NO_ANSWER as e:
            raise LogUnavailable(f"{api}: {e!r}") from e
        finally:
            del self._open[token]
            if c.done.done():
                c.done.exception()
            else:
                c.done.cancel()

    async def _take(self, msg: Message) -> None:
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
                c.done.set_result(End())
        elif status == "204":
            c.done.set_result(End(int(h.get("Nats-UpTo-Sequence", 0) or 0), int(h.get("Nats-Num-Pending", 0))))
        elif status == "404":
            c.done.set_result(End(int(h.get("Nats-UpTo-Sequence", 0) or 0)))
        elif status == "413":
            c.done.set_exception(TooMany())
        elif status == "503":
            c.done.set_exception(LogUnavailable("no stream answers (or the link to it is down)"))
        else:
            c.done.set_exception(LogError(f"direct get: {status} {h.get('Description', '')}"))


def _direct_record(msg: Message, h: dict[str, str]) -> Recorded:
    stamp = h["Nats-Time-Stamp"]
    return Recorded(h["Nats-Stream"], int(h["Nats-Sequence"]), h["Nats-Subject"], _parse_time_us(stamp), msg.data, dict(h))


def _parse_time_us(text: str) -> int:
    """Microseconds of an RFC 3339 time with up to nanoseconds."""
    whole, dot, rest = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000 + (int(rest[:6].ljust(6, "0")) if dot else 0)
