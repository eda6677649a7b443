"""Two ends of a session joined by a wire that can lose, repeat and hold messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import tunnel as sessions
from bus.connect import Connection, NotConnected
from schemas import tunnel
from schemas.tunnel import Frame, FrameError, Type

frames = st.one_of(
    st.builds(Frame, st.just(Type.DATA), st.integers(0, 4), st.integers(0, tunnel.NUMBER_MAX), st.binary(min_size=1)),
    st.builds(Frame, st.sampled_from([Type.END, Type.READY, Type.PING]), st.integers(0, 4), st.integers(1, 99)),
    st.builds(Frame, st.just(Type.CREDIT), st.integers(0, 4), st.just(7), st.integers(1, 1000).map(tunnel.credit)),
)


@given(frames)
def test_a_frame_comes_back(frame: Frame) -> None:
    assert tunnel.decode(tunnel.encode(frame)) == frame


@given(
    st.binary(max_size=64) | st.builds(lambda a, b: a + b, st.sampled_from([b"\1\0\0\0\0\1", b"\3\0\0\0\0\1"]), st.binary())
)
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        frame = tunnel.decode(data)
    except FrameError:
        return
    assert tunnel.encode(frame) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0\0\0\0\1",  # DATA without data
        b"\1\5\0\0\0\1x",  # no such channel
        b"\7\0\0\0\0\1",  # no such type
        b"\3\0\0\0\0\1\0\0\0\0",  # no credit
        b"\3\0\0\0\0\1\xff\xff\xff\xff",  # more than there is
        b"\1\0\0\0\0\1" + bytes(tunnel.CHUNK_BYTES_MAX + 1),
    ],
)
def test_what_no_side_sends_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        tunnel.decode(data)


class Wire:
    """Stands for the bus between two sessions: delivers at once, unless told otherwise."""

    def __init__(self) -> None:
        self.other: sessions.Session | None = None
        self.lose = 0
        self.cut = self.down = False
        self.bytes = 0

    async def publish(self, _subject: str, payload: bytes) -> None:
        if self.down:
            raise NotConnected("the leaf is gone")
        if self.cut:
            return
        if self.lose:
            self.lose -= 1
            return
        self.bytes += len(payload)
        assert self.other is not None
        self.other.take(payload)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[sessions.Session, sessions.Session, Wire]]:
    """(cloud, node, the wire from cloud to node)."""
    down, up = Wire(), Wire()
    cloud = sessions.Session("d", cast(Connection, down), "node n", lambda: None)
    node = sessions.Session("u", cast(Connection, up), "the API server", lambda: None)
    down.other, up.other = node, cloud
    try:
        yield cloud, node, down
    finally:
        await cloud.close()
        await node.close()


async def test_bytes_ends_and_result_arrive_in_order() -> None:
    async with pair() as (cloud, node, _):
        await node.ready()
        await cloud.started()
        await cloud.send(tunnel.STDIN, b"question")
        await cloud.end(tunnel.STDIN)
        assert [await node.receive(tunnel.STDIN), await node.receive(tunnel.STDIN)] == [b"question", None]
        await node.send(tunnel.STDOUT, b"answer")
        await node.close(tunnel.Ended(exit_code=7))
        assert [await cloud.receive(tunnel.STDOUT), await cloud.receive(tunnel.STDOUT)] == [b"answer", None]
        assert (await cloud.finished()).exit_code == 7
        with pytest.raises(sessions.TunnelBroken):
            await cloud.send(tunnel.STDIN, b"too late")


async def test_a_refusal_before_the_beginning_is_raised() -> None:
    async with pair() as (cloud, node, _):
        await node.close(tunnel.Ended(code=404, reason="NotFound", message="no"))
        with pytest.raises(sessions.TunnelRefused) as e:
            await cloud.started()
        assert (e.value.code, e.value.reason, e.value.message) == (404, "NotFound", "no")


async def test_who_is_not_read_waits_and_hurts_no_other_channel() -> None:
    async with pair() as (cloud, node, wire):
        big = bytes(range(256)) * 4096  # 1 MiB
        sending = asyncio.create_task(cloud.send(tunnel.STDIN, big))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not sending.done()
        assert tunnel.WINDOW_BYTES <= wire.bytes < tunnel.WINDOW_BYTES + 1000
        await cloud.send(tunnel.RESIZE, b"{}")
        assert await node.receive(tunnel.RESIZE) == b"{}"
        got = b""
        while len(got) < len(big):
            got += await node.receive(tunnel.STDIN) or b""
        await sending
        assert got == big


@pytest.mark.parametrize("lost", [1, 3])
async def test_what_is_lost_is_noticed_with_the_next_message(lost: int) -> None:
    async with pair() as (cloud, node, wire):
        await cloud.send(tunnel.STDIN, b"a")
        wire.lose = lost
        for _ in range(lost):
            await cloud.send(tunnel.STDIN, b"b")
        await cloud.send(tunnel.STDIN, b"c")
        assert await node.receive(tunnel.STDIN) == b"a"
        with pytest.raises(sessions.TunnelBroken, match="lost"):
            await node.receive(tunnel.STDIN)


async def test_silence_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PING_S", 0.02)
    monkeypatch.setattr(sessions, "SILENCE_S", 0.3)
    async with pair() as (cloud, node, wire):
        await asyncio.sleep(0.5)  # pings keep an idle session
        assert not node.over and not cloud.over
        wire.cut = True
        with pytest.raises(sessions.TunnelBroken, match="nothing was heard"):
            await node.receive(tunnel.STDIN)


async def test_a_lost_connection_of_our_own_is_told_at_once() -> None:
    async with pair() as (cloud, _, wire):
        wire.down = True
        with pytest.raises(sessions.TunnelBroken, match="the leaf is gone"):
            await cloud.send(tunnel.STDIN, b"x")
        with pytest.raises(sessions.TunnelBroken):
            await cloud.receive(tunnel.STDOUT)


@pytest.mark.parametrize(
    "sent",
    [
        b"no frame",
        tunnel.encode(Frame(Type.CREDIT, 0, 1, tunnel.credit(1))),  # for bytes that were never sent
        tunnel.encode(Frame(Type.DATA, 0, 2, b"x")),  # not the next
        tunnel.encode(Frame(Type.CLOSE, 0, 1, b"\xc1")),
    ],
)
async def test_a_side_that_breaks_the_rules_is_heard_no_more(sent: bytes) -> None:
    async with pair() as (cloud, node, _):
        node.take(sent)
        with pytest.raises(sessions.TunnelBroken):
            await node.receive(tunnel.STDIN)
        assert node.over and not cloud.over


async def test_more_than_the_window_is_refused() -> None:
    async with pair() as (_, node, _):
        for number in range(1, tunnel.WINDOW_BYTES // tunnel.CHUNK_BYTES_MAX + 2):
            node.take(tunnel.encode(Frame(Type.DATA, 0, number, bytes(tunnel.CHUNK_BYTES_MAX))))
        assert node.over
