"""Turns: a bounded number of requests at once, given out user by user, so that nobody's loop takes the API from others.

Kubernetes calls this "API Priority and Fairness".  Here there is one level: who is in ``system:masters`` is exempt,
everybody else shares the seats.  Each user has a short queue; seats go round the users that wait.  A full queue is a 429
with Retry-After.  Watches and streams hold no seat: they are bounded by their own number.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from bus.kube import errors

SAYS = "Too many requests, please try again later."


ASIDE_MAX = 1_024  # requests that wait for somebody else than us; beyond that they keep their seats


@dataclass(slots=True)
class _Seat:
    turns: Turns
    user: str
    aside: int = 0  # how many of the request's calls are waited for
    given: bool = False


_SEAT: ContextVar[_Seat | None] = ContextVar("seat", default=None)


@asynccontextmanager
async def aside() -> AsyncIterator[None]:
    """While a request waits for somebody else (a webhook), its seat is another's.  It gets one again before others do."""
    seat = _SEAT.get()
    if seat is None:
        yield
        return
    seat.aside += 1
    if seat.aside == 1 and not seat.given and seat.turns.aside < ASIDE_MAX:
        seat.given = True
        seat.turns.step_aside()
    try:
        yield
    finally:
        seat.aside -= 1
        if seat.aside == 0 and seat.given:
            await seat.turns.come_back(seat)


class Turns:
    """``seats`` requests at once; each user may have ``waiting_max`` waiting, and ``users_max`` users may wait."""

    def __init__(self, seats: int, waiting_max: int, users_max: int) -> None:
        self._free = seats
        self._waiting_max, self._users_max = waiting_max, users_max
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # whose turn is next comes first
        self._returning: deque[asyncio.Future[None]] = deque()
        self.seats = seats
        self.refused = 0
        self.aside = 0

    @property
    def running(self) -> int:
        return self.seats - self._free

    @property
    def waiting(self) -> int:
        return sum(len(q) for q in self._queues.values())

    @asynccontextmanager
    async def turn(self, user: str) -> AsyncIterator[None]:
        """Waits for a seat; raises StatusError 429 when too many wait already."""
        await self._take(user)
        seat = _Seat(self, user)
        token = _SEAT.set(seat)
        try:
            yield
        finally:
            _SEAT.reset(token)
            if seat.given:
                self.aside -= 1
            else:
                self._give()

    def step_aside(self) -> None:
        self.aside += 1
        self._give()

    async def come_back(self, seat: _Seat) -> None:
        """Waits for a seat, before all who have none yet."""
        if self._free > 0:
            self._free -= 1
        else:
            again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._returning.append(again)
            try:
                await again
            except asyncio.CancelledError:
                if again.done() and not again.cancelled():
                    self._give()
                raise
        seat.given = False
        self.aside -= 1

    async def _take(self, user: str) -> None:
        if self._free > 0 and not self._queues:
            self._free -= 1
            return
        queue = self._queues.get(user)
        full = len(self._queues) >= self._users_max if queue is None else len(queue) >= self._waiting_max
        if full:
            self.refused += 1
            raise errors.too_many(SAYS)
        if queue is None:
            queue = self._queues[user] = deque()
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(seat)
        try:
            await seat
        except asyncio.CancelledError:
            if seat.done() and not seat.cancelled():  # it was given the seat at this very moment
                self._give()
            else:
                self._leave(user, seat)
            raise

    def _leave(self, user: str, seat: asyncio.Future[None]) -> None:
        queue = self._queues.get(user)
        if queue is not None and seat in queue:
            queue.remove(seat)
            if not queue:
                del self._queues[user]

    def _give(self) -> None:
        """The seat goes to who comes back for one, or to the next user in turn, who then is the last."""
        while self._returning:
            again = self._returning.popleft()
            if not again.done():
                again.set_result(None)
                return
        while self._queues:
            user, queue = next(iter(self._queues.items()))
            seat = queue.popleft()
            if queue:
                self._queues.move_to_end(user)
            else:
                del self._queues[user]
            if not seat.done():
                seat.set_result(None)
                return
        self._free += 1
