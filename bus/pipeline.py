"""Appends in a window: many on their way at once, each answered once by a callback.

``Log.append`` is a request: a task, a future and a timer for each.  The dispatcher appends thousands of events a second to
as many scopes, so here is one inbox for all acknowledgements, one task that gives them out, and one write to the connection
for everything that was appended meanwhile.

What holds, whatever the hub does:

* Every append is answered exactly once, within ``timeout_s``: with its sequence, or with the error that ``Log.append`` would
  raise.  LogUnavailable means that nobody knows; whoever appended looks at the log again.
* An append may be sent more than once within that time (the connection was made anew, a cluster was undecided), always
  with the same id and expectation.
* A callback that raises is said and counted; neither the other callbacks nor the look for overdue appends end by it.
* Several appends to one scope at once are refused by their expectation but for the first.  The caller doesn't do that, and
  bounds how many appends are open; ``bytes_max`` bounds what is on its way of them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from bus import acks, wire
from bus.connect import Connection, Subscribed
from bus.records import NO_ANSWER, EventTooLarge, Expect, LogError, LogUnavailable, Undecided

log = structlog.get_logger(__name__)

BYTES_MAX = 8 << 20  # on their way at once: the connection's own buffer while nobody reads it
TIMEOUT_S = 5.0  # a hub answers in milliseconds
LOOK_S = 0.25  # how often overdue appends are looked for
SAY_S = 60.0  # at most so often is a failed callback told
OPEN_S_MAX = 5.0  # for the inbox to be known to the server

Outcome = int | LogError
Done = Callable[[Outcome], None]


@dataclass(slots=True)
class PipelineStats:
    appended: int = 0
    resent: int = 0
    overdue: int = 0
    raised: int = 0  # callbacks that failed


@dataclass(slots=True)
class _Append:
    subject: str
    frame: bytes
    done: Done
    until: float
    sent: bool = False
    pauses: Iterator[float] | None = None
    again_at: float = 0.0  # undecided: sent again then


class Pipeline:
    """``run`` does the work until it is cancelled; what is open then is never answered."""

    def __init__(self, connection: Connection, *, bytes_max: int = BYTES_MAX, timeout_s: float = TIMEOUT_S) -> None:
        self._connection, self._bytes_max, self._timeout = connection, bytes_max, timeout_s
        self._open: dict[int, _Append] = {}  # the oldest first, which is the order of their ends
        self._unsent: deque[int] = deque()
        self._undecided: set[int] = set()
        self._answers: deque[tuple[int, bytes, bytes]] = deque()
        self._refused: deque[tuple[Done, LogError]] = deque()
        self._bytes = 0  # of what was sent and is open
        self._tokens = itertools.count(1)
        self._inbox = f"{connection.settings.inbox}.{os.urandom(12).hex()}."
        self._wake = asyncio.Event()
        self._said_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.stats = PipelineStats()

    @property
    def open(self) -> int:
        """Appends that are not answered yet."""
        return len(self._open) + len(self._refused)

    def append(
        self, subject: str, payload: bytes, msg_id: str, done: Done, *, expect: Expect | None = None, epoch: str = ""
    ) -> None:
        """``done`` is called once, from ``run``'s task, never from here.  Raises ValueError for headers that can't be."""
        block = acks.header_block(msg_id, expect, epoch)
        size, limit = len(block) + len(payload), self._connection.payload_bytes_max
        if size > limit:
            self._refused.append((done, EventTooLarge(f"{subject}: {size} bytes with headers, the server takes {limit}")))
        else:
            token = next(self._tokens)
            frame = wire.publish(subject, f"{self._inbox}{token}", block, payload)
            self._open[token] = _Append(subject, frame, done, self._loop.time() + self._timeout)
            self._unsent.append(token)
        self._wake.set()

    async def run(self) -> None:
        subscribed: Subscribed | None = None
        reconnects = 0
        try:
            while True:
                self._wake.clear()
                if subscribed is None:
                    subscribed, reconnects = await self._subscribe(), self._connection.reconnects
                if self._connection.connected and reconnects != self._connection.reconnects:
                    reconnects = self._connection.reconnects
                    self._send_again()
                self._give_out()
                self._look()
                if subscribed is not None and self._connection.connected:
                    self._send()
                if self.open and self._timer is None:
                    self._timer = self._loop.call_later(LOOK_S, self._due)
                await self._wake.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if subscribed is not None:
                await subscribed.unsubscribe()

    def _due(self) -> None:
        self._timer = None
        self._wake.set()

    async def _subscribe(self) -> Subscribed | None:
        """None: not now.  The server knows the inbox before anything is sent that is to be answered there."""
        try:
            async with asyncio.timeout(OPEN_S_MAX):
                subscribed = await self._connection.take(f"{self._inbox}*", self._take)
                await self._connection.flush()
        except NO_ANSWER:
            return None
        return subscribed

    # --- on their way -----------------------------------------------------------------------------------------------

    def _send(self) -> None:
        now = self._loop.time()
        for token in [t for t in self._undecided if self._open[t].again_at <= now]:
            self._undecided.discard(token)
            self.stats.resent += 1
            self._unsent.append(token)
        frames: list[bytes] = []
        while self._unsent and self._bytes <= self._bytes_max:
            a = self._open.get(self._unsent.popleft())
            if a is None:
                continue  # overdue before it was sent
            if not a.sent:
                a.sent = True
                self._bytes += len(a.frame)
            frames.append(a.frame)
        if frames:
            self._connection.client.send(b"".join(frames), len(frames))

    def _send_again(self) -> None:
        """What was on its way when the connection was lost may have arrived or not: its expectation makes it harmless."""
        again = [t for t, a in self._open.items() if a.sent and t not in self._undecided]
        self.stats.resent += len(again)
        self._unsent = deque(dict.fromkeys([*again, *self._unsent]))

    # --- answers ----------------------------------------------------------------------------------------------------

    def _take(self, subject: bytes, _reply: bytes, block: bytes, payload: bytes) -> None:
        self._answers.append((int(subject[len(self._inbox) :]), block, payload))
        self._wake.set()

    def _give_out(self) -> None:
        while self._refused:
            self._call(*self._refused.popleft())
        while self._answers:
            token, block, payload = self._answers.popleft()
            a = self._open.get(token)
            if a is None:
                continue  # answered, or given up
            outcome = self._outcome(a, block, payload)
            if isinstance(outcome, Undecided) and self._later(token, a):
                continue
            self._close(token, outcome)

    def _later(self, token: int, a: _Append) -> bool:
        """Sent again after a pause, if there is time for it."""
        a.pauses = a.pauses or acks.pauses()
        a.again_at = self._loop.time() + next(a.pauses)
        if a.again_at >= a.until:
            return False
        self._undecided.add(token)
        self._loop.call_at(a.again_at, self._wake.set)
        return True

    def _outcome(self, a: _Append, block: bytes, payload: bytes) -> Outcome:
        if wire.status(block) == "503":
            return LogUnavailable(f"{a.subject}: no stream takes this subject (or the link to it is down)")
        try:
            return acks.sequence(a.subject, payload)
        except LogError as e:
            return e

    def _look(self) -> None:
        """Ends what is overdue."""
        now, late = self._loop.time(), 0
        while self._open:
            token, a = next(iter(self._open.items()))
            if a.until > now:
                break
            late += 1
            self._close(token, LogUnavailable(f"{a.subject}: not acknowledged within {self._timeout:g} s"))
        if late:
            self.stats.overdue += late
            if self._connection.connected:
                self._connection.doubt()

    def _close(self, token: int, outcome: Outcome) -> None:
        a = self._open.pop(token)
        self._undecided.discard(token)
        if a.sent:
            self._bytes -= len(a.frame)
        self._call(a.done, outcome)

    def _call(self, done: Done, outcome: Outcome) -> None:
        self.stats.appended += isinstance(outcome, int)
        try:
            done(outcome)
        except Exception:
            self.stats.raised += 1
            if self._loop.time() >= self._said_until:  # a traceback for each of thousands would hold up all others
                self._said_until = self._loop.time() + SAY_S
                log.exception("pipeline.callback_failed", outcome=str(outcome), failed=self.stats.raised)
