"""A process that leads shards is told when it has folded all there was, and when that fold is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus import tasks
from cloud import sharding
from ops.fleet import feed
from tests.contract.hub_fixture import RunningHub, hub

__all__ = ["hub"]
pytestmark = pytest.mark.contract


async def test_a_fold_is_told_when_it_is_there_and_when_it_is_gone(hub: RunningHub, tmp_path: Path) -> None:
    await feed.Feed(hub.log, hub.hub.shards, cluster=True).load(["n1"], 3)
    told: list[bool] = []
    folded: list[int] = []

    def on_fold(there: bool) -> None:
        told.append(there)
        if there:
            assert made.worker is not None
            folded.append(made.worker.folded)

    made = sharding.ShardedDispatcher(hub.log, hub.hub.shards, "one", on_fold=on_fold)
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(60):
        while len(made.owned) < hub.hub.shards or not told or not told[-1]:
            await asyncio.sleep(0.05)
    assert folded[-1] >= 3, "all that was written before is folded"
    await tasks.end(running)
    assert told[-1] is False
    assert told.count(True) == told.count(False), "each fold that was told is told of when it ends"
