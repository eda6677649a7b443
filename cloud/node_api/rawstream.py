"""A request's connection, taken over as plain bytes after ``101 Switching Protocols``: what SPDY is spoken over.

aiohttp upgrades to WebSocket only.  A client of any other protocol says nothing before it has the 101, so the transport can
be given to asyncio's own stream protocol, which also holds back a sender that isn't read.  The server's protocol hears of
the connection's end as if it still had it, so its shutdown and its accounts stay right.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

READ_BYTES = 64 << 10
HELD_BYTES_MAX = 128 << 10  # read ahead; asyncio stops reading at twice this
CLOSE_S = 3.0  # for the client to take what was written last


class RawStream(web.StreamResponse):
    """Bytes both ways; it is also the response that the handler returns.  ``close`` it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(status=101)
        self._reader, self._writer = reader, writer
        self._keep_alive = False
        self._eof_sent = True

    async def receive(self) -> bytes | None:
        """None when the client has gone."""
        try:
            return await self._reader.read(READ_BYTES) or None
        except OSError:
            return None

    async def send(self, data: bytes) -> None:
        """Waits while the client doesn't read.  Raises ConnectionResetError."""
        if self._writer.is_closing():
            raise ConnectionResetError("the client has gone")
        self._writer.write(data)
        try:
            await self._writer.drain()
        except OSError as e:
            raise ConnectionResetError(str(e)) from e

    async def close(self) -> None:
        """Never fails, and doesn't wait for a client that reads nothing."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            with contextlib.suppress(OSError):
                self._writer.transport.abort()

    # aiohttp finishes every response; this one was begun and is ended elsewhere.

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


class _Protocol(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


async def take(request: web.Request, headers: dict[str, str]) -> RawStream:
    """Answers 101 with these headers.  Raises ConnectionResetError when the client has gone already."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    reader = asyncio.StreamReader(limit=HELD_BYTES_MAX)
    protocol = _Protocol(reader, transport.get_protocol())
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.resume_reading()
    stream = RawStream(reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()))
    head = ["HTTP/1.1 101 Switching Protocols", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    await stream.send("\r\n".join(head).encode("latin1"))
    return stream
