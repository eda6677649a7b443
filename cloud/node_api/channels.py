"""A client of exec and attach, as numbered channels: over WebSocket, or over the streams of a SPDY connection.

Source: kubernetes, k8s.io/apimachinery/pkg/util/remotecommand (v4: results as Status on channel 3; v5: channel 255 closes
another), pkg/kubelet/cri/streaming/remotecommand (httpstream.go, websocket.go) for the order of things.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from cloud.node_api import rawstream, spdy, upgrade
from schemas import tunnel

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
SPDY_VERSIONS = (V5, V4)
CLOSE_CHANNEL = 255
STREAMS_S = 30.0  # for a client of SPDY to open its streams, as the kubelet
EARLY_MAX = 16  # pieces of data, at most 32 KiB each, before the last stream is open; kubectl sends none
RESIZE_BYTES_MAX = 1 << 10  # of one size of a terminal, which is two numbers in JSON
NAMES = {"stdin": tunnel.STDIN, "stdout": tunnel.STDOUT, "stderr": tunnel.STDERR, "error": tunnel.ERROR}
NAMES["resize"] = tunnel.RESIZE

Heard = tuple[int, bytes | None]  # a channel and its bytes, None: nothing more comes on it


class NoStreams(Exception):
    """The client did not open what it asked for; ``answer`` is what the handler returns to the server."""

    def __init__(self, why: str, answer: web.StreamResponse) -> None:
        super().__init__(why)
        self.answer = answer


class Client(Protocol):
    """Who asked, after the upgrade.  ``answer`` is what the handler returns to the server."""

    @property
    def answer(self) -> web.StreamResponse: ...

    async def hear(self) -> Heard | None:
        """None when the client has gone."""
        ...

    async def say(self, channel: int, data: bytes) -> None:
        """Raises ConnectionResetError."""
        ...

    async def idle(self) -> None:
        """Shows that we live, until cancelled."""
        ...

    async def end(self, status: dict[str, Any]) -> None:
        """The result, and the end.  Never fails."""
        ...


async def accept(request: web.Request, what: tunnel.Exec | tunnel.Attach) -> Client:
    """Answers the upgrade.  Raises StatusError before it, NoStreams and ConnectionResetError after it."""
    if upgrade.wants_spdy(request):
        version = upgrade.version(request, SPDY_VERSIONS)
        stream = await upgrade.spdy(request, version)
        client = Streams(stream, _wanted(what))
        try:
            await client.opened()
        except (ConnectionResetError, spdy.SpdyError, TimeoutError) as e:
            await stream.close()
            raise NoStreams(str(e) or f"its streams did not come within {STREAMS_S:.0f} seconds", stream) from e
        except BaseException:
            await stream.close()
            raise
        return client
    ws = upgrade.websocket(request, (V5, V4))
    await ws.prepare(request)
    await ws.send_bytes(bytes([tunnel.STDOUT if what.stdout else tunnel.STDERR if what.stderr else tunnel.ERROR]))
    return WebSocket(ws)


def _wanted(what: tunnel.Exec | tunnel.Attach) -> list[int]:
    asked = ((tunnel.STDIN, what.stdin), (tunnel.STDOUT, what.stdout), (tunnel.STDERR, what.stderr))
    return [tunnel.ERROR, *(c for c, yes in asked if yes), *([tunnel.RESIZE] if what.tty else [])]


class WebSocket:
    """Each message begins with the number of its channel."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self._ws = ws

    @property
    def answer(self) -> web.StreamResponse:
        return self._ws

    async def hear(self) -> Heard | None:
        while True:
            message = await self._ws.receive()
            if message.type is WSMsgType.BINARY:
                data = message.data
            elif message.type is WSMsgType.TEXT:
                data = message.data.encode()
            else:
                return None
            if not data:
                continue
            if data[0] != CLOSE_CHANNEL:
                return data[0], data[1:]
            if data[1:2] and self._ws.ws_protocol == V5:
                return data[1], None

    async def say(self, channel: int, data: bytes) -> None:
        await self._ws.send_bytes(bytes([channel]) + data)

    async def idle(self) -> None:
        await upgrade.pongs(self._ws)

    async def end(self, status: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionResetError):
            await self._ws.send_bytes(bytes([tunnel.ERROR]) + json.dumps(status).encode())
            await self._ws.close()


class Streams:
    """Each channel is a stream that the client opened, named by its header ``streamType``."""

    def __init__(self, stream: rawstream.RawStream, wanted: Iterable[int]) -> None:
        self._stream, self._wanted = stream, frozenset(wanted)
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._ids: dict[int, int] = {}  # channel -> stream
        self._channels: dict[int, int] = {}
        self._frames: deque[spdy.Frame] = deque()
        self._size = b""

    @property
    def answer(self) -> web.StreamResponse:
        return self._stream

    async def opened(self) -> None:
        """Waits for the streams that were asked for.  Raises ConnectionResetError, SpdyError, TimeoutError."""
        async with asyncio.timeout(STREAMS_S):
            waiting: deque[spdy.Frame] = deque()  # a client may send before it has opened the last one
            while len(self._ids) < len(self._wanted):
                frame = await self._next()
                if frame is None:
                    raise ConnectionResetError("the client has gone")
                if isinstance(frame, spdy.Syn):
                    await self._open(frame)
                elif isinstance(frame, spdy.Data):
                    if len(waiting) >= EARLY_MAX:
                        raise spdy.SpdyError(f"more than {EARLY_MAX} pieces before the last stream was opened")
                    waiting.append(frame)
            self._frames.extendleft(reversed(waiting))

    async def _open(self, syn: spdy.Syn) -> None:
        channel = NAMES.get(syn.headers.get("streamtype", ""))
        if channel is None or channel not in self._wanted or channel in self._ids or syn.stream in self._channels:
            raise spdy.SpdyError(f"a stream of type {syn.headers.get('streamtype', '')[:40]!r}, which was not asked for")
        self._ids[channel], self._channels[syn.stream] = syn.stream, channel
        await self._stream.send(self._encoder.reply(syn.stream))

    async def _next(self) -> spdy.Frame | None:
        while not self._frames:
            data = await self._stream.receive()
            if data is None:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()

    async def hear(self) -> Heard | None:
        while True:
            try:
                frame = await self._next()
                match frame:
                    case None:
                        return None
                    case spdy.Ping(id=id_) if id_ % 2:
                        await self._stream.send(spdy.ping(id_))
                    case spdy.Syn():
                        await self._stream.send(spdy.reset(frame.stream, spdy.REFUSED_STREAM))
                    case spdy.Reset() if self._channels.get(frame.stream) == tunnel.STDIN:
                        return tunnel.STDIN, None
                    case spdy.Data():
                        heard = self._data(frame)
                        if heard is not None:
                            return heard
            except (spdy.SpdyError, ConnectionResetError):
                return None  # it can't go on

    def _data(self, frame: spdy.Data) -> Heard | None:
        channel = self._channels.get(frame.stream)
        if channel == tunnel.RESIZE:  # one size a line, cut anywhere
            *whole, self._size = (self._size + frame.data).split(b"\n")
            self._size = self._size[-RESIZE_BYTES_MAX:]
            sizes = [line for line in whole if line.strip()]
            return (tunnel.RESIZE, sizes[-1]) if sizes else None
        if channel != tunnel.STDIN:
            return None
        if frame.fin:
            if frame.data:
                self._frames.appendleft(spdy.Data(frame.stream, b"", True))
                return channel, frame.data
            return channel, None
        return (channel, frame.data) if frame.data else None

    async def say(self, channel: int, data: bytes) -> None:
        await self._stream.send(spdy.data(self._ids[channel], data))

    async def idle(self) -> None:
        await asyncio.Event().wait()  # SPDY's pings are the client's, and TCP has its own

    async def end(self, status: dict[str, Any]) -> None:
        """Streams end before the connection: what was said last would be lost with it."""
        try:
            for channel in (tunnel.STDOUT, tunnel.STDERR):
                if channel in self._ids:
                    await self._stream.send(spdy.data(self._ids[channel], b"", fin=True))
            await self._stream.send(spdy.data(self._ids[tunnel.ERROR], json.dumps(status).encode(), fin=True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(upgrade.CLOSE_S):
                    while await self._stream.receive() is not None:
                        pass
        except ConnectionResetError:
            pass
        finally:
            await self._stream.close()
