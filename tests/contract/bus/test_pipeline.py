"""Appends in a window on a real server: each answered once, whatever happens to the server, the link or a callback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from bus import log, pipeline
from bus.connect import Connection
from schemas import codec, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract


class Writing:
    """Appends, and what was answered to each."""

    def __init__(self, store: log.Log, server: plain.PlainServer, connection: Connection) -> None:
        self.log, self.server = store, server
        self.pipeline = pipeline.Pipeline(connection, timeout_s=3.0)
        self.answers: dict[str, list[pipeline.Outcome]] = {}

    def put(self, scope: str, n: int = 0, prev: int = 0, size: int = 10) -> str:
        ev = plain.make_event(plain.cm(f"c{n}"), {"text": "x" * size}, scope, prev)
        self.answers[ev.id] = []
        subject, expect = subjects.meta(scope, ev.key, 1), log.Expect(prev, subjects.meta_scope(scope, 1))
        done = functools.partial(self._done, ev.id)
        self.pipeline.append(subject, codec.encode_event(ev), ev.id, done, expect=expect, epoch="epoch-1")
        return ev.id

    def _done(self, ident: str, outcome: pipeline.Outcome) -> None:
        self.answers[ident].append(outcome)

    async def answered(self) -> None:
        async with asyncio.timeout(60):
            while self.pipeline.open or not all(self.answers.values()):
                await asyncio.sleep(0.02)
        assert {len(a) for a in self.answers.values()} == {1}, "each is answered once"

    async def stored(self) -> Counter[str]:
        """How often each event is in the log."""
        found: Counter[str] = Counter()
        async with asyncio.timeout(60), contextlib.aclosing(self.log.follow("META-0")) as batches:
            async for batch in batches:
                found.update(r.event().id for r in batch.records)
                if batch.pending == 0:
                    return found
        raise AssertionError


@pytest.fixture
async def writing(server: plain.PlainServer) -> AsyncIterator[Writing]:
    connection = await plain.client(server)
    store = log.Log(connection)
    await plain.make_streams(store)
    made = Writing(store, server, connection)
    running = asyncio.create_task(made.pipeline.run())
    yield made
    assert not running.done()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await store.close()
    await connection.close()


async def test_many_at_once_and_one_after_the_other(writing: Writing) -> None:
    ids = [writing.put(f"edge-{n}") for n in range(1000)]
    await writing.answered()
    assert sorted(s for i in ids for s in writing.answers[i] if isinstance(s, int)) == list(range(1, 1001))
    assert writing.pipeline.stats == pipeline.PipelineStats(appended=1000)
    records = (await writing.log.last("META-0", [subjects.meta_scope("edge-7", 1)])).records
    assert [(r.headers or {})[log.EPOCH_HEADER] for r in records] == ["epoch-1"]
    head = 0
    for n in range(20):  # a chain waits for each answer
        ident = writing.put("chain", n, head)
        await writing.answered()
        (outcome,) = writing.answers[ident]
        assert isinstance(outcome, int) and outcome > head
        head = outcome


async def test_what_the_server_refuses_is_told_apart(writing: Writing) -> None:
    first = writing.put("edge-1")
    await writing.answered()
    stale = writing.put("edge-1", 1, prev=0)
    envelope = len(codec.encode_event(plain.make_event(plain.cm("c0"), {"text": ""}, "edge-2", 0)))
    large = writing.put("edge-2", size=(1 << 20) - envelope - 100)  # it fits, but not with its headers
    other = writing.put("edge-3")
    nowhere: list[pipeline.Outcome] = []
    writing.pipeline.append("nowhere.at.all", b"x", "id", nowhere.append)
    await writing.answered()
    ends = [type(writing.answers[i][0]) for i in (first, stale, large, other)]
    assert ends == [int, log.WrongSequence, log.EventTooLarge, int]
    assert [type(x) for x in nowhere] == [log.LogUnavailable]
    with pytest.raises(ValueError, match="line break"):
        writing.pipeline.append("meta.0.x", b"x", "id\r\nNats-Rollup: all", nowhere.append)


async def test_a_callback_that_raises_hurts_nobody_else(writing: Writing) -> None:
    def bad(_: pipeline.Outcome) -> None:
        raise RuntimeError("a bug")

    for n in range(100):
        writing.put(f"edge-{n}")
        writing.pipeline.append(subjects.meta(f"bad-{n}", plain.cm("c"), 1), b"x", f"bad-{n}", bad)
    await writing.answered()
    assert writing.pipeline.stats.raised == 100
    # also among those that are overdue
    assert writing.server.process is not None
    writing.server.process.send_signal(signal.SIGSTOP)
    try:
        for n in range(100, 150):
            writing.pipeline.append(subjects.meta(f"bad-{n}", plain.cm("c"), 1), b"x", f"bad-{n}", bad)
            writing.put(f"edge-{n}")
        await writing.answered()
    finally:
        writing.server.process.send_signal(signal.SIGCONT)
    assert writing.pipeline.stats.raised == 150


async def test_a_server_that_hangs_is_waited_for_no_longer_than_said_and_works_again(writing: Writing) -> None:
    assert writing.server.process is not None
    os.kill(writing.server.process.pid, signal.SIGSTOP)
    try:
        hung = [writing.put(f"edge-{n}") for n in range(300)]
        await writing.answered()
    finally:
        os.kill(writing.server.process.pid, signal.SIGCONT)
    assert all(isinstance(writing.answers[i][0], log.LogUnavailable) for i in hung)
    async with asyncio.timeout(60):
        while True:
            ident = writing.put("afterwards", prev=0)
            await writing.answered()
            if not isinstance(writing.answers[ident][0], log.LogUnavailable):
                break
    again = {i: n for n, i in enumerate(hung)}
    stored = await writing.stored()
    assert all(count == 1 for count in stored.values())
    assert set(stored) <= set(again) | set(writing.answers), "what came late is there once, and nothing else"


async def test_kill_9_of_the_server_in_the_midst_loses_and_doubles_nothing(writing: Writing) -> None:
    """Whatever was acknowledged is there once; whatever was not is there once or not at all."""
    made = 0
    for _ in range(3):
        for _ in range(400):
            writing.put(f"edge-{made}")
            made += 1
        await asyncio.sleep(0)  # what is on its way then, is
        writing.server.kill()
        await writing.server.start()
        await writing.answered()
    stored = await writing.stored()
    assert all(count == 1 for count in stored.values())
    acknowledged = {i for i, a in writing.answers.items() if isinstance(a[0], int)}
    assert acknowledged <= set(stored)
