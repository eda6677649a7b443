"""The link is what round trips prove: a cloud that answers, one that is silent, a server that is gone."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from nats.aio.msg import Msg

from bus import link
from schemas import codec, reports, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract


async def test_up_down_and_up_again(server: plain.PlainServer) -> None:
    cloud, node = await plain.client(server), await plain.client(server)
    seen: list[str] = []
    beats: list[reports.Beat] = []
    silent = False

    async def answer(msg: Msg) -> None:
        beats.append(codec.decode_as(reports.Beat, msg.data))
        if not silent:
            await msg.respond(b"")

    await cloud.subscribe(subjects.beat("edge-1"), answer)
    await cloud.flush()
    the_link = link.Link(
        node, "edge-1", lambda: reports.Beat(boot="b", time=plain.now_us(), heads={"edge-1": 7}),
        on_up=lambda: seen.append("up"), on_down=lambda: seen.append("down"),
        beat_s=0.05, answer_timeout_s=0.3, retry_s=0.05,
    )  # fmt: skip
    task = asyncio.create_task(the_link.run())

    async def until(state: str) -> None:
        async with asyncio.timeout(20):
            while the_link.state != state:
                await asyncio.sleep(0.01)

    await until("up")
    assert beats[0].heads == {"edge-1": 7}
    silent = True
    await until("down")
    silent = False
    await until("up")
    server.kill()
    await until("down")
    await server.start()
    await until("up")
    assert seen == ["up", "down", "up", "down", "up"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await node.close()
    await cloud.close()


async def test_one_lost_question_is_not_a_lost_link(server: plain.PlainServer) -> None:
    cloud, node = await plain.client(server), await plain.client(server)
    count = 0
    seen: list[str] = []

    async def answer(msg: Msg) -> None:
        nonlocal count
        count += 1
        if count % 3 != 2:
            await msg.respond(b"")

    await cloud.subscribe(subjects.beat("edge-1"), answer)
    await cloud.flush()
    the_link = link.Link(
        node, "edge-1", lambda: reports.Beat(boot="b", time=1), on_up=lambda: seen.append("up"),
        on_down=lambda: seen.append("down"), beat_s=0.02, answer_timeout_s=2, retry_s=0.02,
    )  # fmt: skip
    task = asyncio.create_task(the_link.run())
    async with asyncio.timeout(60):
        while count < 7:  # two of them lost, each waited for
            await asyncio.sleep(0.01)
    assert seen == ["up"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await node.close()
    await cloud.close()


async def test_a_connection_made_again_is_told_even_when_no_question_was_lost(server: plain.PlainServer) -> None:
    """What was published while there was no connection is lost, so the replica must ask, however short that was."""
    cloud, node = await plain.client(server), await plain.client(server)
    seen: list[str] = []

    async def answer(msg: Msg) -> None:
        await msg.respond(b"")

    await cloud.subscribe(subjects.beat("edge-1"), answer)
    await cloud.flush()
    the_link = link.Link(
        node, "edge-1", lambda: reports.Beat(boot="b", time=1), on_up=lambda: seen.append("up"),
        on_down=lambda: seen.append("down"),
    )  # fmt: skip
    node.on_change(lambda up: the_link.nudge(up) if up else None)
    task = asyncio.create_task(the_link.run())
    async with asyncio.timeout(20):
        while seen != ["up"]:
            await asyncio.sleep(0.01)
        await node.reconnect()
        while seen != ["up", "up"]:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await node.close()
    await cloud.close()


async def test_a_question_that_went_with_a_dead_link_is_not_waited_for(server: plain.PlainServer) -> None:
    """A leaf's link that is dropped takes questions with it; the daemon's own connection stays, so nobody tells it."""
    cloud, node = await plain.client(server), await plain.client(server)
    asked, seen = 0, list[str]()

    async def answer(msg: Msg) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await msg.respond(b"")

    await cloud.subscribe(subjects.beat("edge-1"), answer)
    await cloud.flush()
    the_link = link.Link(
        node, "edge-1", lambda: reports.Beat(boot="b", time=1), on_up=lambda: seen.append("up"),
        on_down=lambda: seen.append("down"), answer_timeout_s=10_000,
    )  # fmt: skip
    task = asyncio.create_task(the_link.run())
    async with asyncio.timeout(60):
        while asked == 0:
            await asyncio.sleep(0.01)
        the_link.nudge(renewed=True)
        while seen != ["up"]:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await node.close()
    await cloud.close()


async def test_a_cloud_that_is_silent_is_asked_ever_more_rarely_one_out_of_reach_is_not(server: plain.PlainServer) -> None:
    node = await plain.client(server)
    the_link = link.Link(
        node, "edge-1", lambda: reports.Beat(boot="b", time=1), on_up=lambda: None, on_down=lambda: None, beat_s=20
    )
    assert [the_link._retry_pause(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 99)] == [0.5, 0.5, 0.5, 1, 2, 4, 8, 10, 10]
    assert await the_link._ask() == "refused", "nobody listens: told at once"
    silent = await node.subscribe(subjects.beat("edge-1"), _nothing)
    the_link._answer_timeout_s = 0.05
    assert await the_link._ask() == "silence"
    await silent.unsubscribe()
    server.kill()
    async with asyncio.timeout(20):
        while node.connected:
            await asyncio.sleep(0.01)
    assert await the_link._ask() == "refused"
    await node.close()


async def _nothing(msg: Msg) -> None:
    pass
