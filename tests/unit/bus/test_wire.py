"""Messages taken apart and put together: any cut of the bytes gives the same messages, and nats-py's ones."""

from __future__ import annotations

import random
from typing import Any

import pytest
from nats.errors import ProtocolError
from nats.protocol.parser import Parser as NatsParser

from bus import wire

Message = tuple[bytes, bytes, bytes, bytes]


class Hearing:
    """What a client's parser calls.  Subscription 7 is taken, others go nats-py's way."""

    def __init__(self, taken: tuple[int, ...] = (7,)) -> None:
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.heard: list[Message] = []
        self.said: list[object] = []
        self.taking = {sid: self._take for sid in taken}
        self.parser: Any = wire.Parser(self)

    def _take(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        if payload == b"raise":
            raise RuntimeError("a taker's bug")
        self.heard.append((subject, reply, block, payload))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        self.heard.append((subject, reply, block or b"", payload))

    async def _process_ping(self) -> None:
        self.said.append("ping")

    async def _process_pong(self) -> None:
        self.said.append("pong")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.said.append(info)

    async def _process_err(self, text: str) -> None:
        self.said.append(text)
        self.parser.reset()  # as a reconnect does


def message(sid: int, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> bytes:
    middle = b" " + reply if reply else b""
    if block:
        sizes = b"%d %d" % (len(block), len(block) + len(payload))
        return b"HMSG %s %d%s %s\r\n%s%s\r\n" % (subject, sid, middle, sizes, block, payload)
    return b"MSG %s %d%s %d\r\n%s\r\n" % (subject, sid, middle, len(payload), payload)


def some(rng: random.Random) -> tuple[list[Message], bytes]:
    """Messages, and their bytes among lines that are none."""
    messages: list[Message] = []
    out = b""
    for n in range(60):
        out += rng.choice([b"", b"", b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"n": 1}\r\n'])
        payload = rng.choice([b"", b"\r\n", b"MSG a 1 2\r\nxx\r\n", rng.randbytes(rng.choice([1, 30, 3000, 70_000]))])
        block = rng.choice([b"", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 503\r\n\r\n"])
        one = (b"subject.%d" % n, rng.choice([b"", b"_INBOX.x.1"]), block, payload)
        messages.append(one)
        out += message(rng.choice([7, 8]), *one)
    return messages, out


@pytest.mark.parametrize("seed", range(8))
async def test_any_cut_of_the_bytes_gives_the_same_messages(seed: int) -> None:
    rng = random.Random(seed)
    messages, data = some(rng)
    hearing = Hearing()
    at = 0
    while at < len(data):
        cut = rng.choice([1, 2, 7, 100, 5000, 32_768])
        await hearing.parser.parse(data[at : at + cut])
        at += cut
    assert hearing.heard == messages
    plain = Hearing()
    await NatsParser(plain).parse(data)  # type: ignore[no-untyped-call]
    assert plain.heard == messages and plain.said == hearing.said


async def test_what_comes_after_a_reset_is_of_another_connection() -> None:
    hearing = Hearing()
    await hearing.parser.parse(
        message(7, b"a", b"", b"", b"1") + b"-ERR 'Stale Connection'\r\n" + message(7, b"b", b"", b"", b"2")
    )
    assert [m[0] for m in hearing.heard] == [b"a"] and hearing.said == ["'stale connection'"]
    whole = message(7, b"c", b"", b"", b"x" * 100)
    await hearing.parser.parse(whole[:50])
    hearing.parser.reset()
    await hearing.parser.parse(whole)
    assert [m[0] for m in hearing.heard] == [b"a", b"c"]


async def test_a_takers_bug_ends_nothing() -> None:
    hearing = Hearing()
    await hearing.parser.parse(message(7, b"a", b"", b"", b"raise") + message(7, b"b", b"", b"", b"2"))
    assert [m[0] for m in hearing.heard] == [b"b"] and hearing.stats == {"in_msgs": 2, "in_bytes": 6}


async def test_a_takers_bug_is_told_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    hearing = Hearing()
    await hearing.parser.parse(message(7, b"a", b"", b"", b"raise") * 1000)
    assert capsys.readouterr().out.count("wire.taker_failed") == 1
    hearing.parser._said_until = float("-inf")
    await hearing.parser.parse(message(7, b"a", b"", b"", b"raise"))
    said = capsys.readouterr().out
    assert said.count("wire.taker_failed") == 1 and "failed=1001" in said


@pytest.mark.parametrize(
    "data", [b"MSG a x 1\r\n1\r\n", b"MSG\r\n", b"HMSG a 7 1\r\n1\r\n", b"HELLO there\r\n", b"Q" * (2 << 20)]
)
async def test_what_is_no_protocol_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Hearing().parser.parse(data)


def test_headers_there_and_back() -> None:
    fields = {"Nats-Msg-Id": "abc", "Skerry-Epoch": "e 1: x"}
    assert wire.headers(wire.header_block(fields)) == fields
    assert wire.headers(b"NATS/1.0 503\r\n\r\n") == {"Status": "503"}
    beat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 3\r\n\r\n"
    assert wire.headers(beat) == {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "3"}
    assert (wire.status(beat), wire.status(wire.header_block(fields)), wire.status(b"")) == ("100", "", "")
    with pytest.raises(ValueError, match="line break"):
        wire.header_block({"A": "b\r\nNats-Rollup: all"})
    assert wire.publish("a.b", "_R.1", b"NATS/1.0\r\n\r\n", b"xy") == b"HPUB a.b _R.1 12 14\r\nNATS/1.0\r\n\r\nxy\r\n"
