"""When is which property read, and how long to wait after a failure.  Pure: times come in as seconds of one clock.

Reads are aligned to multiples of their cycle, so that properties of 1 s, 2 s and 5 s meet in one request as often as
possible.  A slot that was missed (the device was slow) is left out, not made up for: late values would not be better ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Schedule:
    """Slots counted from ``origin``.  A fresh schedule is due at once."""

    cycles_ms: Mapping[str, int]
    origin: float
    _next: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert all(ms > 0 for ms in self.cycles_ms.values())
        self._next = dict.fromkeys(self.cycles_ms, 0)

    def next_at(self) -> float:
        """When something is due next; infinity when nothing is ever."""
        return min((self._at(name) for name in self._next), default=math.inf)

    def due(self, now: float) -> list[str]:
        """The properties due at ``now``, in their declared order."""
        return [name for name in self._next if self._at(name) <= now]

    def done(self, names: Iterable[str], now: float) -> None:
        """They were read; ``now`` is when that ended.  They are due again in the first slot after it."""
        for name in names:
            self._next[name] = self._slot_after(name, now)

    def _at(self, name: str) -> float:
        return self.origin + self._next[name] * self.cycles_ms[name] / 1000

    def _slot_after(self, name: str, now: float) -> int:
        slot = math.floor((now - self.origin) * 1000 / self.cycles_ms[name])
        while self.origin + slot * self.cycles_ms[name] / 1000 <= now:  # floats: never the same slot twice
            slot += 1
        return slot


@dataclass(slots=True)
class Backoff:
    """Doubling waits up to a cap, each shortened by up to half at random, so that a hundred devices behind one switch
    don't come back in step."""

    first_s: float
    cap_s: float
    random: Callable[[], float]
    failures: int = 0

    def next_s(self) -> float:
        wait = min(self.cap_s, self.first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return wait * (0.5 + 0.5 * self.random())

    def reset(self) -> None:
        self.failures = 0
