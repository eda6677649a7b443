"""The publisher with a mapper's rights on a real leaf: a full buffer, no stream, a dead server, a long silence."""

from __future__ import annotations

import asyncio

import pytest

from bus.connect import Connection
from bus.publisher import Publisher, PublisherSettings
from tests.contract.mappers import node
from tests.contract.mappers.leaf import Leaf

pytestmark = pytest.mark.contract
SUBJECT = "telemetry.edge-1.d.p"


def offer(publisher: Publisher, first: int, last: int) -> None:
    for i in range(first, last + 1):
        publisher.offer(SUBJECT, str(i).encode(), f"id-{i}")


async def numbers(connection: Connection) -> list[int]:
    return [int(data) for _, data in await node.stored(connection)]


async def test_a_burst_far_above_the_window_is_stored_whole_and_in_order(
    connection: Connection, watcher: Connection
) -> None:
    await node.make_telemetry(watcher)
    publisher = Publisher(connection, PublisherSettings(window=50, buffer=5000))
    async with node.running(publisher.run()):
        offer(publisher, 1, 1000)
        assert await publisher.flush(30) == 0
    assert await numbers(watcher) == list(range(1, 1001))
    assert (publisher.stats.acked, publisher.stats.resent, publisher.stats.dropped) == (1000, 0, 0)


async def test_without_a_stream_it_waits_and_a_full_buffer_drops_the_oldest(
    connection: Connection, watcher: Connection
) -> None:
    publisher = Publisher(connection, PublisherSettings(window=5, buffer=20))
    async with node.running(publisher.run()):
        offer(publisher, 1, 100)
        assert (publisher.unacknowledged, publisher.stats.dropped) == (20, 80)
        assert await publisher.flush(0.5) == 20
        await node.make_telemetry(watcher)
        assert await publisher.flush(30) == 0
    assert await numbers(watcher) == list(range(81, 101))


async def test_a_bound_on_bytes(connection: Connection) -> None:
    publisher = Publisher(connection, PublisherSettings(window=5, buffer=1000, buffer_bytes=1000))
    for i in range(30):
        publisher.offer(SUBJECT, b"x" * 100, f"id-{i}")
    assert (publisher.unacknowledged, publisher.stats.dropped) == (10, 20)


async def test_killed_servers_lose_nothing_and_double_nothing(
    server: Leaf, connection: Connection, watcher: Connection
) -> None:
    await node.make_telemetry(watcher)
    publisher = Publisher(connection, PublisherSettings(window=100, buffer=50_000))
    sent = 0
    async with node.running(publisher.run()):
        for _ in range(4):
            offer(publisher, sent + 1, sent + 2000)
            sent += 2000
            await node.until("on its way", lambda: 100 < publisher.unacknowledged < 1900)
            server.kill()
            await server.start()
        assert await publisher.flush(30) == 0
    await node.until("connected again", lambda: watcher.connected)
    assert await numbers(watcher) == list(range(1, sent + 1))
    assert publisher.stats.resent > 0


async def test_after_the_duplicate_window_the_stream_is_asked(
    server: Leaf, connection: Connection, watcher: Connection
) -> None:
    """The stream forgets message ids after 100 ms here; a window of acknowledgements gets lost, as with a connection."""
    await node.make_telemetry(watcher, duplicate_window=100_000_000)
    publisher = Publisher(connection, PublisherSettings(window=200, buffer=5000, settle_after_s=0.0, ack_timeout_s=0.5))
    lost = False
    on_ack = publisher._on_ack

    async def lossy(msg: object) -> None:
        if not lost:
            await on_ack(msg)  # type: ignore[arg-type]

    publisher._on_ack = lossy  # type: ignore[method-assign, assignment]
    async with node.running(publisher.run()):
        offer(publisher, 1, 300)
        await publisher.flush(30)
        lost = True  # the first 200 are stored, but the publisher doesn't hear of it
        offer(publisher, 301, 600)
        while (await watcher.client.jetstream().stream_info("TELEMETRY")).state.messages < 500:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        lost = False
        assert await publisher.flush(30) == 0
    assert await numbers(watcher) == list(range(1, 601))
    assert publisher.stats.duplicates >= 200


async def test_what_the_stream_never_takes_is_refused_and_said(connection: Connection, watcher: Connection) -> None:
    await node.make_telemetry(watcher, max_msg_size=1000)
    publisher = Publisher(connection, PublisherSettings())
    async with node.running(publisher.run()):
        offer(publisher, 1, 3)
        publisher.offer(SUBJECT, b"0" * 2000, "too-large-for-the-stream")
        publisher.offer(SUBJECT, b"0" * (2 << 20), "too-large-for-the-server")
        offer(publisher, 4, 6)
        assert await publisher.flush(30) == 0
    assert await numbers(watcher) == [1, 2, 3, 4, 5, 6]
    assert publisher.stats.refused == 2
