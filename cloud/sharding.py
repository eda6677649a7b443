"""The dispatcher's shards spread over the cloud processes: a lease a shard, one worker over those that this process leads.

One worker, and not one a shard: each folds all of CLUSTER.  When the set changes it starts again with the new one, which is
a fold of CLUSTER and nothing lost (``cloud/dispatcher.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from bus import log, tasks
from cloud import dispatcher, leases

logger = structlog.get_logger(__name__)

SETTLE_S = 0.5  # leases come one after the other: the worker starts once
STAGGER_S = 0.1  # processes that start together look at the shards in different orders
PATIENCE_S = 0.4  # a shard: who leads fewer bids first


class ShardedDispatcher:
    """``run`` until cancelled.  ``me`` names this life of this process.  ``on_fold`` is told
    True when a worker has folded all there was, False when that worker and its fold are gone."""

    def __init__(self, store: log.Log, shards: int, me: str, *, on_fold: Callable[[bool], None] = lambda _: None) -> None:
        self._log, self._shards, self._me, self._on_fold = store, shards, me, on_fold
        self._owned: set[int] = set()
        self._changed = asyncio.Event()
        self.worker: dispatcher.DispatcherWorker | None = None

    @property
    def owned(self) -> frozenset[int]:
        return frozenset(self._owned)

    async def run(self) -> None:
        first = hash(self._me) % self._shards
        async with asyncio.TaskGroup() as parts:
            for n in range(self._shards):
                parts.create_task(self._campaign((first + n) % self._shards, n * STAGGER_S), name=f"shard.{n}")
            parts.create_task(self._work(), name="dispatcher.worker")

    async def _campaign(self, shard: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        lease = leases.Campaign(self._log, f"dispatcher-{shard}", self._me, patience_s=lambda: len(self._owned) * PATIENCE_S)
        await lease.run(lambda: self._own(shard))

    async def _own(self, shard: int) -> None:
        self._owned.add(shard)
        self._changed.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._owned.discard(shard)
            self._changed.set()

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            async with self._working(self.owned):
                await self._changed.wait()
                while self._owned:  # until it is quiet; who leads none has ended already
                    self._changed.clear()
                    try:
                        async with asyncio.timeout(SETTLE_S):
                            await self._changed.wait()
                    except TimeoutError:
                        break

    @asynccontextmanager
    async def _working(self, owned: frozenset[int]) -> AsyncIterator[None]:
        if not owned:
            yield
            return
        logger.info("dispatcher.shards", shards=sorted(owned))
        self.worker = dispatcher.DispatcherWorker(self._log, self._shards, owned)
        async with asyncio.TaskGroup() as parts:
            working = parts.create_task(self.worker.run(), name="dispatcher")
            loaded = parts.create_task(self._loaded(self.worker), name="dispatcher.loaded")
            try:
                yield
            finally:
                told = loaded.done()
                await tasks.end(loaded)
                await tasks.end(working)
                self.worker = None
                if told:
                    self._on_fold(False)

    async def _loaded(self, worker: dispatcher.DispatcherWorker) -> None:
        await worker.loaded.wait()
        self._on_fold(True)
