"""What a node has to say, kept until the hub has acknowledged it.

A report is put into the outbox in the transaction that changed the node's state, and removed when the log has it; the
event's id makes sending it again harmless.  Reports of one subject are sent in order, so an older one never overtakes a
newer one: one at a time, or several at once of which the log takes all or none (with a satellite's round trip for each, a
device that reports more often than that would never be caught up with).  Nothing is dropped while there is room; above
the limit, reports that a later one of the same subject has overtaken go first: they are history, not state.

A disk that is full is a reason to say so, not to be silent: what can't be stored is held in memory (the newest of each
subject) and sent from there; what was acknowledged but can't be removed is not sent again, and no later report of its
subject is sent before it is removed: after a crash it is sent once more, and must not come after a newer one.  All is put
right on the disk when it takes writes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Protocol

import msgpack
import structlog

from bus import log
from bus.stores import base
from schemas import codec, event
from schemas.reports import REPORT_BYTES_MAX

logger = structlog.get_logger(__name__)

EVENTS_MAX = 10_000  # about 20 MB of reports: days of a busy node without a link
IN_FLIGHT_MAX = 64  # subjects
RUN_MAX = 50  # reports of one subject sent at once
RUN_BYTES_MAX = 256 << 10
RETRY_S = 0.5
RETRY_S_MAX = 15.0


class BytesAppender(Protocol):
    async def append_bytes(self, subject: str, payload: bytes, msg_id: str) -> int: ...


class RunAppender(Protocol):
    async def append_run(self, subject: str, run: Sequence[tuple[bytes, str]]) -> None: ...


def _key(n: int) -> bytes:
    return n.to_bytes(8, "big")


def _packed(subject: str, ev: event.Event) -> bytes:
    data: bytes = msgpack.packb([subject, ev.id, codec.encode_event(ev)])
    return data


def check(store: base.Reading) -> None:
    """Raises StoreCorrupt when what waits in a store can't be read."""
    for key, value in store.items("outbox"):
        try:
            subject, msg_id, payload = msgpack.unpackb(value)
        except (ValueError, TypeError, msgpack.UnpackException) as e:
            raise base.StoreCorrupt(f"report {key.hex()} of the outbox is damaged: {e}") from e
        if not (isinstance(subject, str) and isinstance(msg_id, str) and isinstance(payload, bytes)):
            raise base.StoreCorrupt(f"report {key.hex()} of the outbox is damaged")


class Outbox:
    """Events of one node on their way to the log, in the ``outbox`` table of its store."""

    def __init__(self, store: base.Store, *, events_max: int = EVENTS_MAX) -> None:
        self._store = store
        self._events_max = events_max
        self._subjects: dict[int, str] = {}  # what waits, by number (dicts keep the order)
        self._held: dict[int, bytes] = {}  # not on the disk, which refused it
        self._acked: dict[int, str] = {}  # on the disk, though the log has it
        self.on_unclean: Callable[[], None] = lambda: None  # told when something of the two is new: call `tidy` in a while
        self._busy: set[str] = set()
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._singly: set[int] = set()  # those that the log would not take together
        self._wake = asyncio.Event()
        self._anew = False
        self._failures = 0
        self.sent = 0
        self.overtaken = 0
        self.refused = 0
        self.load()

    def load(self) -> None:
        """Read what a crash or a restart left."""
        self._subjects = {}
        for key, value in self._store.items("outbox"):
            self._subjects[int.from_bytes(key, "big")] = msgpack.unpackb(value)[0]
        self._next = max(self._subjects, default=0) + 1

    @property
    def pending(self) -> int:
        return len(self._subjects)

    def add(self, txn: base.Transaction, subject: str, ev: event.Event) -> int:
        """Put one event in, within the caller's transaction; call ``committed`` with the numbers after it."""
        n, self._next = self._next, self._next + 1
        txn.put("outbox", _key(n), _packed(subject, ev))
        return n

    def committed(self, added: list[tuple[int, str]]) -> None:
        """The transaction is on disk: (number, subject) of what was added may be sent."""
        self._subjects.update(added)
        if len(self._subjects) > self._events_max:
            self._compact()
        self._wake.set()

    def hold(self, subject: str, ev: event.Event) -> None:
        """One event that could not be added: sent from memory, and stored by ``tidy`` if the disk is first."""
        for n in [n for n in self._held if self._subjects[n] == subject and n not in self._flying]:
            del self._held[n], self._subjects[n]
            self.overtaken += 1
        n, self._next = self._next, self._next + 1
        self._held[n] = _packed(subject, ev)
        self._subjects[n] = subject
        self._wake.set()

    @property
    def unclean(self) -> bool:
        """The disk lacks something, or has too much."""
        return bool(self._held or self._acked)

    def tidy(self, txn: base.Transaction) -> tuple[list[int], list[int]]:
        """Store what is held, remove what is acknowledged; call ``tidied`` with the answer after the transaction."""
        stored = [n for n in self._held if n not in self._flying]
        for n in stored:
            txn.put("outbox", _key(n), self._held[n])
        removed = list(self._acked)
        for n in removed:
            txn.delete("outbox", _key(n))
        return stored, removed

    def tidied(self, done: tuple[list[int], list[int]]) -> None:
        stored, removed = done
        for n in stored:
            self._held.pop(n, None)
        for n in removed:
            del self._acked[n]
        self._wake.set()

    def _compact(self) -> None:
        stored = {n: s for n, s in self._subjects.items() if n not in self._held}
        newest = {s: n for n, s in stored.items()}
        old = [n for n, s in stored.items() if newest[s] != n and n not in self._flying]
        drop = old[: max(1, len(self._subjects) - self._events_max * 9 // 10)]
        if not drop:
            logger.error("outbox.full", events=len(self._subjects), limit=self._events_max)
            return
        try:
            with self._store.transact() as txn:
                for n in drop:
                    txn.delete("outbox", _key(n))
        except base.StoreError as e:
            logger.warning("outbox.compact.failed", error=str(e))  # tried again with the next report
            return
        for n in drop:
            del self._subjects[n]
        self.overtaken += len(drop)
        logger.warning("outbox.compacted", dropped=len(drop), overtaken=self.overtaken)

    def link_up(self) -> None:
        """The cloud can be reached again: wait neither for the backoff to end nor for what went with the old link."""
        self._failures, self._anew = 0, True
        self._wake.set()

    async def run(self, appender: BytesAppender, runs: RunAppender | None = None) -> None:
        """Send, until cancelled.  ``runs``: how to send several at once, where that is possible."""
        try:
            while True:
                self._wake.clear()
                if self._anew:
                    self._anew = False
                    await self._recall()
                for n, subject in list(self._subjects.items()):
                    if len(self._busy) >= IN_FLIGHT_MAX:
                        break
                    if self.may_send(n, subject):
                        self._busy.add(subject)
                        run = self._run_from(n, subject) if runs is not None else [n]
                        sending = self._send(appender, n, subject) if len(run) == 1 else self._send_run(runs, run, subject)
                        task = asyncio.create_task(sending, name=f"outbox.{n}")
                        self._flying.update(dict.fromkeys(run, task))
                await self._wake.wait()
                if self._failures:
                    wait = min(RETRY_S_MAX, RETRY_S * 2 ** min(self._failures - 1, 10)) * random.uniform(0.5, 1.0)
                    self._wake.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await self._link()
        finally:
            await self._recall()

    async def _recall(self) -> None:
        """Ends what is under way: it is sent again, and its id says that it is the same."""
        tasks = set(self._flying.values())
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flying.clear()  # of a task that was cancelled before it began
        self._busy.clear()

    def _run_from(self, n: int, subject: str) -> list[int]:
        """This report and those of its subject that follow, as many as go at once."""
        out, size = list[int](), 0
        for m, s in self._subjects.items():
            if s != subject or m < n:
                continue
            value = self._value(m)
            size += len(value or b"")
            if out and (value is None or m in self._singly or size > RUN_BYTES_MAX or len(out) == RUN_MAX):
                break
            out.append(m)
            if m in self._singly or value is None:
                break
        return out

    def _value(self, n: int) -> bytes | None:
        try:
            return self._held.get(n) or self._store.get("outbox", _key(n))
        except base.StoreError:  # told when it is sent alone
            return None

    async def _send_run(self, runs: RunAppender | None, run: list[int], subject: str) -> None:
        assert runs is not None
        try:
            values = [self._value(n) for n in run]
            packed = [msgpack.unpackb(v) for v in values if v is not None]
            if len(packed) == len(run):
                await runs.append_run(subject, [(payload, msg_id) for _, msg_id, payload in packed])
                self._failures = 0
                self.sent += len(run)
                stored = [n for n in run if self._held.pop(n, None) is None]
                self._remove(stored, subject)
                for n in run:
                    self._subjects.pop(n, None)
            else:
                self._singly.update(run)
        except (log.RunRefused, log.EventTooLarge):  # some of it is there already, after an answer that was lost, say
            self._singly.update(run)
        except log.LogError as e:
            self._failed(e)
        finally:
            self._ended(run, subject)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.info("outbox.waiting", error=str(error), pending=len(self._subjects))

    def _ended(self, run: list[int], subject: str) -> None:
        for n in run:
            self._flying.pop(n, None)
        self._busy.discard(subject)
        self._wake.set()

    def may_send(self, n: int, subject: str) -> bool:
        """Reports of a subject go one at a time, in order."""
        return n not in self._flying and subject not in self._busy and subject not in self._acked.values()

    async def _link(self) -> None:
        while self._failures:
            await self._wake.wait()
            self._wake.clear()

    async def _send(self, appender: BytesAppender, n: int, subject: str) -> None:
        try:
            value = self._held.get(n) or self._store.get("outbox", _key(n))
            if value is not None:
                _, msg_id, payload = msgpack.unpackb(value)
                try:
                    if len(payload) > REPORT_BYTES_MAX:
                        raise log.EventTooLarge(f"{subject}: {len(payload)} bytes, a report has at most {REPORT_BYTES_MAX}")
                    await appender.append_bytes(subject, payload, msg_id)
                    self._failures = 0
                    self.sent += 1
                except log.EventTooLarge as e:
                    self.refused += 1
                    logger.error("outbox.refused", subject=subject, id=msg_id, error=str(e))
                if self._held.pop(n, None) is None:
                    self._remove([n], subject)
            self._subjects.pop(n, None)
            self._singly.discard(n)
        except log.LogError as e:
            self._failed(e)
        except base.StoreError as e:  # it could not be read: the disk is failing, not full
            self._failures += 1
            logger.warning("outbox.store.failed", error=str(e))
        finally:
            self._ended([n], subject)

    def _remove(self, run: list[int], subject: str) -> None:
        try:
            with self._store.transact() as txn:
                for n in run:
                    txn.delete("outbox", _key(n))
        except base.StoreError as e:
            if not self._acked:
                logger.warning("outbox.store.failed", error=str(e))
            self._acked.update(dict.fromkeys(run, subject))
            self.on_unclean()
