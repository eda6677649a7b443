"""Conflicting writers through two API servers on one log, and the history checked: each object is a register with
compare-and-set.

Every write names the revision that its server showed.  The checker knows nothing of how servers work: it sees calls with the
order of their starts and ends.  Per object it asks that the writes that took effect form one chain, that the chain agrees
with real time, that a refusal had a reason, and that no server shows a value that nobody wrote or goes back in time.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.kube.storage import Conflict, Origin
from cloud.standalone.storage import ClusterStorage
from tests.contract.bus import plain
from tests.contract.cloud.test_storage import api, obj

pytestmark = pytest.mark.contract

OBJECTS, WRITERS, WRITES = 3, 8, 25
ME = Origin("writer")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[plain.PlainServer]:
    s = plain.PlainServer(tmp_path / "jetstream")
    await s.start()
    yield s
    s.kill()


@dataclass(frozen=True)
class Call:
    """A compare-and-set; ``rev`` is 0 when it was refused.  ``began`` and ``ended`` are ticks of one counter."""

    name: str
    expect: int
    value: str
    began: int
    ended: int
    rev: int = 0


def problems(first: int, calls: list[Call]) -> list[str]:
    """What can't have been one register that held ``first`` at the beginning."""
    out = []
    done = sorted((c for c in calls if c.rev), key=lambda c: c.rev)
    chain = [first, *(c.rev for c in done)]
    out += [f"{c} did not replace {before}" for before, c in zip(chain, done, strict=False) if c.expect != before]
    out += [
        f"{later} began after {earlier} ended"
        for later, earlier in itertools.combinations(done, 2)
        if earlier.ended < later.began
    ]
    successor = {c.expect: c for c in done}
    for c in calls:
        if not c.rev and (c.expect not in successor or successor[c.expect].began > c.ended):
            out.append(f"{c} was refused while its expectation held")
    return out


def test_the_checker_finds_what_is_wrong() -> None:
    good = [Call("a", 1, "x", 0, 1, 2), Call("a", 2, "y", 2, 3, 3), Call("a", 1, "z", 2, 4)]
    assert problems(1, good) == []
    assert problems(1, [Call("a", 1, "x", 0, 1, 2), Call("a", 1, "y", 0, 1, 3)])  # both replaced the same
    assert problems(1, [Call("a", 2, "x", 0, 1, 3), Call("a", 1, "y", 2, 3, 2)])  # the effect came before the call
    assert problems(1, [Call("a", 1, "x", 0, 1)])  # refused, though nobody was faster


async def test_two_servers_are_one_register_per_object(server: plain.PlainServer) -> None:
    tick = itertools.count()
    names = [f"o{i}" for i in range(OBJECTS)]
    calls: dict[str, list[Call]] = {n: [] for n in names}
    async with api(server) as (one, _, _a), api(server) as (two, _, _b):
        first = {n: (await one.create(plain.cm(n), obj(n, v="first"), ME)).rev for n in names}
        await two.cache.wait_for(max(first.values()))

        async def write(writer: int, storage: ClusterStorage, choose: random.Random) -> None:
            for i in range(WRITES):
                name = choose.choice(names)
                seen = storage.get(plain.cm(name))
                assert seen is not None
                value, began = f"{writer}-{i}", next(tick)
                try:
                    rev = (await storage.replace(plain.cm(name), obj(name, v=value), seen.rev, ME)).rev
                except Conflict:
                    rev = 0
                calls[name].append(Call(name, seen.rev, value, began, next(tick), rev))
                now = storage.get(plain.cm(name))
                assert now is not None and now.rev >= max(rev, seen.rev)  # own writes are seen, and nothing goes back

        writers = (write(w, (one, two)[w % 2], random.Random(w)) for w in range(WRITERS))
        await asyncio.gather(*writers)
        for storage in (one, two):
            await storage.cache.wait_for(max(c.rev for cs in calls.values() for c in cs))
        for name in names:
            assert problems(first[name], calls[name]) == []
            last = max(calls[name], key=lambda c: c.rev)
            for storage in (one, two):
                found = storage.get(plain.cm(name))
                assert found is not None and (found.rev, found.object["data"]["v"]) == (last.rev, last.value)
        every = [c for cs in calls.values() for c in cs]
        assert any(c.rev for c in every) and len(every) == WRITERS * WRITES
