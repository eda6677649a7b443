"""pods/portforward: each connection that a client accepts becomes one session of the tunnel.

What is spoken is SPDY, plain or inside a WebSocket; a forwarded connection is a pair of its streams with one ``requestid``,
``data`` and ``error`` (which carries a text, or nothing).
Source: kubernetes, staging/src/k8s.io/client-go/tools/portforward, KEP 4006; the kubelet's cri/streaming/portforward for the
pairing and the words.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from bus.kube import errors
from bus.kube.errors import StatusError
from bus.tunnel import Dialer, Session, TunnelBroken
from cloud.node_api import locate, portchannels, spdy, upgrade
from schemas import tunnel

logger = structlog.get_logger(__name__)

PLAIN = "portforward.k8s.io"
PROTOCOL = f"{upgrade.SPDY}+{PLAIN}"  # in a WebSocket
STREAMS_MAX = 128  # of one client: 64 connections at once, as many as a node serves
WAITING_PIECES_MAX = 8  # of one connection, 256 KiB; beyond it nothing more is read from this client


async def serve(dialer: Dialer, where: locate.Place, request: web.Request, actor: str) -> web.StreamResponse:
    """Raises StatusError before the upgrade."""
    if request.method not in ("GET", "POST"):
        raise errors.method_not_allowed("", "pods/portforward", request.method)
    where.must_have_node()
    if upgrade.wants_spdy(request):
        return await _plain(dialer, where, request, actor)
    ws = upgrade.websocket(request, (PROTOCOL, portchannels.PROTOCOL))
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    wanted = portchannels.ports(request) if PROTOCOL not in offered else []
    await ws.prepare(request)
    pongs = asyncio.create_task(upgrade.pongs(ws), name="pods/portforward: pongs")
    try:
        if wanted:
            logger.info("node_api.portforward", actor=actor, node=where.node, pod=f"{where.namespace}/{where.pod}")
            with contextlib.suppress(ConnectionResetError):  # the client has gone
                await portchannels.serve(ws, dialer, where, wanted)
        else:
            await _spdy(upgrade.WebSocketPipe(ws), dialer, where, actor)
    finally:
        pongs.cancel()
        await asyncio.gather(pongs, return_exceptions=True)
    with contextlib.suppress(ConnectionResetError):
        await ws.close()
    return ws


async def _plain(dialer: Dialer, where: locate.Place, request: web.Request, actor: str) -> web.StreamResponse:
    stream = await upgrade.spdy(request, upgrade.version(request, (PLAIN,)))
    try:
        await _spdy(stream, dialer, where, actor)
    finally:
        await stream.close()
    return stream


async def _spdy(pipe: upgrade.Pipe, dialer: Dialer, where: locate.Place, actor: str) -> None:
    logger.info("node_api.portforward", actor=actor, node=where.node, pod=f"{where.namespace}/{where.pod}")
    client = _Client(pipe, dialer, where)
    try:
        await client.run()
    except ConnectionResetError:
        pass  # the client has gone
    except spdy.SpdyError as e:
        logger.warning("node_api.bad_spdy", actor=actor, reason=str(e))
    finally:
        await client.stop()


@dataclass(slots=True)
class _Pair:
    """One forwarded connection."""

    port: int
    error: int = 0
    data: int = 0
    pieces: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING_PIECES_MAX))
    over: bool = False
    reset: bool = False  # by the client, which still waits for the end of the error stream
    said_all: bool = False
    task: asyncio.Task[None] | None = None

    def discard(self) -> None:
        """Nothing is taken any more; who waits to give goes on."""
        self.over = True
        while not self.pieces.empty():
            self.pieces.get_nowait()


class _Client:
    def __init__(self, pipe: upgrade.Pipe, dialer: Dialer, where: locate.Place) -> None:
        self._pipe, self._dialer, self._where = pipe, dialer, where
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._sending = asyncio.Lock()
        self._pairs: dict[str, _Pair] = {}
        self._streams: dict[int, _Pair] = {}

    async def run(self) -> None:
        """Until the client ends.  Raises ConnectionResetError, SpdyError."""
        while (data := await self._pipe.receive()) is not None:
            for frame in self._decoder.feed(data):
                await self._take(frame)

    async def stop(self) -> None:
        tasks = [p.task for p in self._pairs.values() if p.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- frames

    async def _send(self, frame: bytes) -> None:
        async with self._sending:
            await self._pipe.send(frame)

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Syn():
                await self._opened(frame)
            case spdy.Data(stream=stream):
                pair = self._streams.get(stream)
                if pair is not None and stream == pair.data and not pair.over:
                    if frame.data:
                        await pair.pieces.put(frame.data)
                    if frame.fin and not pair.over:
                        await pair.pieces.put(None)
            case spdy.Reset(stream=stream):
                pair = self._streams.get(stream)
                if pair is not None and stream == pair.data and pair.task is not None:
                    pair.reset = True
                    pair.task.cancel()
            case spdy.Ping(id=id_):
                if id_ % 2:  # a client's; an even one would be the answer to ours
                    await self._send(spdy.ping(id_))
            case spdy.GoAway():
                pass  # it closes when its streams have ended

    async def _opened(self, syn: spdy.Syn) -> None:
        kind, name, port = (
            syn.headers.get("streamtype", ""),
            syn.headers.get("requestid", ""),
            _port(syn.headers.get("port")),
        )
        bad = syn.stream in self._streams or syn.stream % 2 == 0 or kind not in ("data", "error") or not port or not name
        pair = self._pairs.get(name)
        if pair is not None and ((pair.data if kind == "data" else pair.error) or pair.port != port):
            bad = True
        if bad or len(self._streams) >= STREAMS_MAX:
            await self._send(spdy.reset(syn.stream, spdy.PROTOCOL_ERROR if bad else spdy.REFUSED_STREAM))
            return
        if pair is None:
            pair = self._pairs[name] = _Pair(port)
        if kind == "data":
            pair.data = syn.stream
        else:
            pair.error = syn.stream
        self._streams[syn.stream] = pair
        async with self._sending:  # made and sent in one: header blocks are compressed in order
            await self._pipe.send(self._encoder.reply(syn.stream))
        if pair.error and pair.data:
            pair.task = asyncio.create_task(self._forward(name, pair), name=f"pods/portforward: {port}")

    # --- one connection

    async def _forward(self, name: str, pair: _Pair) -> None:
        trouble = ""
        try:
            session = await locate.begin(self._dialer, self._where, tunnel.Port(kind="port", port=pair.port))
            try:
                trouble = await self._pump(pair, session)
            finally:
                await session.close()
        except StatusError as e:
            trouble = e.message
        except ConnectionResetError:
            return  # the client has gone, and ``run`` ends
        except asyncio.CancelledError:
            if not pair.reset:
                raise
        finally:
            pair.discard()
            self._pairs.pop(name, None)
            for stream in (pair.error, pair.data):
                self._streams.pop(stream, None)
        with contextlib.suppress(ConnectionResetError):
            if trouble:
                where = self._where
                text = f"error forwarding port {pair.port} to pod {where.pod}, uid {where.uid}: {trouble}"
                await self._send(spdy.data(pair.error, text.encode()))
            await self._send(spdy.data(pair.error, b"", fin=True))
            if not pair.said_all and not pair.reset:
                await self._send(spdy.data(pair.data, b"", fin=True))

    async def _pump(self, pair: _Pair, session: Session) -> str:
        """What went wrong, "" for nothing.  Raises ConnectionResetError."""
        down = asyncio.create_task(_down(pair, session), name="pods/portforward: down")
        try:
            while (piece := await session.receive(tunnel.STDOUT)) is not None:
                await self._send(spdy.data(pair.data, piece))
            pair.said_all = True
            await self._send(spdy.data(pair.data, b"", fin=True))
            ended = await session.finished()  # the pod may still listen
            return ended.message if ended.code else ""
        except TunnelBroken as e:
            return str(e)
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)


async def _down(pair: _Pair, session: Session) -> None:
    with contextlib.suppress(TunnelBroken):  # told by the other direction
        while (piece := await pair.pieces.get()) is not None:
            await session.send(tunnel.STDIN, piece)
        await session.end(tunnel.STDIN)


def _port(text: str | None) -> int:
    """0 for what is not a port."""
    good = text is not None and text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65535
    return int(text) if good and text is not None else 0
