"""The NATS protocol as bytes: lines to send, and what came split into messages.  Pure.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol, and ADR-4 for headers; leaf links speak the same
with LMSG, LS+ and LS- (nats-server, server/leafnode.go).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CRLF = b"\r\n"
LINE_BYTES_MAX = 64 << 10  # an INFO of a large cluster has some kilobytes
MESSAGE_BYTES_MAX = 16 << 20
_WITH_BODY = (b"MSG ", b"HMSG", b"LMSG")
_STATUS_LINE = b"NATS/1.0"


class ProtocolError(Exception):
    """What came is not the protocol; the message has the beginning of it."""


@dataclass(frozen=True, slots=True)
class Line:
    """``verb`` in capitals, and the rest of the line."""

    verb: bytes
    rest: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """A message: the words of its line without verb and sizes, its header block and its payload."""

    words: list[bytes]
    headers: bytes
    payload: bytes


class Parser:
    """Bytes in as they come, messages out; keeps no more than what is incomplete."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Line | Body]:
        """Raises ProtocolError."""
        buffer = self._rest + data if self._rest else data
        at = 0
        while (end := buffer.find(CRLF, at)) >= 0:
            if buffer[at : at + 4] not in _WITH_BODY:
                verb, _, rest = buffer[at:end].partition(b" ")
                at = end + 2
                yield Line(verb.upper(), rest)
                continue
            verb, *words = buffer[at:end].split()
            headers_size, size = _sizes(verb, words)
            begin = end + 2
            if len(buffer) < begin + size + 2:
                break
            at = begin + size + 2
            body = buffer[begin : begin + size]
            yield Body(words[: -2 if verb == b"HMSG" else -1], body[:headers_size], body[headers_size:])
        else:
            if len(buffer) - at > LINE_BYTES_MAX:
                raise ProtocolError(f"a line that doesn't end: {buffer[at : at + 60]!r}")
        self._rest = buffer[at:]


def _sizes(verb: bytes, words: list[bytes]) -> tuple[int, int]:
    try:
        size = int(words[-1])
        headers = int(words[-2]) if verb == b"HMSG" else 0
    except (ValueError, IndexError) as e:
        raise ProtocolError(f"{verb!r} without sizes: {words[:4]!r}") from e
    if not 0 <= headers <= size <= MESSAGE_BYTES_MAX:
        raise ProtocolError(f"{verb!r} of {size} bytes, {headers} of headers")
    return headers, size


def headers_of(block: bytes) -> tuple[str, dict[str, str] | None]:
    """(status, headers) of a header block; "" and None where there is none."""
    if not block:
        return "", None
    first, *lines = block.decode(errors="replace").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first[len(_STATUS_LINE) :].strip()[:3], {k.strip(): v.strip() for k, _, v in pairs}


def header_block(headers: dict[str, str]) -> bytes:
    return (_STATUS_LINE.decode() + "\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode()


def publish(verb: str, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A message as a client (``PUB``) or a leaf (``LMSG``) sends it."""
    to = f"{subject} {reply}" if reply else subject
    if headers is None:
        return f"{verb} {to} {len(payload)}\r\n".encode() + payload + CRLF
    block = header_block(headers)
    verb = "HPUB" if verb == "PUB" else "HMSG"
    return f"{verb} {to} {len(block)} {len(block) + len(payload)}\r\n".encode() + block + payload + CRLF
