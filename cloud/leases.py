"""The rim of leadership: reads and writes the lease, runs the work while we lead, ends it when we don't.

What is led and how it is fenced: ``cloud/core/leases.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from bus import log, stamp, tasks
from cloud.core import leases as core
from schemas import codec, leases, subjects

logger = structlog.get_logger(__name__)

STREAM = "LEASES"
TICK_S = 0.1
ANSWER_S = core.TTL_US / 4e6  # an answer that takes longer comes too late to be worth waiting for

Work = Callable[[], Coroutine[Any, Any, None]]


class Taken(Exception):
    """The lease was not as the write expected."""


class NoAnswer(Exception):
    """Whatever was asked may have happened or not."""


class Book(Protocol):
    """Where a lease is written.  Both raise NoAnswer."""

    async def look(self) -> tuple[int, str]:
        """The last record's sequence (0: none) and its holder, "" for nobody."""
        ...

    async def write(self, expect: int, holder: str) -> int:
        """Names a holder, if the last sequence is ``expect``; the new one.  Raises Taken."""
        ...


class LogBook:
    """In a stream of the log."""

    def __init__(self, store: log.Log, role: str) -> None:
        self._log, self._role, self._subject = store, role, subjects.lease(role)

    async def look(self) -> tuple[int, str]:
        try:
            last = await self._log.last_of(STREAM, self._subject)
            holder = codec.decode_as(leases.LeaseRecord, last.payload).holder if last is not None else ""
        except log.LogError as e:
            raise NoAnswer(str(e)) from e
        except codec.DecodeError as e:
            logger.error("lease.unreadable", role=self._role, reason=str(e))
            holder = "?"  # somebody's; it runs out like any other
        return (last.seq if last is not None else 0), holder

    async def write(self, expect: int, holder: str) -> int:
        about = f"{socket.gethostname()}:{os.getpid()}" if holder else ""
        record = codec.encode(leases.LeaseRecord(holder=holder, about=about))
        try:
            return await self._log.append_bytes(self._subject, record, stamp.new_id(), expect=log.Expect(expect))
        except log.WrongSequence as e:
            raise Taken(str(e)) from e
        except log.LogError as e:
            raise NoAnswer(str(e)) from e


class Contest:
    """``run(work)`` for ever: ``work()`` runs while we lead ``role`` and is cancelled when we don't.  A failure of the work
    is raised, after the lease was given back.  Runs once.

    ``patience_s``: how long to leave a free lease to those who lead less; asked at every look."""

    def __init__(
        self, book: Book, role: str, lease: core.Lease, *, patience_s: Callable[[], float], answer_s: float
    ) -> None:
        self._book, self._role, self._core = book, role, lease
        self._patience_s, self._answer_s = patience_s, answer_s
        self._request: asyncio.Task[core.Stimulus] | None = None
        self._working: asyncio.Task[None] | None = None
        self.terms = 0

    @property
    def leads(self) -> bool:
        """Right now, by the clock that goes on while a process is stopped."""
        return self._core.leads(stamp.mono_us())

    async def run(self, work: Work) -> None:
        try:
            while True:
                await self._do(self._core.handle(core.Tick(stamp.mono_us())), work)
                waits = {t for t in (self._request, self._working) if t is not None}
                if waits:
                    await asyncio.wait(waits, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(TICK_S)
                if self._request is not None and self._request.done():
                    answered, self._request = self._request.result(), None
                    await self._do(self._core.handle(answered), work)
                if self._working is not None and self._working.done():
                    await self._stop_working()
                    raise RuntimeError(f"the work of {self._role} ended by itself")
        finally:
            await self._give_up()

    async def _do(self, instructions: list[core.Instruction], work: Work) -> None:
        for i in instructions:
            match i:
                case core.Look():
                    self._request = asyncio.create_task(self._look(), name=f"lease.{self._role}.look")
                case core.Write(expect):
                    self._request = asyncio.create_task(self._write(expect, self._core.me), name=f"lease.{self._role}.write")
                case core.Begin(seq):
                    self.terms += 1
                    logger.info("lease.begun", role=self._role, term=seq)
                    self._working = asyncio.create_task(work(), name=f"work.{self._role}")
                case core.End(reason):
                    logger.warning("lease.ended", role=self._role, reason=reason)
                    await self._stop_working()

    async def _stop_working(self) -> None:
        working, self._working = self._working, None
        if working is not None:
            await tasks.end(working)

    async def _give_up(self) -> None:
        """A clean end leaves the lease free; nobody has to wait for its time."""
        led = self.leads
        try:
            await self._stop_working()
        finally:
            if self._request is not None:
                await tasks.end(self._request)
            if led:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await self._write(self._core.seq, "")

    async def _look(self) -> core.Stimulus:
        try:
            async with asyncio.timeout(self._answer_s):
                seq, holder = await self._book.look()
        except (NoAnswer, TimeoutError):
            return core.Failed(stamp.mono_us())
        return core.Seen(stamp.mono_us(), seq, holder, int(self._patience_s() * 1e6))

    async def _write(self, expect: int, holder: str) -> core.Stimulus:
        try:
            async with asyncio.timeout(self._answer_s):
                seq = await self._book.write(expect, holder)
        except Taken:
            return core.Refused(stamp.mono_us())
        except (NoAnswer, TimeoutError):
            return core.Failed(stamp.mono_us())
        return core.Written(stamp.mono_us(), seq)


class Campaign(Contest):
    """For a lease in the log."""

    def __init__(
        self,
        store: log.Log,
        role: str,
        me: str,
        *,
        patience_s: Callable[[], float] = lambda: 0.0,
        ttl_us: int = core.TTL_US,
    ) -> None:
        lease = core.Lease(me, ttl_us=ttl_us)
        super().__init__(LogBook(store, role), role, lease, patience_s=patience_s, answer_s=ANSWER_S)
