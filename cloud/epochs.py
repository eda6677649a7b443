"""Which epochs of the log a node's cursors must be of, in four bytes: the answer to its beat.

A hub that was restored from a backup may be back within seconds, sooner than its nodes notice that it was away.  Their
cursors are then ahead of the log, and live events would look as if they had been applied long ago.  So each beat is
answered with a mark of the epochs; a node that finds another one than its cursors' asks, and is told to begin anew
(cloud/sync.py).
"""

from __future__ import annotations

import asyncio

from bus import log
from cloud import sync as service
from schemas import subjects, sync

LOOK_S = 2.0  # a request a shard; a beat comes every 20 s


class Epochs:
    """``run`` until cancelled; ``mark`` is empty while it isn't known."""

    def __init__(self, store: log.Log, shards: int) -> None:
        self._log, self._shards = store, shards
        self._epochs: dict[int, str] = {}

    async def run(self) -> None:
        while True:
            for shard in range(self._shards):
                try:
                    self._epochs[shard] = (await self._log.info(f"META-{shard}")).epoch
                except log.LogError:
                    self._epochs.pop(shard, None)  # may come back as another
            await asyncio.sleep(LOOK_S)

    def mark(self, node: str) -> bytes:
        shards = [subjects.shard_of(scope, self._shards) for scope in service.scopes_of(node)]
        if any(s not in self._epochs for s in shards):
            return b""
        return sync.epochs_mark([self._epochs[s] for s in shards])
