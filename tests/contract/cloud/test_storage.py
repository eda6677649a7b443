"""The standalone API's storage on a real stream: races, lost acknowledgements, two servers, kill -9 of the hub."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import log
from bus.connect import Connection
from bus.kube.storage import AlreadyExists, Conflict, Expired, Origin, TooLarge
from cloud.standalone.storage import ClusterStorage
from schemas import subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract
ME = Origin("admin")


def obj(name: str, **data: object) -> dict[str, object]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "uid": f"uid-{name}"}, "data": data}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[plain.PlainServer]:
    s = plain.PlainServer(tmp_path / "jetstream")
    await s.start()
    yield s
    s.kill()


@contextlib.asynccontextmanager
async def api(server: plain.PlainServer) -> AsyncIterator[tuple[ClusterStorage, log.Log, Connection]]:
    nc = await plain.client(server)
    store = log.Log(nc)
    storage = ClusterStorage(store)
    with contextlib.suppress(log.LogError):
        await plain.make_streams(store)
    await storage.start()
    try:
        yield storage, store, nc
    finally:
        await storage.stop()
        await store.close()
        await nc.close()


@contextlib.asynccontextmanager
async def writer(server: plain.PlainServer, epoch: str) -> AsyncIterator[log.Log]:
    """The log alone, with streams of an epoch."""
    nc = await plain.client(server)
    store = log.Log(nc)
    await plain.make_streams(store, epoch)
    try:
        yield store
    finally:
        await store.close()
        await nc.close()


async def test_crud_and_one_reads_ones_own_writes(server: plain.PlainServer) -> None:
    async with api(server) as (s, _, _nc):
        made = await s.create(plain.cm("a"), obj("a", n=1), ME)
        assert s.get(plain.cm("a")) == made and made.rev == 1
        with pytest.raises(AlreadyExists):
            await s.create(plain.cm("a"), obj("a", n=2), ME)
        changed = await s.replace(plain.cm("a"), obj("a", n=2), made.rev, ME)
        with pytest.raises(Conflict) as e:
            await s.replace(plain.cm("a"), obj("a", n=3), made.rev, ME)
        assert e.value.current == changed.rev
        gone = await s.delete(plain.cm("a"), changed.rev, ME)
        assert s.get(plain.cm("a")) is None and gone.object["data"] == {"n": 2}
        again = await s.create(plain.cm("a"), obj("a", n=4), ME)
        assert again.rev == 4


async def test_two_servers_on_one_log_agree_and_only_one_of_two_writers_wins(server: plain.PlainServer) -> None:
    async with api(server) as (one, _, _a), api(server) as (two, _, _b):
        made = await one.create(plain.cm("a"), obj("a"), ME)
        await two.cache.wait_for(made.rev)
        both = await asyncio.gather(
            one.replace(plain.cm("a"), obj("a", by="one"), made.rev, ME),
            two.replace(plain.cm("a"), obj("a", by="two"), made.rev, ME),
            return_exceptions=True,
        )
        assert sorted(type(x).__name__ for x in both) == ["Conflict", "Stored"]
        creates = await asyncio.gather(
            one.create(plain.cm("b"), obj("b"), ME), two.create(plain.cm("b"), obj("b"), ME), return_exceptions=True
        )
        assert sorted(type(x).__name__ for x in creates) == ["AlreadyExists", "Stored"]
        await two.cache.wait_for(one.revision())
        assert one.list("", "configmaps") == two.list("", "configmaps")


async def test_deleted_by_another_server_and_made_again_here(server: plain.PlainServer) -> None:
    async with api(server) as (one, _, _a), api(server) as (two, _, _b):
        made = await one.create(plain.cm("a"), obj("a"), ME)
        await two.cache.wait_for(made.rev)
        await two.delete(plain.cm("a"), made.rev, ME)
        with contextlib.suppress(AlreadyExists):  # one may not have seen the deletion yet: that is an honest answer
            await one.create(plain.cm("a"), obj("a"), ME)
        await one.cache.wait_for(2)
        if one.get(plain.cm("a")) is None:
            await one.create(plain.cm("a"), obj("a"), ME)
        assert one.get(plain.cm("a")) is not None


async def test_a_watch_begins_at_a_list_and_older_revisions_are_expired_after_a_restart(server: plain.PlainServer) -> None:
    async with api(server) as (s, _, _nc):
        await s.create(plain.cm("a"), obj("a"), ME)
        await s.create(plain.cm("b"), obj("b"), ME)
    async with api(server) as (s, _, _nc):
        assert s.revision() == 2 and len(s.list("", "configmaps")) == 2
        watch = s.watch("", "configmaps", after=s.revision())
        await s.create(plain.cm("c"), obj("c"), ME)
        change = await anext(watch)
        assert change.type == "ADDED" and change.stored is not None and change.stored.key.name == "c"
        await watch.aclose()  # type: ignore[attr-defined]
        with pytest.raises(Expired):
            await anext(s.watch("", "configmaps", after=1))


async def test_an_object_too_large_for_an_event_is_refused_and_nothing_stored(server: plain.PlainServer) -> None:
    async with api(server) as (s, store, _nc):
        with pytest.raises(TooLarge):
            await s.create(plain.cm("big"), obj("big", text="x" * (2 << 20)), ME)
        assert (await store.info("CLUSTER")).messages == 0


async def test_a_foreign_event_in_the_log_is_refused_counted_and_passed(server: plain.PlainServer) -> None:
    async with api(server) as (s, store, _nc):
        await store.append(subjects.cluster(plain.cm("a")), plain.make_event(plain.cm("b"), {}))
        await store.append_bytes(subjects.cluster(plain.cm("c")), b"\xc1", "junk")
        made = await s.create(plain.cm("d"), obj("d"), ME)
        assert made.rev == 3 and s.refused == 2
        assert [x.key.name for x in s.list("", "configmaps")] == ["d"]


async def test_it_goes_on_after_kill_9_of_the_hub(server: plain.PlainServer) -> None:
    async with api(server) as (s, _, _nc):
        await s.create(plain.cm("a"), obj("a"), ME)
        server.kill()
        await server.start()
        made = None
        async with asyncio.timeout(30):
            while made is None:
                try:
                    made = await s.create(plain.cm("b"), obj("b"), ME)
                except AlreadyExists:
                    made = s.get(plain.cm("b"))
                except Exception as e:
                    if type(e).__name__ != "Unavailable":
                        raise
        assert [x.key.name for x in s.list("", "configmaps")] == ["a", "b"]


async def test_a_hub_that_was_restored_is_read_whole_before_anybody_sees_it(
    tmp_path: Path, server: plain.PlainServer
) -> None:
    """Half a state has objects without their owners: a garbage collector would delete what is only not read yet."""
    backup = plain.PlainServer(tmp_path / "backup")
    await backup.start()
    async with writer(backup, "epoch-2") as store:
        for n in range(1500):  # more than the log hands over at once
            key = plain.cm(f"c-{n:04}")
            await store.append(subjects.cluster(key), plain.make_event(key, obj(key.name)))
        await store.append(subjects.cluster(key), plain.make_event(key, None))
    backup.kill()
    async with api(server) as (s, _, _nc):
        await s.create(plain.cm("a"), obj("a"), ME)
        watch = s.watch("", "configmaps", after=s.revision())
        server.kill()
        server.folder = backup.folder
        await server.start()
        async with asyncio.timeout(30):
            with pytest.raises(Expired):
                while True:
                    assert (await anext(watch)).type == "BOOKMARK"
        assert len(s.list("", "configmaps")) == 1499 and s.revision() == 1501
        assert (await s.create(key, obj("again"), ME)).rev == 1502, "its tombstone is known"
