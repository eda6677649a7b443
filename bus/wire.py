"""NATS' client protocol, the two parts of it that nats-py does slowly: taking messages apart, and putting them together.

nats-py matches every message with regular expressions on a buffer that it moves for each, and hands it on through a queue
and a task.  That is fine for a node's traffic; a dispatcher or an API server spends most of its time in it.  Here a read is
cut into messages in one pass, and whoever has registered for a subscription (``Client.taking``) is called at once with the
bytes.  Everything else goes the way nats-py means it to go.

Source: NATS documentation, "Client Protocol" (MSG, HMSG, HPUB); ADR-4 (headers).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from nats.errors import ProtocolError
from nats.protocol.parser import Parser as NatsParser

log = structlog.get_logger("bus.wire")

# subject, reply ("" when there is none), header block (b"" when there is none), payload.  Must not block and must not await.
Take = Callable[[bytes, bytes, bytes, bytes], None]

LINE_BYTES_MAX = 1 << 20  # of a control line: an INFO of a large cluster has some kilobytes
SAY_S = 60.0  # at most so often is a failed taker told
_OPS, _H = b"MH", b"H"[0]
_CRLF = b"\r\n"
_HEAD = b"NATS/1.0"


class Parser(NatsParser):
    """In the place of nats-py's.  ``nc.taking`` maps subscription ids to their takers."""

    def __init__(self, nc: Any) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed = 0
        self._resets = 0
        self._failed, self._said_until = 0, float("-inf")
        super().__init__(nc)

    def reset(self) -> None:
        """The connection is another: what is left of the old one's bytes is none of it."""
        super().reset()
        self._held.clear()
        self._held_bytes = self._needed = 0
        self._resets += 1

    async def parse(self, data: bytes = b"") -> None:
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed:
                return
            data = b"".join(self._held)
            self._held.clear()
        rest = await self._all(data)
        if rest:
            self._held.append(rest)
            self._held_bytes = len(rest)

    async def _all(self, data: bytes) -> bytes:
        """Every whole message and line; what is left.  ``_needed``: with less than that many bytes it is no use to look."""
        nc, at, end, resets = self.nc, 0, len(data), self._resets
        taking: Mapping[int, Take] = nc.taking
        self._needed = 0
        while at < end:
            line_end = data.find(_CRLF, at)
            if line_end < 0:
                if end - at > LINE_BYTES_MAX:
                    raise ProtocolError("nats: a line without an end")
                break
            first = data[at]
            if first not in _OPS:
                self.buf = bytearray(data[at : line_end + 2])
                at = line_end + 2
                await super().parse()
                if self._resets != resets:
                    return b""
                continue
            try:
                # MSG <subject> <sid> [reply] <bytes>; HMSG <subject> <sid> [reply] <header bytes> <bytes>
                words = data[at:line_end].split()
                size = int(words[-1])
                head = int(words[-2]) if first == _H else 0
                sid = int(words[2])
                reply = words[3] if len(words) == (6 if first == _H else 5) else b""
                if not 0 <= head <= size:
                    raise ValueError(f"{head} bytes of headers in {size}")
            except (ValueError, IndexError) as e:
                raise ProtocolError(f"nats: malformed message: {data[at : at + 80]!r}") from e
            body = line_end + 2
            stop = body + size
            if stop + 2 > end:
                self._needed = stop + 2 - at
                break
            at = stop + 2
            take = taking.get(sid)
            if take is None:
                await nc._process_msg(sid, words[1], reply, data[body + head : stop], data[body : body + head] or None)
                if self._resets != resets:
                    return b""
                continue
            nc.stats["in_msgs"] += 1
            nc.stats["in_bytes"] += size
            try:
                take(words[1], reply, data[body : body + head], data[body + head : stop])
            except Exception:  # a taker's bug is not the connection's end
                self._failed += 1
                if time.monotonic() >= self._said_until:  # a traceback for each of thousands would hold up all others
                    self._said_until = time.monotonic() + SAY_S
                    log.exception("wire.taker_failed", subject=words[1][:160], failed=self._failed)
        return data[at:]


def headers(block: bytes) -> dict[str, str]:
    """A header block as text; an inline status becomes ``Status`` and ``Description``, as nats-py has it."""
    out: dict[str, str] = {}
    if not block:
        return out
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    status = first[len(_HEAD) :].strip()
    if status:
        out["Status"], _, description = status.partition(" ")
        if description:
            out["Description"] = description.strip()
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            out[name.strip()] = value.strip()
    return out


def status(block: bytes) -> str:
    """The inline status of a header block, "" when it has none."""
    return block[9:12].decode("ascii", "replace") if block[8:9] == b" " else ""


def header_block(fields: Mapping[str, str]) -> bytes:
    """The bytes of headers.  Raises ValueError for a line break inside, which would be another header."""
    text = "".join([f"{k}: {v}\r\n" for k, v in fields.items()])
    if text.count("\n") != len(fields) or text.count("\r") != len(fields):
        raise ValueError(f"a line break in a header: {fields!r}"[:300])
    return f"NATS/1.0\r\n{text}\r\n".encode()


def publish(subject: str, reply: str, block: bytes, payload: bytes) -> bytes:
    """One message as it goes to the server; ``block`` as from ``header_block``."""
    size = len(block)
    return b"".join((f"HPUB {subject} {reply} {size} {size + len(payload)}\r\n".encode(), block, payload, _CRLF))
