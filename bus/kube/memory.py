"""A whole Storage in memory: the reference for its contract, and what tests and the golden run stand on.

A revision is a counter; every write is one change.  ``fail_next`` makes the next write fail the way a log does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from bus.kube import cache
from bus.kube.ordered import Snapshot
from bus.kube.storage import AlreadyExists, Change, Conflict, Listing, Object, Origin, StorageError, Stored, TooLarge
from schemas.codec import EVENT_BYTES_MAX
from schemas.event import uuid7
from schemas.subjects import ObjectKey


class MemoryStorage:
    """Implements ``Storage``; every change gets an id, and the trace of its origin (its own id without one)."""

    def __init__(self, watch_cache: cache.WatchCache | None = None) -> None:
        self.cache = watch_cache or cache.WatchCache()
        self.fail_next: StorageError | None = None
        self.origins: dict[int, Origin] = {}  # who wrote which revision, for tests

    # --- Reader ------------------------------------------------------------------------------------------------

    def revision(self) -> int:
        return self.cache.revision()

    def get(self, key: ObjectKey) -> Stored | None:
        return self.cache.get(key)

    def changed(self, group: str, resource: str) -> int:
        return self.cache.changed(group, resource)

    def list(self, group: str, resource: str, namespace: str | None = None) -> Listing:
        return self.cache.list(group, resource, namespace)

    def at(self, group: str, resource: str, namespace: str | None, rev: int) -> Snapshot:
        return self.cache.at(group, resource, namespace, rev)

    def watch(self, group: str, resource: str, namespace: str | None = None, *, after: int) -> AsyncIterator[Change]:
        return self.cache.watch(group, resource, namespace, after=after)

    # --- Storage -----------------------------------------------------------------------------------------------

    async def create(self, key: ObjectKey, obj: Object, origin: Origin) -> Stored:
        if self.cache.get(key) is not None:
            raise AlreadyExists(f"{key} exists")
        return self._write(key, obj, origin)

    async def replace(self, key: ObjectKey, obj: Object, expect: int, origin: Origin) -> Stored:
        self._expect(key, expect)
        return self._write(key, obj, origin)

    async def delete(self, key: ObjectKey, expect: int, origin: Origin) -> Stored:
        self._expect(key, expect)
        return self._write(key, None, origin)

    def _expect(self, key: ObjectKey, expect: int) -> None:
        current = self.cache.get(key)
        if current is None or current.rev != expect:
            rev = current.rev if current else None
            raise Conflict(f"{key} is at {rev}, not at {expect}", rev)

    def _write(self, key: ObjectKey, obj: Object | None, origin: Origin) -> Stored:
        if self.fail_next is not None:
            failure, self.fail_next = self.fail_next, None
            raise failure
        if obj is not None:
            text = json.dumps(obj)  # a copy, and proof that it is plain JSON
            if len(text) > EVENT_BYTES_MAX:
                raise TooLarge(f"{key} has {len(text)} bytes, the limit is {EVENT_BYTES_MAX}")
            obj = json.loads(text)
        rev = self.cache.revision() + 1
        self.origins[rev] = origin
        event_id = uuid7(rev * 1000, rev.to_bytes(10, "big"))
        change = self.cache.apply(rev, key, obj, event_id, origin.trace or event_id)
        assert change is not None and change.stored is not None
        return change.stored
