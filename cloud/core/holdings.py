"""What each node holds of a stream that all of them share, and who holds so much that others would lose theirs.

A stream that is full drops its oldest messages, whoever wrote them.  So before it is full those who hold most lose their own
oldest: the level is found to which all who are above it must come down for the stream to be half full (max-min fairness,
"longest queue drop" for buffers: Suter et al., 1998).  A lone node may use the whole stream, two of them half each, and
whoever holds less than the level loses nothing.  A node below ``Rules.share`` is let be: many of those are nobody's fault.

What is remembered of a node is its bytes and, for each part of its share, the last sequence of that part: some 400 bytes for
nearly all, whatever they send.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Shares of what the stream may hold, and ``least`` bytes that any node may."""

    look_from: float = 0.25
    """Below it nobody is in anybody's way, and the stream is not even read."""
    trim_from: float = 0.75
    level: float = 0.5
    share: float = 1 / 64
    least: int = 1 << 20
    kept: float = 0.75
    """Of what a node may hold, after a trim: so that it is not trimmed at each look."""


STATE = Rules(least=32 << 20)  # 500 pods, eight versions each of 8 kB


@dataclass(frozen=True, slots=True)
class Trim:
    """All of a node's messages below a sequence should go; ``bytes`` of them, and ``held`` before."""

    node: str
    below: int
    bytes: int
    held: int


@dataclass(slots=True)
class _Part:
    last: int
    bytes: int


class Holdings:
    """``take`` for each message in stream order, ``forget`` for what the stream dropped by itself."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._parts: dict[str, list[_Part]] = {}
        self._bytes: dict[str, int] = {}
        self.step = self.rules.least // 8

    def take(self, node: str, seq: int, size: int) -> None:
        parts = self._parts.get(node)
        if parts is None:
            self._parts[node] = parts = []
            self._bytes[node] = 0
        if parts and parts[-1].bytes + size <= self.step:
            parts[-1].last = seq
            parts[-1].bytes += size
        else:
            parts.append(_Part(seq, size))
        self._bytes[node] += size

    def forget(self, first: int) -> None:
        """The stream begins at that sequence now."""
        for node in [n for n, parts in self._parts.items() if parts[0].last < first]:
            self._drop(node, first)

    def trimmed(self, trim: Trim) -> None:
        if trim.node in self._parts:
            self._drop(trim.node, trim.below)

    def held(self, node: str) -> int:
        return self._bytes.get(node, 0)

    @property
    def nodes(self) -> int:
        return len(self._bytes)

    def may_hold(self, capacity: int) -> int:
        """Bytes that a node may hold of a stream that may hold ``capacity``, when it is nearly full."""
        r = self.rules
        least = max(r.least, int(capacity * r.share))
        self.step = max(1, least // 8)
        return level(self._bytes.values(), int(capacity * r.level), least)

    def over(self, may: int) -> list[Trim]:
        """Who holds more than that, and what of theirs should go.  The largest first."""
        out = []
        for node, held in self._bytes.items():
            if held <= may:
                continue
            goes, below = 0, 0
            for part in self._parts[node]:
                if held - goes <= may * self.rules.kept:
                    break
                goes += part.bytes
                below = part.last + 1
            out.append(Trim(node, below, goes, held))
        return sorted(out, key=lambda t: -t.held)

    def _drop(self, node: str, below: int) -> None:
        parts = self._parts[node]
        while parts and parts[0].last < below:
            self._bytes[node] -= parts.pop(0).bytes
        if not parts:
            del self._parts[node], self._bytes[node]


def level(holdings: Iterable[int], room: int, least: int = 1) -> int:
    """The largest L for which all holdings, each cut to L, fit into ``room``; the largest of them when all fit as they are;
    never below ``least``."""
    total, large = 0, []
    for held in holdings:
        total += held
        if held > least:
            large.append(held)
    if total <= room:
        return max([least, *large])
    large.sort(reverse=True)
    for n, held in enumerate(large, start=1):
        total -= held  # of those below
        found = max(0, room - total) // n
        if n == len(large) or found >= large[n]:
            return max(least, found)
    return least
