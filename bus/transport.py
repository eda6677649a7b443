"""nats-py's TCP transport, with a handshake that resumes (``bus/resuming.py``) and without a TLS record for every line.

nats-py writes line by line, and asyncio makes a TLS record (22 bytes) and a packet (52 and more) of each write.  Here what
is written in one turn of the loop goes together.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

from bus import resuming


class Transport(TcpTransport):
    """``tickets`` outlive the connections that are made through it."""

    def __init__(self, tickets: resuming.Tickets) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tickets = tickets
        self._server = ""
        self._out: list[bytes] = []
        self._holds = False
        self._said: frozenset[bytes] = frozenset()

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self._out, self._holds, self._said = [], False, frozenset()
        self._server = uri.netloc
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        with self._tickets.dialing(self._server):
            await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)

    def __bool__(self) -> bool:
        return True  # nats-py makes another for each attempt while the one it has is false: not connected yet

    def hold(self, said: Iterable[bytes] = ()) -> None:
        """What is written next waits for what is written after it.  ``said``: lines that it contains, and that need not go
        again on this connection."""
        self._holds, self._said = True, frozenset(said)

    def write(self, payload: bytes) -> None:
        """Raises OSError when the connection was ended."""
        if self._said and payload in self._said:
            return
        self._add([payload])

    def writelines(self, payload: list[bytes]) -> None:
        """As ``write``."""
        self._add(payload)

    def _add(self, parts: list[bytes]) -> None:
        if self._holds and self._out:
            self._holds = False
        if not self._out and not self._holds:
            asyncio.get_running_loop().call_soon(self._go)
        self._out.extend(parts)

    def forget(self) -> None:
        """Nothing comes again any more."""
        self._said = frozenset()

    async def drain(self) -> None:
        if not self._holds:
            self._go()
            await super().drain()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._holds = False
        self._go()
        super().close()  # type: ignore[no-untyped-call]

    def _go(self) -> None:
        out, self._out = self._out, []
        if out and self._io_writer is not None and not self._io_writer.transport.is_closing():
            self._io_writer.write(out[0] if len(out) == 1 else b"".join(out))
