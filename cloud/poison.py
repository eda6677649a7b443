"""Objects that can't be carried on as they are: too large for an event, or of a shape that nothing here can read.

Each is said once and set aside at the revision that it has; everything else goes on, and when it changes it is tried again.
"""

from __future__ import annotations

from collections import OrderedDict

import structlog

from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

HELD_MAX = 10_000  # beyond it the oldest are forgotten: tried, refused and said again
REASON_CHARS_MAX = 500


class Poison:
    def __init__(self, where: str) -> None:
        self._where = where
        self._held: OrderedDict[ObjectKey, tuple[int, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def reason(self, key: ObjectKey) -> str:
        """Why it is set aside, "" when it is not."""
        return self._held.get(key, (0, ""))[1]

    def is_aside(self, key: ObjectKey, rev: int) -> bool:
        """Whether it is known that this revision can't be carried."""
        return key in self._held and self._held[key][0] == rev

    def set_aside(self, key: ObjectKey, rev: int, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]
        if not self.is_aside(key, rev):
            logger.error(f"{self._where}.object.set_aside", object=str(key), rev=rev, reason=reason)
        self._held[key] = rev, reason
        self._held.move_to_end(key)
        if len(self._held) > HELD_MAX:
            self._held.popitem(last=False)

    def good(self, key: ObjectKey) -> None:
        """It was carried, or is gone."""
        if self._held.pop(key, None) is not None:
            logger.info(f"{self._where}.object.no_longer_aside", object=str(key))
