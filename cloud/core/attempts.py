"""Writes to the API, one in flight for each object: which objects wait, which are under way, which are tried again later.

Objects wait in lanes, one for each node: a node with very much to write waits for itself, not the others for it.
It knows nothing of what is written.  An object that was written is left alone until the API has shown the result: comparing
with a view from before the write would only earn a conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloud.core.lanes import Lanes
from schemas import times
from schemas.subjects import ObjectKey

RETRY_US = 1 * times.US_PER_S  # doubles up to the maximum, paced by ticks
RETRY_US_MAX = 60 * times.US_PER_S
SHOWN_US_MAX = 30 * times.US_PER_S  # the API shows a write within milliseconds; a safety net, not a pace


@dataclass(slots=True)
class _Attempt:
    rev: int  # the revision that the write is made from
    shown_rev: int  # the newest that the API showed, deletions too
    in_flight: bool = True
    again: bool = False  # wanted once more while it was under way
    until_rev: int = 0  # done: waits until the API shows this revision
    retry_us: int | None = None  # tried again at this time


class Attempts:
    """``lane_of``: whose an object is."""

    def __init__(self, in_flight_max: int, lane_of: Callable[[ObjectKey], str]) -> None:
        self._in_flight_max, self._lane_of = in_flight_max, lane_of
        self._in_flight = 0
        self._wanted: Lanes[ObjectKey] = Lanes()
        self._attempts: dict[ObjectKey, _Attempt] = {}
        self._failures: dict[ObjectKey, int] = {}  # in a row

    @property
    def idle(self) -> bool:
        return not self._wanted and not self._attempts

    def want(self, key: ObjectKey) -> None:
        """Look at the object (again).  News end a wait for a retry, but not a write in flight."""
        attempt = self._attempts.get(key)
        if attempt is None:
            self._wanted.put(self._lane_of(key), key, key)
        else:
            attempt.again = True

    def next(self) -> ObjectKey | None:
        """An object to look at now, if there is one and the window has room."""
        while self._wanted and self._in_flight < self._in_flight_max:
            key = self._wanted.take(1)[0]
            attempt = self._attempts.get(key)
            if attempt is None:
                return key
            attempt.again = True  # it waited twice, because it became another's meanwhile
        return None

    def begin(self, key: ObjectKey, rev: int) -> None:
        assert key not in self._attempts
        self._attempts[key] = _Attempt(rev, rev)
        self._in_flight += 1

    def done(self, key: ObjectKey, rev: int, now_us: int) -> None:
        """Written as ``rev``, which the API may have shown already."""
        attempt = self._land(key)
        self._failures.pop(key, None)
        attempt.until_rev = rev
        attempt.retry_us = now_us + SHOWN_US_MAX
        if rev <= attempt.shown_rev:
            self._release(key)

    def conflict(self, key: ObjectKey, retry_us: int) -> None:
        attempt = self._land(key)
        attempt.again = True
        attempt.retry_us = retry_us
        if attempt.shown_rev > attempt.rev:
            self._release(key)

    def failed(self, key: ObjectKey, now_us: int) -> None:
        attempt = self._land(key)
        attempt.again = True
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        attempt.retry_us = now_us + min(RETRY_US << min(failures - 1, 16), RETRY_US_MAX)

    def refused(self, key: ObjectKey) -> None:
        self._land(key)
        self._failures.pop(key, None)
        self._release(key)

    def shown(self, key: ObjectKey, rev: int) -> bool:
        """The API showed a revision of the object; True when it may be looked at now."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return True
        attempt.again = True
        attempt.shown_rev = max(attempt.shown_rev, rev)
        if not attempt.in_flight and rev >= attempt.until_rev:
            self._release(key)
        return False

    def tick(self, now_us: int) -> None:
        for key in [
            k for k, a in self._attempts.items() if a.retry_us is not None and a.retry_us <= now_us and not a.in_flight
        ]:
            self._release(key)

    def _land(self, key: ObjectKey) -> _Attempt:
        attempt = self._attempts[key]
        assert attempt.in_flight, f"{key} has no write in flight"
        attempt.in_flight = False
        self._in_flight -= 1
        return attempt

    def _release(self, key: ObjectKey) -> None:
        if self._attempts.pop(key).again:
            self.want(key)
