"""Keys that a controller should look at: each once, however often it is asked for, some later than others.

A key that is asked for while it is being looked at waits for the next turn, so no two looks at one key overlap and no
change is missed.  Bounded by the number of objects.  Source: the rules of client-go's workqueue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque

from schemas.subjects import ObjectKey


class WorkQueue:
    def __init__(self) -> None:
        self._ready: deque[ObjectKey] = deque()
        self._wanted: set[ObjectKey] = set()  # in _ready, or to come back after its present turn
        self._busy: set[ObjectKey] = set()
        self._later: list[tuple[float, int, ObjectKey]] = []
        self._due: dict[ObjectKey, float] = {}
        self._tick = itertools.count()
        self._bell = asyncio.Event()

    def __len__(self) -> int:
        return len(self._wanted) + len(self._busy)

    @property
    def waiting(self) -> int:
        """Keys that are due later."""
        return len(self._due)

    def add(self, key: ObjectKey, delay_s: float = 0.0) -> None:
        if delay_s > 0:
            due = asyncio.get_running_loop().time() + delay_s
            if self._due.get(key, due + 1) > due:  # the earliest time counts
                self._due[key] = due
                heapq.heappush(self._later, (due, next(self._tick), key))
                self._bell.set()
            return
        if key not in self._wanted:
            self._wanted.add(key)
            if key not in self._busy:
                self._ready.append(key)
                self._bell.set()

    async def take(self) -> ObjectKey:
        """The next key; it belongs to the caller until ``done``."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            while self._later and self._later[0][0] <= now:
                due, _, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    del self._due[key]
                    self.add(key)
            if self._ready:
                key = self._ready.popleft()
                self._wanted.discard(key)
                self._busy.add(key)
                return key
            self._bell.clear()
            timeout = self._later[0][0] - now if self._later else None
            try:
                async with asyncio.timeout(timeout):
                    await self._bell.wait()
            except TimeoutError:
                continue

    def done(self, key: ObjectKey) -> None:
        self._busy.discard(key)
        if key in self._wanted:
            self._ready.append(key)
            self._bell.set()
