"""META is compacted: tombstones go, the chain and the writers go on, and a node that was away for longer begins anew.  Also
when the server is killed in the midst of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bus import log, replica, stamp
from bus.hub import compact
from bus.stores.lmdb_store import LmdbStore
from cloud import dispatcher, sync
from schemas import subjects
from tests.contract.bus import plain
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract

OBJECTS = 40
FAR = 10**9  # everything is older than then


async def until(check: Callable[[], bool], s: float = 60) -> None:
    async with asyncio.timeout(s):
        while not check():
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def a_node(hub: RunningHub, folder: Path) -> AsyncIterator[replica.Replica]:
    """A node that is in sync, from what it has in its folder."""
    store = LmdbStore(folder)
    r = replica.Replica("edge-1", ["edge-1", "all"], store, on_change=lambda _: None, answer_timeout_s=5)
    connection = await hub.connect_core("node")
    await r.attach(connection)
    task = asyncio.create_task(r.run())
    r.link_up()
    try:
        await until(lambda: r.synced)
        yield r
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()
        store.close()


@contextlib.asynccontextmanager
async def serving(hub: RunningHub) -> AsyncIterator[None]:
    service = sync.SyncService(hub.core, hub.log, shards=hub.hub.shards)
    await service.start()
    try:
        yield
    finally:
        await service.stop()


class Writer:
    """A scope's chain, as the dispatcher writes it."""

    def __init__(self, hub: RunningHub, scope: str) -> None:
        self._hub, self._scope, self.prev = hub, scope, 0

    async def put(self, name: str, data: dict[str, object] | None) -> None:
        key, shards = plain.cm(name), self._hub.hub.shards
        ev = plain.make_event(key, data, self._scope, self.prev)
        expect = log.Expect(self.prev, subjects.meta_scope(self._scope, shards))
        self.prev = await self._hub.log.append(subjects.meta(self._scope, key, shards), ev, expect=expect)


def names(r: replica.Replica) -> set[str]:
    return {fact.key.name for fact in r.facts()}


async def test_a_node_that_was_away_for_longer_begins_anew_and_keeps_nothing_that_is_gone(
    hub: RunningHub, tmp_path: Path
) -> None:
    writer = Writer(hub, "edge-1")
    stream = f"META-{subjects.shard_of('edge-1', hub.hub.shards)}"
    for n in range(OBJECTS):
        await writer.put(f"o-{n:03d}", {"n": n})
    async with serving(hub):
        async with a_node(hub, tmp_path / "node") as r:
            assert len(names(r)) == OBJECTS
        for n in range(OBJECTS - 1):
            await writer.put(f"o-{n:03d}", None)
        async with a_node(hub, tmp_path / "other") as r:
            assert names(r) == {f"o-{OBJECTS - 1:03d}"}
        before = (await hub.log.info(stream)).messages
        done = await compact.compact(hub.log, shards=hub.hub.shards, before_us=stamp.now_us() + FAR, settle_s=0.1)
        assert {d.stream: d.removed for d in done if d.removed} == {stream: OBJECTS - 2}, "but for the head of the scope"
        info = await hub.log.info(stream)
        assert info.messages <= before - 2 * (OBJECTS - 2) and OBJECTS < info.horizon <= info.last_seq
        await writer.put("new", {"n": 1})  # expecting the head, as before
        async with a_node(hub, tmp_path / "node") as r:
            assert names(r) == {f"o-{OBJECTS - 1:03d}", "new"} and r.stats.resets >= 1
            await writer.put("live", {"n": 2})  # and the chain goes on
            await until(lambda: "live" in names(r))
        nothing = await compact.compact(hub.log, shards=hub.hub.shards, before_us=0, settle_s=0)
        assert sum(d.removed for d in nothing) == 0
        worker = dispatcher.DispatcherWorker(hub.log, hub.hub.shards)  # reads META as it is, and settles
        task = asyncio.create_task(worker.run())
        await until(lambda: worker.idle and worker.stats.appended == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (worker.stats.appended, worker.stats.conflicts) == (3, 0), "it withdraws what is there, at the first attempt"


async def answers(hub: RunningHub, stream: str, other_than: int | None = None) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(log.LogError):
                if hub.server.pid != other_than and (await hub.log.info(stream)).last_seq:
                    return
            await asyncio.sleep(0.1)


async def test_killed_in_the_midst_a_compaction_is_begun_again_and_nothing_rises(hub: RunningHub, tmp_path: Path) -> None:
    writer = Writer(hub, "edge-1")
    stream = f"META-{subjects.shard_of('edge-1', hub.hub.shards)}"
    for n in range(OBJECTS):
        await writer.put(f"o-{n:03d}", {"n": n})
    async with serving(hub), a_node(hub, tmp_path / "node"):
        pass
    for n in range(OBJECTS - 1):
        await writer.put(f"o-{n:03d}", None)

    def begin(settle_s: float) -> asyncio.Task[list[compact.Compacted]]:
        far = stamp.now_us() + FAR
        return asyncio.create_task(compact.compact(hub.log, shards=hub.hub.shards, before_us=far, settle_s=settle_s))

    async def killed(work: asyncio.Task[list[compact.Compacted]], after_s: float) -> None:
        await asyncio.sleep(after_s)
        pid = hub.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await answers(hub, stream, other_than=pid)
        async with serving(hub), a_node(hub, tmp_path / f"fresh-{after_s}") as r:
            assert names(r) == {f"o-{OBJECTS - 1:03d}"}, "whatever came back, a tombstone came with it"

    await killed(begin(60.0), 0.02)  # while older versions go
    await killed(begin(60.0), 1.0)  # while it waits, most likely
    work = begin(60.0)
    async with asyncio.timeout(60):
        while (await hub.log.info(stream)).messages > OBJECTS + 1:  # of the head the version before stays
            await asyncio.sleep(0.05)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await hub.server.stop()  # in the place of the wait: a server that is stopped writes its index
    await hub.server.start()
    await answers(hub, stream)
    await killed(begin(0.1), 0.3)  # while tombstones go
    await compact.compact(hub.log, shards=hub.hub.shards, before_us=stamp.now_us() + FAR, settle_s=0.1)
    async with serving(hub), a_node(hub, tmp_path / "node") as r:
        assert names(r) == {f"o-{OBJECTS - 1:03d}"}
        await writer.put("live", {"n": 2})
        await until(lambda: "live" in names(r))
