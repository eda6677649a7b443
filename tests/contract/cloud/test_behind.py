"""Who lacks an event and doesn't know it is found by the cursors in its beat, on a real log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import log
from cloud import behind
from schemas import reports, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract

SHARDS = 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[log.Log]:
    server = plain.PlainServer(tmp_path / "jetstream")
    await server.start()
    nc = await plain.client(server)
    store = log.Log(nc)
    await plain.make_streams(store)
    yield store
    await store.close()
    await nc.close()
    server.kill()


async def say(store: log.Log, scope: str, name: str) -> int:
    key = plain.cm(name)
    return await store.append(subjects.meta(scope, key, SHARDS), plain.make_event(key, {"n": 1}))


async def test_only_who_lacks_something_is_asked_and_not_at_every_beat(store: log.Log) -> None:
    asked: list[str] = []
    clock = Clock()

    async def catch_up(node: str) -> None:
        asked.append(node)

    checks = behind.Behind(store, SHARDS, catch_up, clock=clock)
    running = asyncio.create_task(checks.run())

    def beat(node: str, **heads: int) -> None:
        checks.beat(node, reports.Beat(boot="b", time=1, heads={k.replace("_", "-"): v for k, v in heads.items()}))

    async def settled(count: int) -> None:
        async with asyncio.timeout(60):
            while checks.checks < count or not checks._due.empty():
                await asyncio.sleep(0.01)

    own = await say(store, "edge-1", "a")
    for_all = await say(store, "all", "b")
    await say(store, "edge-2", "c")  # its node has heard nothing of it
    try:
        beat("edge-1", edge_1=own, all=for_all)
        beat("edge-2", edge_2=for_all, all=for_all)
        await settled(3)
        assert asked == ["edge-2"]
        # The event that edge-1 misses now is found at the next beat that is due, not before.
        await say(store, "edge-1", "a")
        beat("edge-1", edge_1=own, all=for_all)
        clock.now += behind.CHECK_S - 1
        beat("edge-1", edge_1=own, all=for_all)
        assert checks._due.empty() and asked == ["edge-2"]
        clock.now += 1
        beat("edge-1", edge_1=own, all=for_all)
        async with asyncio.timeout(60):
            while asked != ["edge-2", "edge-1"]:
                await asyncio.sleep(0.01)
        # What is for all counts too; another's scope in a beat does not.
        await say(store, "all", "b")
        checks_before = checks.checks
        beat("edge-3", edge_3=own + 100, all=for_all, edge_2=0)
        async with asyncio.timeout(60):
            while asked[2:] != ["edge-3"]:
                await asyncio.sleep(0.01)
        assert checks.checks == checks_before + 2
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
