"""The fold of a change log that an API can list and watch from: current state, a bounded past, and cheap fan-out.

Every storage of the Kubernetes API keeps one: whoever reads the log calls ``apply`` in revision order, everything else
is plain reading.  Nothing here awaits while it changes state, so a list, its revision and a watch from it always fit.

The past is a ring *per resource*, not one for all: node leases renew every few seconds and would push a rarely changed
kind out of a common ring, so that its watchers could never resume.  A watcher is registered by (group, resource,
namespace): a change costs nothing for the watchers of anything else.  A watcher that doesn't keep up gets Expired and
is forgotten; it lists again, as Kubernetes clients do on 410.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from bus.kube.ordered import Ordered, Place, Snapshot
from bus.kube.storage import Change, Expired, Listing, Object, Stored
from schemas.subjects import ObjectKey

RING_CHANGES_MAX = 2048  # per resource: minutes of a busy kind; an informer that was away longer lists again
BUFFER_CHANGES_MAX = 1024  # per watcher: a burst (a deployment of a thousand pods), not an absence
BOOKMARK_S = 30.0  # idle watchers learn the revision this often; kube-apiserver does it about once a minute

list_of = list  # inside the class it is a method

WAITERS_SWEEP = 1024  # waiters that gave up are swept out beyond this many


class _Bucket:
    """Everything about one (group, resource)."""

    __slots__ = ("dropped", "objects", "ring", "state", "watchers")

    def __init__(self) -> None:
        self.objects = Ordered()
        self.ring: deque[Change] = deque()
        self.dropped = 0  # revision of the newest change that the ring no longer holds
        self.watchers: dict[str | None, set[_Watcher]] = {}
        self.state = 0  # a number that no other state of this resource has


class _Watcher:
    """A bounded buffer and a bell."""

    __slots__ = ("bell", "buffer", "expired", "limit")

    def __init__(self, limit: int) -> None:
        self.buffer: deque[Change] = deque()
        self.bell = asyncio.Event()
        self.limit = limit
        self.expired: str | None = None

    def offer(self, change: Change) -> bool:
        """False when the watcher is too slow and must be forgotten."""
        if len(self.buffer) >= self.limit:
            self.expire(f"the watch fell {self.limit} changes behind: list again")
            return False
        self.buffer.append(change)
        self.bell.set()
        return True

    def expire(self, why: str) -> None:
        self.expired = why
        self.buffer.clear()
        self.bell.set()


class WatchCache:
    """Implements ``Reader``.  Belongs to one event loop; ``apply`` is called by one feeder in revision order."""

    def __init__(
        self,
        *,
        ring_changes_max: int = RING_CHANGES_MAX,
        buffer_changes_max: int = BUFFER_CHANGES_MAX,
        bookmark_s: float = BOOKMARK_S,
    ) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._revision = 0
        self._floor = 0  # history below this is not complete
        self._ring_max = ring_changes_max
        self._buffer_max = buffer_changes_max
        self._bookmark_s = bookmark_s
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tick = itertools.count()
        self._states = itertools.count(1)
        self._resets = 0

    # --- the feeder's side -------------------------------------------------------------------------------------

    def apply(
        self,
        rev: int,
        key: ObjectKey,
        obj: Object | None,
        event_id: str = "",
        trace: str = "",
        source_rev: int = 0,
        time_us: int = 0,
    ) -> Change | None:
        """Fold one change; ``obj`` None is a deletion.  A revision that was seen already is ignored (None), so a feeder
        may repeat itself.  ``obj`` becomes shared: the caller never changes it again."""
        if rev <= self._revision:
            return None
        bucket = self._buckets.get((key.group, key.resource))
        if bucket is None:
            bucket = self._buckets[key.group, key.resource] = _Bucket()
            bucket.dropped = self._floor
        old = bucket.objects.get(key)
        if obj is not None:
            stored = Stored(key, rev, obj, event_id, trace, source_rev)
            change = Change("MODIFIED" if old else "ADDED", rev, stored, old, time_us)
            bucket.objects.put(stored)
        elif old is not None:
            bucket.objects.pop(key)
            change = Change("DELETED", rev, Stored(key, rev, old.object, event_id, trace, source_rev), old, time_us)
        else:  # a tombstone of something that we never saw, as in a fold of last states
            self.advance(rev)
            return None
        self._revision, bucket.state = rev, next(self._states)
        self._remember(bucket, change)
        self._tell(bucket, key.namespace, change)
        self._wake()
        return change

    def advance(self, rev: int) -> None:
        """The log moved to ``rev`` without a change of any object."""
        if rev > self._revision:
            self._revision = rev
            self._wake()

    def begin(self, rev: int) -> None:
        """The first fold (of last states, with holes between them) is done: history is complete from ``rev`` on."""
        self.advance(rev)
        self._floor = max(self._floor, rev)
        for bucket in self._buckets.values():
            bucket.ring.clear()
            bucket.dropped = self._floor

    def reset(self, rev: int, objects: Iterable[Stored]) -> None:
        """Start again from a whole state, for example of another epoch of the log; every watcher gets Expired."""
        for bucket in self._buckets.values():
            for watchers in bucket.watchers.values():
                for watcher in watchers:
                    watcher.expire("the log was reset: list again")
        self._buckets.clear()
        self._resets += 1
        self._revision = self._floor = rev
        for stored in objects:
            bucket = self._buckets.setdefault((stored.key.group, stored.key.resource), _Bucket())
            bucket.dropped, bucket.state = rev, next(self._states)
            bucket.objects.put(stored)
        self._wake()

    def _remember(self, bucket: _Bucket, change: Change) -> None:
        if len(bucket.ring) >= self._ring_max:
            bucket.dropped = bucket.ring.popleft().rev
        bucket.ring.append(change)

    def _tell(self, bucket: _Bucket, namespace: str, change: Change) -> None:
        for scope in {namespace, None}:
            watchers = bucket.watchers.get(scope)
            if watchers:
                slow = [w for w in watchers if not w.offer(change)]
                watchers.difference_update(slow)

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    # --- the reader's side -------------------------------------------------------------------------------------

    def revision(self) -> int:
        return self._revision

    async def wait_for(self, rev: int) -> None:
        """Returns when everything up to ``rev`` is here; bound it with ``asyncio.timeout``."""
        if rev <= self._revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._waiters) > WAITERS_SWEEP:
            self._waiters = [w for w in self._waiters if not w[2].done()]
            heapq.heapify(self._waiters)
        heapq.heappush(self._waiters, (rev, next(self._tick), future))
        await future

    def get(self, key: ObjectKey) -> Stored | None:
        bucket = self._buckets.get((key.group, key.resource))
        return bucket.objects.get(key) if bucket else None

    def changed(self, group: str, resource: str) -> int:
        bucket = self._buckets.get((group, resource))
        return bucket.state if bucket else -self._resets

    def list(self, group: str, resource: str, namespace: str | None = None) -> Listing:
        bucket = self._buckets.get((group, resource))
        return list_of(bucket.objects.walk(namespace)) if bucket is not None else []

    def at(self, group: str, resource: str, namespace: str | None, rev: int) -> Snapshot:
        """The list as it was at revision ``rev``, by undoing the ring; raises Expired when that is too long ago."""
        bucket = self._buckets.get((group, resource))
        if rev < (bucket.dropped if bucket else self._floor):
            raise Expired(f"revision {rev} is too old to list {resource} at")
        undone: dict[Place, Stored | None] = {}
        for change in reversed(bucket.ring if bucket else ()):
            if change.rev <= rev:
                break
            assert change.stored is not None
            key = change.stored.key
            if namespace is None or key.namespace == namespace:
                undone[key.namespace, key.name] = change.old
        return Snapshot(bucket.objects if bucket else Ordered(), namespace, undone)

    async def watch(
        self, group: str, resource: str, namespace: str | None = None, *, after: int
    ) -> AsyncGenerator[Change, None]:
        """Changes above ``after``; see ``Reader.watch``.  Close it (``contextlib.aclosing``) when leaving early."""
        bucket = self._buckets.get((group, resource))
        if bucket is None:
            bucket = self._buckets[group, resource] = _Bucket()
            bucket.dropped = self._floor
        if after < bucket.dropped:
            raise Expired(f"revision {after} is too old, {resource} are held from {bucket.dropped} on: list again")
        watcher = _Watcher(self._buffer_max)
        # The past goes beside the buffer: a long but legal resume must not count as slowness.
        past = [c for c in bucket.ring if c.rev > after and _in(c, namespace)]
        watchers = bucket.watchers.setdefault(namespace, set())
        watchers.add(watcher)
        try:
            for change in past:
                if watcher.expired:
                    raise Expired(watcher.expired)
                yield change
            del past
            while True:
                while watcher.buffer:
                    change = watcher.buffer.popleft()
                    if change.rev > after:
                        yield change
                if watcher.expired:
                    raise Expired(watcher.expired)
                watcher.bell.clear()
                try:
                    async with asyncio.timeout(self._bookmark_s):
                        await watcher.bell.wait()
                except TimeoutError:
                    if not watcher.buffer and not watcher.expired and self._revision >= after:
                        yield Change("BOOKMARK", self._revision)
        finally:
            watchers.discard(watcher)
            if not watchers and bucket.watchers.get(namespace) is watchers:
                del bucket.watchers[namespace]


def _in(change: Change, namespace: str | None) -> bool:
    assert change.stored is not None
    return namespace is None or change.stored.key.namespace == namespace
