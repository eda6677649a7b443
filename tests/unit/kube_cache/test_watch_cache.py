"""The watch cache against the plainest model of it: a list of all changes."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube.cache import WatchCache
from bus.kube.storage import Change, Expired
from schemas.subjects import ObjectKey


def key(name: str, namespace: str = "a", resource: str = "pods") -> ObjectKey:
    return ObjectKey("", resource, namespace, name)


async def take(cache: WatchCache, count: int, after: int, namespace: str | None = None) -> list[Change]:
    out: list[Change] = []
    async with aclosing(cache.watch("", "pods", namespace, after=after)) as changes:
        async for change in changes:
            out.append(change)
            if len(out) == count:
                break
    return out


def said(changes: list[Change]) -> list[tuple[str, int, str]]:
    return [(c.type, c.rev, c.stored.key.name if c.stored else "") for c in changes]


def test_get_and_sorted_list() -> None:
    c = WatchCache()
    for rev, (ns, name) in enumerate([("b", "z"), ("a", "y"), ("a", "x"), ("b", "a")], 1):
        c.apply(rev, key(name, ns), {"n": name})
    assert [(s.key.namespace, s.key.name) for s in c.list("", "pods")] == [("a", "x"), ("a", "y"), ("b", "a"), ("b", "z")]
    assert [s.key.name for s in c.list("", "pods", "a")] == ["x", "y"]
    assert c.list("", "pods", "nowhere") == [] and c.list("", "nodes") == []
    got = c.get(key("x"))
    assert got is not None and (got.rev, got.object) == (3, {"n": "x"})
    assert c.revision() == 4


def test_apply_is_idempotent_by_revision_and_deletion_keeps_the_last_state() -> None:
    c = WatchCache()
    assert c.apply(5, key("x"), {"v": 1}, "id1", "t1") is not None
    assert c.apply(5, key("x"), {"v": 2}) is None
    assert c.apply(4, key("y"), {"v": 2}) is None
    change = c.apply(6, key("x"), None, "id2", "t1")
    assert change is not None and change.stored is not None and change.old is not None
    assert (change.type, change.stored.rev, change.stored.object, change.old.rev) == ("DELETED", 6, {"v": 1}, 5)
    assert c.get(key("x")) is None
    assert c.apply(7, key("never"), None) is None
    assert c.revision() == 7


async def test_watch_replays_and_goes_on_live() -> None:
    c = WatchCache()
    c.apply(1, key("x"), {})
    c.apply(2, key("x"), {"v": 2})
    c.apply(3, key("n", "", "nodes"), {})
    task = asyncio.create_task(take(c, 3, after=1))
    await asyncio.sleep(0)
    c.apply(4, key("y", "b"), {})
    c.apply(5, key("x"), None)
    assert said(await task) == [("MODIFIED", 2, "x"), ("ADDED", 4, "y"), ("DELETED", 5, "x")]


async def test_watch_of_a_namespace_hears_only_it() -> None:
    c = WatchCache()
    task = asyncio.create_task(take(c, 1, after=0, namespace="b"))
    await asyncio.sleep(0)
    c.apply(1, key("x", "a"), {})
    c.apply(2, key("y", "b"), {})
    assert said(await task) == [("ADDED", 2, "y")]


async def test_slow_watcher_is_expired_and_hurts_nobody() -> None:
    c = WatchCache(buffer_changes_max=3)
    async with aclosing(c.watch("", "pods", after=0)) as slow:
        first = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0)
        c.apply(1, key("x1"), {})
        assert (await first).rev == 1
        quick = asyncio.create_task(take(c, 5, after=1))
        await asyncio.sleep(0)
        for rev in range(2, 7):
            c.apply(rev, key(f"x{rev}"), {})
            await asyncio.sleep(0)
        assert [c.rev for c in await quick] == [2, 3, 4, 5, 6]
        with pytest.raises(Expired):
            await anext(slow)


async def test_expired_below_the_ring_per_resource() -> None:
    c = WatchCache(ring_changes_max=2)
    c.apply(1, key("n", "", "nodes"), {})
    for rev in range(2, 6):
        c.apply(rev, key("x"), {"v": rev})
    with pytest.raises(Expired):
        await take(c, 1, after=2)
    assert said(await take(c, 2, after=3)) == [("MODIFIED", 4, "x"), ("MODIFIED", 5, "x")]
    async with aclosing(c.watch("", "nodes", after=0)) as nodes:
        assert (await anext(nodes)).rev == 1


async def test_begin_makes_the_first_fold_unwatchable_but_listable() -> None:
    c = WatchCache()
    c.apply(3, key("x"), {})
    c.apply(9, key("y"), {})
    c.begin(10)
    assert c.revision() == 10 and len(c.list("", "pods")) == 2
    for resource in ("pods", "nodes"):
        with pytest.raises(Expired):
            async with aclosing(c.watch("", resource, after=9)) as w:
                await anext(w)
    task = asyncio.create_task(take(c, 1, after=10))
    await asyncio.sleep(0)
    c.apply(11, key("z"), {})
    assert said(await task) == [("ADDED", 11, "z")]


async def test_reset_expires_watchers_and_replaces_everything() -> None:
    c = WatchCache()
    c.apply(1, key("x"), {})
    kept = c.get(key("x"))
    assert kept is not None
    c.apply(2, key("y"), {})
    async with aclosing(c.watch("", "pods", after=2)) as w:
        waiting = asyncio.ensure_future(anext(w))
        await asyncio.sleep(0)
        c.reset(1, [kept])
        with pytest.raises(Expired):
            await waiting
    assert [s.key.name for s in c.list("", "pods")] == ["x"] and c.revision() == 1


async def test_bookmark_when_idle_tells_the_revision() -> None:
    c = WatchCache(bookmark_s=0.01)
    c.apply(1, key("n", "", "nodes"), {})
    (mark,) = await take(c, 1, after=0)
    assert (mark.type, mark.rev, mark.stored) == ("BOOKMARK", 1, None)


async def test_wait_for() -> None:
    c = WatchCache()
    await c.wait_for(0)
    waiting = [asyncio.ensure_future(c.wait_for(n)) for n in (3, 1, 2)]
    await asyncio.sleep(0)
    c.apply(1, key("x"), {})
    c.advance(2)
    await asyncio.sleep(0)
    assert [w.done() for w in waiting] == [False, True, True]
    c.apply(3, key("x"), None)
    await asyncio.gather(*waiting)


async def test_a_closed_watch_leaves_nothing_behind() -> None:
    c = WatchCache()
    c.apply(1, key("x"), {})
    await take(c, 1, after=0)
    assert not c._buckets["", "pods"].watchers


writes = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), max_size=40)


@given(writes, st.integers(1, 10))
def test_list_at_any_revision_is_what_was_listed_then(ops: list[tuple[str, str, bool]], ring: int) -> None:
    c = WatchCache(ring_changes_max=ring)
    seen: dict[int, list[tuple[str, str, int]]] = {0: []}
    for rev, (ns, name, gone) in enumerate(ops, 1):
        c.apply(rev, key(name, ns), None if gone else {"v": rev})
        seen[rev] = [(s.key.namespace, s.key.name, s.rev) for s in c.list("", "pods")]
    for rev, want in seen.items():
        for namespace in (None, "a"):
            try:
                got = list(c.at("", "pods", namespace, rev).walk())
            except Expired:
                assert rev < len(ops)  # the present is never expired
                continue
            assert [(s.key.namespace, s.key.name, s.rev) for s in got] == [
                w for w in want if namespace is None or w[0] == namespace
            ]


@given(writes, st.integers(0, 40))
def test_a_watch_from_any_revision_folds_to_the_present(ops: list[tuple[str, str, bool]], start: int) -> None:
    async def run() -> None:
        c = WatchCache()
        state: dict[tuple[str, str], int] = {}
        for rev, (ns, name, gone) in enumerate(ops, 1):
            if rev == start + 1:
                state = {(s.key.namespace, s.key.name): s.rev for s in c.list("", "pods")}
            c.apply(rev, key(name, ns), None if gone else {"v": rev})
        if start >= len(ops):
            return
        c.apply(len(ops) + 1, key("end"), {})
        async with aclosing(c.watch("", "pods", after=start)) as changes:
            async for change in changes:
                assert change.stored is not None
                at = (change.stored.key.namespace, change.stored.key.name)
                if change.type == "DELETED":
                    del state[at]
                else:
                    assert (change.type == "ADDED") == (at not in state)
                    state[at] = change.rev
                if change.rev == len(ops) + 1:
                    break
        assert state == {(s.key.namespace, s.key.name): s.rev for s in c.list("", "pods")}

    asyncio.run(run())


class Counted(dict[str, Any]):
    """A namespace's objects, with how many were looked at."""

    reads = 0

    def __getitem__(self, name: str) -> Any:
        Counted.reads += 1
        return super().__getitem__(name)


@pytest.mark.parametrize("namespace", [None, "b"])
def test_a_page_costs_what_is_on_it(namespace: str | None) -> None:
    c, each, limit = WatchCache(), 2_000, 50
    for i in range(each):
        for j, space in enumerate("abc"):
            c.apply(1 + 3 * i + j, key(f"n{i:04}", space), {})
    first = c.revision()
    for i in range(0, each, 100):  # what comes, changes and goes while somebody reads page by page
        c.apply(c.revision() + 1, key(f"m{i}", "b"), {})
        c.apply(c.revision() + 1, key(f"n{i:04}", "b"), {"new": True})
        c.apply(c.revision() + 1, key(f"n{i + 1:04}", "b"), None)
    objects = c._buckets["", "pods"].objects
    for space in "abc":
        objects.namespaces[space] = Counted(objects.namespaces[space])
    Counted.reads, seen, after = 0, list[Any](), ("", "")
    total = each * (1 if namespace else 3)
    while True:
        snapshot = c.at("", "pods", namespace, first)
        page = list(itertools.islice(snapshot.walk(after), limit))
        if not page:
            break
        seen += page
        after = (page[-1].key.namespace, page[-1].key.name)
        assert snapshot.count(after) == total - len(seen)
    assert [s.rev for s in seen] == [s.rev for s in sorted(seen, key=lambda s: (s.key.namespace, s.key.name))]
    assert len(seen) == total and all(s.rev <= first for s in seen)
    assert Counted.reads <= total + 2 * (total // limit) + 100  # each once, not once a page


@given(writes)
def test_order_is_kept_while_things_come_and_go(ops: list[tuple[str, str, bool]]) -> None:
    c = WatchCache()
    for rev, (ns, name, gone) in enumerate(ops, 1):
        c.apply(rev, key(name, ns), None if gone else {"v": rev})
        for namespace in (None, "a"):
            listed = [(s.key.namespace, s.key.name) for s in c.list("", "pods", namespace)]
            assert listed == sorted(set(listed))
            assert c.at("", "pods", namespace, rev).count(("", "")) == len(listed)
