"""The protocol in pieces, whole, and wrong."""

from __future__ import annotations

import pytest

from bus.slim import leaf, protocol

BLOCK = b"NATS/1.0\r\nNats-Id: 7\r\n\r\n"
STREAM = (
    b'INFO {"nonce":"x"}\r\nPONG\r\n'
    b"MSG live.n.core 3 5\r\nhe\r\no\r\n"
    b"HMSG live.n.core 3 to.me %d %d\r\n%sok\r\n"
    b"-ERR 'Permissions Violation for x'\r\n"
    b"LMSG beat.n 0\r\n\r\nping\r\n"
) % (len(BLOCK), len(BLOCK) + 2, BLOCK)
WHOLE = [
    protocol.Line(b"INFO", b'{"nonce":"x"}'),
    protocol.Line(b"PONG", b""),
    protocol.Body([b"live.n.core", b"3"], b"", b"he\r\no"),
    protocol.Body([b"live.n.core", b"3", b"to.me"], BLOCK, b"ok"),
    protocol.Line(b"-ERR", b"'Permissions Violation for x'"),
    protocol.Body([b"beat.n"], b"", b""),
    protocol.Line(b"PING", b""),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
def test_messages_are_the_same_however_the_bytes_come(size: int) -> None:
    parser = protocol.Parser()
    found = [m for at in range(0, len(STREAM), size) for m in parser.feed(STREAM[at : at + size])]
    assert found == WHOLE


@pytest.mark.parametrize(
    "wrong",
    [
        b"MSG live.n.core 3 five\r\n",
        b"MSG \r\n",
        b"HMSG a 1 10 5\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 99999999999\r\n",
        b"x" * (protocol.LINE_BYTES_MAX + 1),
    ],
)
def test_what_is_not_the_protocol_is_refused(wrong: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        list(protocol.Parser().feed(wrong))


def test_headers_are_read_as_they_are_written() -> None:
    assert protocol.headers_of(b"") == ("", None)
    assert protocol.headers_of(protocol.header_block({"A": "1", "B": "x: y"})) == ("", {"A": "1", "B": "x: y"})
    assert protocol.headers_of(b"NATS/1.0 503\r\n\r\n") == ("503", {})
    assert protocol.headers_of(b"NATS/1.0 404 No Messages\r\n\r\n")[0] == "404"


def test_a_published_message_is_read_back() -> None:
    for headers in (None, {"Nats-Msg-Id": "i"}):
        sent = protocol.publish("LMSG", "a.b", "reply.to", b"\r\nbody", headers)
        (body,) = protocol.Parser().feed(sent)
        assert isinstance(body, protocol.Body)
        assert (body.words, body.payload) == ([b"a.b", b"reply.to"], b"\r\nbody")
        assert protocol.headers_of(body.headers)[1] == headers
    assert protocol.publish("PUB", "a", "", b"x") == b"PUB a 1\r\nx\r\n"
    assert protocol.publish("PUB", "a", "", b"", {}).startswith(b"HPUB a 12 12\r\nNATS/1.0\r\n")


def test_a_leafs_messages_find_their_subscription_by_subject() -> None:
    assert leaf.matches("live.n.>", "live.n.a.b")
    assert not leaf.matches("live.n.>", "live.n")
    assert leaf.matches("answer.n.*", "answer.n.x")
    assert not leaf.matches("answer.n.*", "answer.n.x.y")
    assert not leaf.matches("cmd.n.beat", "cmd.m.beat")
