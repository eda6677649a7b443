"""The log against a real nats-server: expectations, retries, pages, following through kill -9."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bus import log
from schemas import codec, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract


@pytest.fixture
async def store(server: plain.PlainServer) -> AsyncIterator[log.Log]:
    nc = await plain.client(server)
    store = log.Log(nc)
    await plain.make_streams(store)
    yield store
    await store.close()
    await nc.close()


def where(name: str) -> str:
    return subjects.cluster(plain.cm(name))


async def collect(store: log.Log, count: int, after: int = 0, **kw: bool) -> list[log.Recorded]:
    got: list[log.Recorded] = []
    async for batch in store.follow("CLUSTER", after=after, **kw):
        got.extend(batch.records)
        if len(got) >= count:
            return got
    raise AssertionError


async def test_create_means_that_nothing_was_there(store: log.Log) -> None:
    first = plain.make_event(plain.cm("a"), {"n": 1})
    assert await store.append(where("a"), first, expect=log.Expect(0)) == 1
    with pytest.raises(log.WrongSequence, match="cluster.core.configmaps.default.a"):
        await store.append(where("a"), plain.make_event(plain.cm("a"), {"n": 2}), expect=log.Expect(0))


async def test_an_append_whose_acknowledgement_was_lost_can_be_repeated(store: log.Log) -> None:
    ev = plain.make_event(plain.cm("a"), {"n": 1})
    assert await store.append(where("a"), ev, expect=log.Expect(0)) == 1
    assert await store.append(where("a"), ev, expect=log.Expect(0)) == 1
    assert (await store.info("CLUSTER")).messages == 1


async def test_a_subject_that_no_stream_takes_is_unavailable(store: log.Log) -> None:
    with pytest.raises(log.LogUnavailable, match="nowhere"):
        await store.append_bytes("nowhere.at.all", b"x", "id")


async def test_an_event_too_large_for_the_server_says_so(store: log.Log) -> None:
    with pytest.raises(log.EventTooLarge):
        await store.append_bytes(where("big"), b"x" * (2 << 20), "id")


async def test_last_is_state_not_history_and_complete_up_to(store: log.Log) -> None:
    for n in range(3):
        for name in "abc":
            await store.append(where(name), plain.make_event(plain.cm(name), {"n": n}))
    state = await store.last("CLUSTER", ["cluster.>"])
    assert [r.seq for r in state.records] == [7, 8, 9] and state.up_to == 9 and not state.more
    since = await store.last("CLUSTER", ["cluster.>"], after=8)
    assert [r.seq for r in since.records] == [9]
    assert (await store.last("CLUSTER", ["cluster.>"], after=9)).records == []
    assert (await store.last("CLUSTER", ["cluster.core.nothing.>"])).records == []


async def test_last_comes_in_pages_when_there_is_much(store: log.Log) -> None:
    total = log.DIRECT_KEYS_MAX + 300
    await asyncio.gather(
        *(store.append(where(f"n{i}"), plain.make_event(plain.cm(f"n{i}"), {"i": i})) for i in range(total))
    )
    seen: dict[str, int] = {}
    after, pages = 0, 0
    while True:
        page = await store.last("CLUSTER", ["cluster.>"], after=after, bytes_max=64 << 10)
        seen |= {r.subject: r.seq for r in page.records}
        assert page.up_to > after
        after, pages = page.up_to, pages + 1
        if not page.more:
            break
    assert len(seen) == total and pages > 2 and after == total


async def test_follow_goes_on_through_kill_9_of_the_server(store: log.Log, server: plain.PlainServer) -> None:
    got: list[int] = []

    async def follow() -> None:
        async for batch in store.follow("CLUSTER"):
            got.extend(r.seq for r in batch.records)
            if got and got[-1] == 60:
                return

    task = asyncio.create_task(follow())
    for i in range(30):
        await store.append(where(f"n{i}"), plain.make_event(plain.cm(f"n{i}"), {"i": i}))
    await asyncio.sleep(0.2)
    server.kill()
    await server.start()
    i = 30
    while i < 60:
        try:
            await store.append(where(f"n{i}"), plain.make_event(plain.cm(f"n{i}"), {"i": i}), expect=log.Expect(0))
            i += 1
        except (log.LogUnavailable, log.WrongSequence):
            await asyncio.sleep(0.05)
    await asyncio.wait_for(task, 60)
    assert got == list(range(1, 61))


async def test_follow_last_per_subject_begins_with_the_state(store: log.Log) -> None:
    for n in range(4):
        await store.append(where("a"), plain.make_event(plain.cm("a"), {"n": n}))
        await store.append(where("b"), plain.make_event(plain.cm("b"), {"n": n}))
    got = await collect(store, 2, last_per_subject=True)
    assert [r.seq for r in got] == [7, 8]


async def test_follow_tells_when_nothing_is_pending(store: log.Log) -> None:
    async for batch in store.follow("CLUSTER"):
        assert batch.records == [] and batch.pending == 0
        break


async def test_follow_notices_that_the_stream_is_another(store: log.Log, server: plain.PlainServer) -> None:
    for n in range(5):
        await store.append(where("a"), plain.make_event(plain.cm("a"), {"n": n}))
    await store.request("STREAM.DELETE.CLUSTER")
    await store.request("STREAM.CREATE.CLUSTER", {"name": "CLUSTER", "subjects": ["cluster.>"], "allow_direct": True})
    with pytest.raises(log.EpochChanged):
        async for _ in store.follow("CLUSTER", after=5, epoch="epoch-1"):
            pass


async def test_a_record_that_is_no_event_or_a_foreign_one_is_refused_with_subject_and_sequence(store: log.Log) -> None:
    await store.append_bytes(where("junk"), b"\xc1junk", "j")
    await store.append(where("a"), plain.make_event(plain.cm("b"), {}))
    junk, foreign = await collect(store, 2)
    with pytest.raises(codec.DecodeError, match=r"CLUSTER #1 cluster\.core\.configmaps\.default\.junk"):
        junk.event()
    with pytest.raises(log.ForeignEvent, match=r"CLUSTER #2.*default/b.*default\.a"):
        foreign.event()
