"""Keys that a controller should look at: each once, however often it is asked for, some later than others.

A key that is asked for while it is being looked at waits for the next turn, so no two looks at one key overlap and no
change is missed.  Bounded by the number of objects.  Knows no clock and no asyncio: ``now_s`` is any time that only grows.
Source: the rules of client-go's workqueue.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque

from schemas.subjects import ObjectKey


class Turns:
    def __init__(self) -> None:
        self._ready: deque[ObjectKey] = deque()
        self._wanted: set[ObjectKey] = set()  # in _ready, or to come back after its present turn
        self._busy: set[ObjectKey] = set()
        self._later: list[tuple[float, int, ObjectKey]] = []
        self._due: dict[ObjectKey, float] = {}
        self._tick = itertools.count()

    def __len__(self) -> int:
        """Keys that are due, or being looked at."""
        return len(self._wanted) + len(self._busy)

    @property
    def waiting(self) -> int:
        """Keys that are due later."""
        return len(self._due)

    @property
    def next_s(self) -> float | None:
        """When the next of those may be due."""
        return self._later[0][0] if self._later else None

    def add(self, key: ObjectKey, now_s: float, delay_s: float = 0.0) -> bool:
        """Whether whoever waits for a turn should look again."""
        if delay_s > 0:
            due = now_s + delay_s
            if self._due.get(key, due + 1) <= due:  # the earliest time counts
                return False
            self._due[key] = due
            heapq.heappush(self._later, (due, next(self._tick), key))
            return True
        if key in self._wanted:
            return False
        self._wanted.add(key)
        if key in self._busy:
            return False
        self._ready.append(key)
        return True

    def take(self, now_s: float) -> ObjectKey | None:
        """The next key, None when there is none now; it belongs to the caller until ``done``."""
        while self._later and self._later[0][0] <= now_s:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key, now_s)
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: ObjectKey) -> bool:
        """Whether it has another turn at once."""
        self._busy.discard(key)
        if key not in self._wanted:
            return False
        self._ready.append(key)
        return True
