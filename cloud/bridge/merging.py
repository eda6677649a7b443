"""Whether what the cluster says is news to CLUSTER.  Pure.

What comes here comes by several ways that overtake each other: pages of a list, a watch, a fetch by name, the answer to our
own write.  resourceVersions of one cluster are one counter, so the larger one is the newer, whichever way it came; the
revision of a deletion is remembered for a while, so that what was read just before it can't raise the object again.

A cluster that was restored from a backup counts from a smaller number again.  A consistent list tells: its revision is
smaller than one that was seen before it was asked for.  Then every difference counts, whatever its number.
"""

from __future__ import annotations

from collections import OrderedDict

from bus.kube.storage import Stored
from schemas.subjects import ObjectKey

DELETIONS_MAX = 4096  # remembered; what overtakes a deletion does so within a request's time


class Deletions:
    """The revisions at the cluster of the newest ones, by key."""

    def __init__(self, limit: int = DELETIONS_MAX) -> None:
        self._limit = limit
        self._known: OrderedDict[ObjectKey, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, key: ObjectKey, rev: int) -> None:
        self._known[key] = max(rev, self._known.pop(key, 0))
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def get(self, key: ObjectKey) -> int:
        """0 for none."""
        return self._known.get(key, 0)

    def clear(self) -> None:
        self._known.clear()


def applies(held: Stored | None, deleted: int, rev: int, *, restored: bool = False) -> bool:
    """Whether an object at ``rev`` is newer than what CLUSTER has."""
    if restored:
        return True  # a number may have been given twice, to different contents: compare those
    if held is not None:
        return rev > held.source_rev
    return rev > deleted


def removes(held: Stored | None, rev: int, *, restored: bool = False) -> bool:
    """Whether "it was gone at ``rev``" is true of what CLUSTER has."""
    return held is not None and (restored or held.source_rev <= rev)
