"""The replica on a real LMDB file against a real nats-server and the real sync service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bus import fold, log, replica
from bus.connect import Connection
from bus.stores import base
from bus.stores.failing import FailingStore
from bus.stores.lmdb_store import LmdbStore
from bus.stores.memory import MemoryStore
from cloud import sync
from schemas import event, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract

SCOPES = ["edge-1", "all"]


class Hub:
    def __init__(self, server: plain.PlainServer, nc: Connection, store: log.Log, service: sync.SyncService) -> None:
        self.server, self.nc, self.log, self.service = server, nc, store, service
        self.edge = plain.Writer(store, "edge-1")
        self.all = plain.Writer(store, "all")

    async def folded(self) -> dict[bytes, bytes]:
        """The fold of the log, read by another way than the replica's: every message from the first on."""
        facts = []
        last = (await self.log.info("META-0")).last_seq
        if last:
            async for batch in self.log.follow("META-0"):
                for r in batch.records:
                    _, scope, key = subjects.parse_meta(r.subject)
                    if scope in SCOPES:
                        with contextlib.suppress(ValueError):
                            facts.append(fold.fact_of(scope, key, r.seq, r.payload))
                if batch.pending == 0:
                    break
        return fold.fold(facts)


@pytest.fixture
async def hub(server: plain.PlainServer) -> AsyncIterator[Hub]:
    nc = await plain.client(server)
    store = log.Log(nc)
    await plain.make_streams(store)
    service = sync.SyncService(nc, store, shards=1)
    await service.start()
    yield Hub(server, nc, store, service)
    await service.stop()
    await store.close()
    await nc.close()


@contextlib.asynccontextmanager
async def running(hub: Hub, store: base.Store) -> AsyncIterator[tuple[replica.Replica, list[replica.Applied], Connection]]:
    changes: list[replica.Applied] = []
    nc = await plain.client(hub.server)
    r = replica.Replica("edge-1", SCOPES, store, on_change=changes.extend, answer_timeout_s=1.0)
    await r.attach(nc)
    task = asyncio.create_task(r.run())
    r.link_up()
    try:
        yield r, changes, nc
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await nc.close()


async def until(what: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)


async def same(hub: Hub, store: base.Store) -> bool:
    return fold.state_hash(store.items("objects")) == fold.state_hash((await hub.folded()).items())


async def test_live_and_catch_up_end_in_the_fold_of_the_log(hub: Hub, tmp_path: Path) -> None:
    for i in range(20):
        await hub.edge.put(f"before{i}", {"i": i})
    store = LmdbStore(tmp_path / "s")
    async with running(hub, store) as (r, changes, _nc):
        await until(lambda: r.synced)
        assert len(changes) == 20 and r.stats.page_events == 20
        for i in range(20):
            await hub.edge.put(f"live{i}", {"i": i})
            await hub.all.put(f"all{i}", {"i": i})
        await hub.edge.put("before0", None)
        await until(lambda: r.cursors()["edge-1"].seq == hub.edge.head and r.cursors()["all"].seq == hub.all.head)
        assert r.stats.page_events == 20, "nothing came twice: live was enough"
        assert await same(hub, store)
        assert changes[-1].fact.deleted or changes[-2].fact.deleted
    store.close()


async def test_what_was_missed_while_away_comes_as_the_difference_only(hub: Hub, tmp_path: Path) -> None:
    for i in range(100):
        await hub.edge.put(f"n{i}", {"i": i})
    store = LmdbStore(tmp_path / "s")
    async with running(hub, store) as (r, _, _nc):
        await until(lambda: r.synced)
    for i in range(3):
        await hub.edge.put(f"n{i}", {"i": "changed"})
    await hub.edge.put("n5", None)
    async with running(hub, store) as (r, changes, _nc):
        await until(lambda: r.synced)
        assert r.stats.page_events == 4 and len(changes) == 4
        assert await same(hub, store)
        r.link_down()
        r.link_up()
        await until(lambda: r.stats.answers == 2)
        assert r.stats.page_events == 4
    store.close()


async def test_nothing_that_was_applied_is_held_decoded(hub: Hub) -> None:
    for i in range(50):
        await hub.edge.put(f"held{i}", {"i": i})
    nc = await plain.client(hub.server)
    r = replica.Replica("edge-1", SCOPES, MemoryStore(), on_change=lambda _: None)
    await r.attach(nc)
    task = asyncio.create_task(r.run())
    r.link_up()
    await until(lambda: r.synced)
    assert r.stats.page_events == 50
    gc.collect()
    assert [o.name for o in gc.get_objects() if isinstance(o, event.Event) and o.name.startswith("held")] == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await nc.close()


async def test_a_lost_live_event_is_noticed_by_the_chain(hub: Hub) -> None:
    store = MemoryStore()
    async with running(hub, store) as (r, _, _nc):
        await until(lambda: r.synced)
        await hub.edge.put("a", {"n": 1})
        await until(lambda: r.stats.live_events == 1)
        # The next event is written where this replica can't hear it: without republishing.
        config = (await hub.log.info("META-0")).config
        await hub.log.request("STREAM.UPDATE.META-0", {**config, "republish": None})
        await hub.edge.put("b", {"n": 2})
        await hub.log.request("STREAM.UPDATE.META-0", config)
        await hub.edge.put("c", {"n": 3})
        await until(lambda: r.synced and r.cursors()["edge-1"].seq == hub.edge.head)
        assert await same(hub, store)


async def test_another_epoch_resets_the_scope_and_sweeps(hub: Hub, tmp_path: Path) -> None:
    for i in range(10):
        await hub.edge.put(f"n{i}", {"i": i})
    store = LmdbStore(tmp_path / "s")
    async with running(hub, store) as (r, _, _nc):
        await until(lambda: r.synced)
    await hub.log.request("STREAM.DELETE.META-0")
    await hub.log.request("STREAM.DELETE.CLUSTER")
    await hub.log.request("STREAM.DELETE.REPORT-0")
    await plain.make_streams(hub.log, "epoch-2")
    await asyncio.sleep(2 * sync.INFO_AGE_S_MAX)
    hub.edge.head = 0
    await hub.edge.put("n3", {"i": "new"})
    await hub.edge.put("other", {"i": 1})
    async with running(hub, store) as (r, changes, _nc):
        await until(lambda: r.synced)
        assert r.cursors()["edge-1"] == fold.Cursor("epoch-2", 2)
        assert await same(hub, store)
        gone = sorted(c.fact.key.name for c in changes if c.fact.deleted)
        assert gone == sorted(f"n{i}" for i in range(10) if i != 3)
    store.close()


async def test_many_objects_come_in_pages(hub: Hub, tmp_path: Path) -> None:
    text = "x" * 3000
    head = 0
    for i in range(600):
        ev = plain.make_event(plain.cm(f"n{i}"), {"text": text}, "edge-1", head)
        head = await hub.log.append(subjects.meta("edge-1", plain.cm(f"n{i}"), 1), ev)
    store = LmdbStore(tmp_path / "s")
    async with running(hub, store) as (r, changes, _nc):
        await until(lambda: r.synced)
        assert r.stats.answers >= 4
        assert len(changes) == 600
        assert await same(hub, store)
    store.close()


async def test_a_malformed_and_a_foreign_event_are_refused_and_the_replica_goes_on(hub: Hub) -> None:
    store = MemoryStore()
    async with running(hub, store) as (r, _, _nc):
        await until(lambda: r.synced)
        await hub.edge.put("a", {"n": 1})
        await hub.log.append_bytes(subjects.meta("edge-1", plain.cm("junk"), 1), b"\xc1", "junk")
        foreign = plain.make_event(plain.cm("b"), {}, "edge-2", 0)
        hub.edge.head = await hub.log.append(subjects.meta("edge-1", plain.cm("foreign"), 1), foreign)
        await hub.edge.put("c", {"n": 3})
        await until(lambda: r.synced and r.cursors()["edge-1"].seq == hub.edge.head)
        assert r.stats.refused >= 2
        assert "#" in r.stats.last_refused
        assert await same(hub, store)


async def test_a_foreign_scope_is_refused_by_the_service(hub: Hub) -> None:
    await plain.Writer(hub.log, "edge-2").put("secret", {"s": 1})
    store = MemoryStore()
    nc = await plain.client(hub.server)
    changes: list[replica.Applied] = []
    r = replica.Replica("edge-1", ["edge-2"], store, on_change=changes.extend, answer_timeout_s=1.0)
    await r.attach(nc)
    task = asyncio.create_task(r.run())
    r.link_up()
    await until(lambda: hub.service.refused > 0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await nc.close()
    assert changes == [] and store.count("objects") == 0


async def test_a_full_disk_is_said_and_the_replica_goes_on_when_there_is_room(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "STORE_RETRY_S", 0.05)
    full = False

    def fail(step: str) -> base.StoreError | None:
        return base.StoreFull("the disk is full") if full and step == "commit" else None

    store = FailingStore(MemoryStore(), fail)
    troubles: list[str] = []
    async with running(hub, store) as (r, changes, _nc):
        r._on_trouble = troubles.append
        await until(lambda: r.synced)
        await hub.edge.put("a", {"n": 1})
        await until(lambda: len(changes) == 1)
        full = True
        await hub.edge.put("b", {"n": 2})
        await until(lambda: "the disk is full" in troubles)
        assert len(changes) == 1, "nothing is told that was not stored"
        full = False
        await until(lambda: len(changes) == 2 and r.synced)
        assert troubles[-1] == ""
        assert await same(hub, store)


async def test_kill_9_of_the_node_at_any_instant_resumes_from_the_cursor(hub: Hub, tmp_path: Path) -> None:
    """A child runs the replica on the file and is killed again and again while events come; then the fold must be equal."""
    code = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from bus import replica
        from bus.connect import ConnectSettings, connect
        from bus.stores.lmdb_store import LmdbStore
        async def main():
            store = LmdbStore(Path(sys.argv[2]))
            nc = await connect(ConnectSettings(urls=(sys.argv[1],), name="child"))
            r = replica.Replica("edge-1", ["edge-1", "all"], store, on_change=lambda c: None)
            await r.attach(nc)
            r.link_up()
            print("up", flush=True)
            await r.run()
        asyncio.run(main())
    """)
    done = False

    async def write() -> None:
        i = 0
        while not done:
            await hub.edge.put(f"n{i % 17}", {"i": i} if i % 5 else None)
            await hub.all.put(f"n{i % 7}", {"i": i})
            i += 1
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(write())
    for n in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", code, hub.server.url, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert (await asyncio.to_thread(child.stdout.readline)).strip() == "up"
        await asyncio.sleep(0.05 + 0.13 * n)
        child.kill()
        child.stdout.close()
        child.wait()
        store = LmdbStore(tmp_path / "s")
        cursors = {s: fold.Cursor.from_bytes(store.get("cursors", s.encode())) for s in SCOPES}
        assert await _fold_up_to(hub, cursors) == dict(store.items("objects")), "fold(log up to cursor) == replica"
        store.close()
    done = True
    await writer
    store = LmdbStore(tmp_path / "s")
    async with running(hub, store) as (r, _, _nc):
        await until(lambda: r.synced)
        assert await same(hub, store)
    store.close()


async def _fold_up_to(hub: Hub, cursors: dict[str, fold.Cursor]) -> dict[bytes, bytes]:
    """Only right while nothing older than eight versions is asked for, which the stream keeps: short cycles, many keys."""
    facts = []
    async for batch in hub.log.follow("META-0"):
        for r in batch.records:
            _, scope, key = subjects.parse_meta(r.subject)
            if scope in cursors and r.seq <= cursors[scope].seq:
                facts.append(fold.fact_of(scope, key, r.seq, r.payload))
        if batch.pending == 0:
            break
    return {k: v for k, v in fold.fold(facts).items() if not k.startswith(b"\x01")}
