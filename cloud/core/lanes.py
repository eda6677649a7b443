"""A queue in which everybody has a lane of his own: who brings much waits for himself alone.

One turn goes round the lanes.  In a lane a newer item of the same subject takes the place of the older one, at its old
place: what is read from it are last words, and only the last one counts.  Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """``a_turn``: how many items a lane gives before the next one has its turn."""

    def __init__(self, a_turn: int = 1) -> None:
        assert a_turn > 0
        self._a_turn = a_turn
        self._lanes: OrderedDict[str, OrderedDict[Hashable, T]] = OrderedDict()
        self._waiting = 0
        self.overtaken = 0

    def __len__(self) -> int:
        return self._waiting

    def waiting(self, lane: str) -> int:
        return len(self._lanes.get(lane, ()))

    def put(self, lane: str, subject: Hashable, item: T) -> None:
        mine = self._lanes.setdefault(lane, OrderedDict())
        if subject in mine:
            self.overtaken += 1
        else:
            self._waiting += 1
        mine[subject] = item

    def take(self, at_most: int) -> list[T]:
        """The next items in turns: all, or ``at_most``."""
        out: list[T] = []
        while len(out) < at_most and self._lanes:
            lane, mine = self._lanes.popitem(last=False)
            for _ in range(min(self._a_turn, len(mine), at_most - len(out))):
                out.append(mine.popitem(last=False)[1])
            if mine:
                self._lanes[lane] = mine
        self._waiting -= len(out)
        return out
