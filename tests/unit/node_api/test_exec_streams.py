"""exec and attach over the streams of a SPDY connection: in any order, cut anywhere, and by clients that misbehave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cloud.node_api import channels, spdy
from schemas import tunnel

ALL = [tunnel.ERROR, tunnel.STDIN, tunnel.STDOUT, tunnel.STDERR, tunnel.RESIZE]


class Stream:
    """What a client sends, in such pieces, and what it is told.  Nothing more comes after the last piece."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.told = list(pieces), b""
        self.closed = False

    async def receive(self) -> bytes | None:
        return self.pieces.pop(0) if self.pieces else None

    async def send(self, data: bytes) -> None:
        self.told += data

    async def close(self) -> None:
        self.closed = True


class Sender:
    """A client: streams are odd, in rising order."""

    def __init__(self) -> None:
        self._encoder = spdy.Encoder()
        self._next = -1

    def open(self, kind: str) -> bytes:
        self._next += 2
        head = self._next.to_bytes(4) + bytes(4) + bytes(2)
        return spdy.control(spdy.SYN_STREAM, 0, head + self._encoder.headers({"streamType": kind}))


def opening(*kinds: str) -> list[bytes]:
    sender = Sender()
    return [sender.open(kind) for kind in kinds]


def made(stream: Stream, wanted: list[int]) -> channels.Streams:
    return channels.Streams(stream, wanted)  # type: ignore[arg-type]


async def heard(client: channels.Streams) -> list[channels.Heard]:
    out = []
    while (said := await client.hear()) is not None:
        out.append(said)
    return out


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_input_and_sizes_cut_anywhere(size: int) -> None:
    sizes = b'{"Width":80,"Height":24}\n{"Width":81,"Height":25}\n{"Wid'
    sent = b"".join(
        [
            *opening("error", "stdin", "stdout", "stderr", "resize"),
            spdy.data(3, b"one"),
            spdy.data(9, sizes),
            spdy.data(9, b'th":1,"Height":2}\n'),
            spdy.ping(1),
            spdy.data(3, b"two", fin=True),
        ]
    )
    stream = Stream(*(sent[i : i + size] for i in range(0, len(sent), size)))
    client = made(stream, ALL)
    await client.opened()
    told = await heard(client)
    assert b"".join(d for c, d in told if c == tunnel.STDIN and d) == b"onetwo"
    assert told[-1] == (tunnel.STDIN, None), "its end is told once, after the last of it"
    assert [d for c, d in told if c == tunnel.RESIZE][-1] == b'{"Width":1,"Height":2}'
    assert spdy.ping(1) in stream.told


async def test_the_last_words_and_then_the_status() -> None:
    stream = Stream(*opening("error", "stdout"))
    client = made(stream, [tunnel.ERROR, tunnel.STDOUT])
    await client.opened()
    before = len(stream.told)
    await client.say(tunnel.STDOUT, b"last")
    await client.end({"status": "Success"})
    said = (
        spdy.data(3, b"last")
        + spdy.data(3, b"", fin=True)
        + spdy.data(1, json.dumps({"status": "Success"}).encode(), fin=True)
    )
    assert stream.told[before:] == said and stream.closed


async def test_data_that_comes_before_the_last_stream_is_kept() -> None:
    error, stdin, stdout = opening("error", "stdin", "stdout")
    client = made(Stream(error + stdin + spdy.data(3, b"early") + stdout + spdy.data(3, b"late")), ALL[:3])
    await client.opened()
    assert await heard(client) == [(tunnel.STDIN, b"early"), (tunnel.STDIN, b"late")]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (opening("error", "error"), spdy.SpdyError),
        (opening("error", "stdin"), spdy.SpdyError),
        (opening("error", "nonsense"), spdy.SpdyError),
        ([*opening("error"), *(spdy.data(1, b"x") for _ in range(100))], spdy.SpdyError),
        ([b"\x80\x02" + bytes(6)], spdy.SpdyError),
        (opening("error"), ConnectionResetError),
        ([], ConnectionResetError),
    ],
    ids=["one twice", "one that was not asked for", "one of no type", "too much before", "SPDY/2", "one too few", "nobody"],
)
async def test_streams_that_were_not_asked_for(sent: list[bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        await made(Stream(*sent), [tunnel.ERROR, tunnel.STDOUT]).opened()


async def test_a_client_that_opens_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Stream):
        async def receive(self) -> bytes | None:
            await asyncio.Event().wait()
            return None

    monkeypatch.setattr(channels, "STREAMS_S", 0.01)
    with pytest.raises(TimeoutError):
        await made(Silent(), [tunnel.ERROR]).opened()


async def test_a_stream_that_comes_later_is_refused_and_garbage_is_the_end() -> None:
    sender = Sender()
    first, second = sender.open("error"), sender.open("stdout")
    client: Any = made(stream := Stream(first, second, b"\xff" * 64), [tunnel.ERROR])
    await client.opened()
    assert await client.hear() is None
    assert spdy.reset(3, spdy.REFUSED_STREAM) in stream.told
