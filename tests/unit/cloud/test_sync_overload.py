"""A sync service with more questions than it can answer at once."""

from __future__ import annotations

import asyncio
from typing import Any

from nats.aio.msg import Msg

from bus import log
from bus.connect import Subscribed
from cloud import sync as service
from schemas import codec, subjects, sync

EPOCH = "e"


class SlowLog:
    """Answers when ``go`` is set; counts what it was asked."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[str] = []

    async def info(self, stream: str) -> log.StreamInfo:
        return log.StreamInfo(stream, EPOCH, 0, 1, 7, 7, 100)

    async def last(self, stream: str, filters: list[str], *, after: int = 0, bytes_max: int | None = None) -> log.LastState:
        self.asked.append(filters[0])
        await self.go.wait()
        return log.LastState([], 7)


class Wire:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.take: Any = None

    async def subscribe(self, subject: str, callback: Any, *, queue: str = "") -> Subscribed:
        self.take = callback

        class Ended:
            async def unsubscribe(self) -> None:
                pass

        return Ended()  # type: ignore[return-value]

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        assert codec.decode_as(sync.SyncAnswer, payload).status == "ok"
        self.sent.append(subject)

    async def ask(self, node: str, nonce: str) -> None:
        request = sync.SyncRequest(scopes=[sync.ScopeCursor(scope=node, epoch=EPOCH, cursor=3)])
        await self.take(Msg(_client=None, subject=subjects.sync_request(node, nonce), data=codec.encode(request)))  # type: ignore[arg-type]


async def test_a_question_that_its_node_has_asked_anew_is_not_read_from_the_log() -> None:
    wire, slow = Wire(), SlowLog()
    made = service.SyncService(wire, slow, shards=1)  # type: ignore[arg-type]
    await made.start()
    for n in range(service.CONCURRENT_MAX):
        await wire.ask(f"busy-{n}", "1")
    for nonce in ("1", "2", "3"):
        await wire.ask("edge-1", nonce)
    await wire.ask("edge-2", "1")
    await asyncio.sleep(0)
    slow.go.set()
    async with asyncio.timeout(10):
        while len(wire.sent) < service.CONCURRENT_MAX + 2:
            await asyncio.sleep(0)
    await made.stop()
    assert [s for s in wire.sent if "busy" not in s] == ["answer.edge-1.3", "answer.edge-2.1"]
    assert slow.asked.count(subjects.meta_scope("edge-1", 1)) == 1
    assert (made.overtaken, made.answered, made._newest) == (2, service.CONCURRENT_MAX + 2, {})


async def test_a_node_that_asks_again_after_its_answer_is_answered_again() -> None:
    wire, slow = Wire(), SlowLog()
    slow.go.set()
    made = service.SyncService(wire, slow, shards=1)  # type: ignore[arg-type]
    await made.start()
    for nonce in ("1", "2"):
        await wire.ask("edge-1", nonce)
        async with asyncio.timeout(10):
            while f"answer.edge-1.{nonce}" not in wire.sent:
                await asyncio.sleep(0)
    await made.stop()
    assert made.overtaken == 0
