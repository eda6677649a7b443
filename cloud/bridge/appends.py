"""Writes of one object to CLUSTER, against another replica's and through a log that is away for a while.

Whoever calls holds the object's lock, so that what it decides from stays true within this process.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from bus.kube.storage import AlreadyExists, Conflict, Object, Origin, Unavailable
from cloud.bridge import merging
from cloud.bridge.client import Unreachable
from cloud.standalone.storage import ClusterStorage
from schemas.subjects import ObjectKey

ATTEMPTS_MAX = 8  # of one object against another replica's mirror
RETRY_S = 0.5  # doubles up to RETRY_S_MAX, each with jitter: many watches end together when an API server restarts
RETRY_S_MAX = 30.0


@dataclass(slots=True)
class Stats:
    """Since the start of the process."""

    lists: int = 0
    restarts: int = 0  # watches that were resumed after a failure
    seen: int = 0  # objects that the cluster told of
    written: int = 0
    removed: int = 0
    refused: int = 0


async def pause(failures: int, at_least_s: float = 0.0) -> None:
    own_s = RETRY_S * 2 ** min(failures - 1, 10) * random.uniform(0.5, 1.0)
    await asyncio.sleep(min(RETRY_S_MAX, max(own_s, at_least_s)))


class Appends:
    """``deletions``: what is known to be gone."""

    def __init__(self, storage: ClusterStorage, deletions: merging.Deletions, stats: Stats) -> None:
        self._storage, self._deletions, self._stats = storage, deletions, stats

    async def put(self, key: ObjectKey, obj: Object, origin: Origin, *, restored: bool, wait: bool) -> None:
        """The object as the cluster has it at ``origin.source_rev``, unless CLUSTER has a newer one.  Not ``wait``: raises
        Unavailable when the log is away.  Raises TooLarge, Unreachable."""
        failures = 0
        for _ in range(ATTEMPTS_MAX):
            while True:
                held = self._storage.get(key)
                if not merging.applies(held, self._deletions.get(key), origin.source_rev, restored=restored):
                    return
                if held is not None and (held.source_rev, held.object) == (origin.source_rev, obj):
                    return
                try:
                    if held is None:
                        await self._storage.create(key, obj, origin)
                    else:
                        await self._storage.replace(key, obj, held.rev, origin)
                    self._stats.written += 1
                    return
                except (Conflict, AlreadyExists):
                    break  # another replica
                except Unavailable:
                    if not wait:
                        raise
                    failures += 1
                    await pause(failures)
        raise Unreachable(f"{key}: another keeps writing it to CLUSTER")

    async def end(self, key: ObjectKey, rev: int, who: Origin, *, restored: bool) -> None:
        """Its tombstone, unless another wrote it."""
        failures = 0
        while True:
            held = self._storage.get(key)
            if held is None or not merging.removes(held, rev, restored=restored):
                return
            try:
                await self._storage.delete(key, held.rev, Origin(who.actor, who.cause, who.trace, rev))
            except (Conflict, Unavailable):
                failures += 1
                await pause(failures)
                continue
            self._stats.removed += 1
            return
