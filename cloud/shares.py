"""What one node may ask of a service: a rate with room for a burst, so that who floods pays alone.

What is beyond it is dropped unread; the flood is told once a minute.  A node that behaves never meets the limit, and one
whose question was dropped asks again after its timeout.  Pure but for the clock.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

logger = structlog.get_logger(__name__)

NODES_MAX = 200_000  # remembered; who was quiet longest is forgotten, which gives it a full share again
SAY_S = 60.0


class Shares:
    """``allows(node)`` takes one from its share.  ``on_flood(node, dropped)`` at the first drop and then once a minute."""

    def __init__(
        self,
        what: str,
        a_second: float,
        at_once: float,
        *,
        on_flood: Callable[[str, int], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._rate, self._burst, self._on_flood, self._clock = what, a_second, at_once, on_flood, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # node -> (left, when)
        self._dropped: dict[str, tuple[float, int]] = {}  # node -> (when it was told, dropped since)
        self.dropped = 0

    def allows(self, node: str) -> bool:
        now = self._clock()
        left, at = self._left.pop(node, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= 1.0
        self._left[node] = (left - 1.0 if allowed else left, now)
        if len(self._left) > NODES_MAX:
            gone, _ = self._left.popitem(last=False)
            self._dropped.pop(gone, None)
        if not allowed:
            self._drop(node, now)
        return allowed

    def _drop(self, node: str, now: float) -> None:
        self.dropped += 1
        told, since = self._dropped.get(node, (float("-inf"), 0))
        if now - told < SAY_S:
            self._dropped[node] = (told, since + 1)
            return
        self._dropped[node] = (now, 0)
        logger.warning("shares.flood", what=self._what, node=node, dropped=since + 1)
        self._on_flood(node, since + 1)
