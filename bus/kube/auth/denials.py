"""Requests that were refused, counted, and said in the log now and then: a denied loop must not fill a disk.

Reads that are allowed leave no trace; writes are in the log of events with their actor.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

SAY_S = 60.0  # a user who is refused is named once in this time, with the count since
USERS_MAX = 1000  # who are remembered; beyond it everybody is forgotten, which costs some lines more

log = structlog.get_logger(__name__)


class Denials:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}  # when a user was named last, and refusals since

    def tell(self, actor: str, why: str) -> None:
        self.total += 1
        now = self._clock()
        last, since = self._said.get(actor, (now - SAY_S, 0))
        if now - last < SAY_S:
            self._said[actor] = (last, since + 1)
            return
        if len(self._said) >= USERS_MAX:
            self._said.clear()
        self._said[actor] = (now, 0)
        log.warning("request denied", actor=actor, reason=why[:300], denied_since=since + 1, denied_in_all=self.total)
