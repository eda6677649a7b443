"""pods/portforward as clients without SPDY speak it (the official Python client): ports are named in the query, and each has
two channels of the WebSocket, ``2 * i`` for data and ``2 * i + 1`` for the text of an error.  No port is half-closed.

Source: kubernetes, pkg/kubelet/cri/streaming/portforward/websocket.go: the first message of each channel is the port, two
bytes, low byte first.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from bus.kube import errors
from bus.kube.errors import StatusError
from bus.tunnel import Dialer, Session, TunnelBroken
from cloud.node_api import locate
from schemas import tunnel

PROTOCOL = "v4.channel.k8s.io"
PORTS_MAX = 16  # a channel's number is one byte; nobody forwards more at once by hand
WAITING_MAX = 8  # messages of one port; beyond it nothing more is read from this client

_Pieces = asyncio.Queue[bytes]


def ports(request: web.Request) -> list[int]:
    """Raises StatusError 400."""
    texts = [p.strip() for value in request.query.getall("ports", []) for p in value.split(",")]
    good = [int(t) for t in texts if t.isascii() and t.isdigit() and len(t) <= 5 and 0 < int(t) <= 65535]
    if not texts or len(good) < len(texts):
        raise errors.bad_request("query parameter ports: one or more ports from 1 to 65535, separated by commas, are needed")
    if len(good) > PORTS_MAX:
        raise errors.bad_request(f"query parameter ports: at most {PORTS_MAX} ports")
    return good


async def serve(ws: web.WebSocketResponse, dialer: Dialer, where: locate.Place, wanted: list[int]) -> None:
    """Until the client ends, or every port's connection has.  Raises ConnectionResetError."""
    pieces: list[_Pieces] = [asyncio.Queue(WAITING_MAX) for _ in wanted]
    for i, port in enumerate(wanted):
        for channel in (2 * i, 2 * i + 1):
            await ws.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
    forwards = asyncio.gather(*(_forward(ws, dialer, where, i, port, pieces[i]) for i, port in enumerate(wanted)))
    listening = asyncio.create_task(_listen(ws, pieces), name="pods/portforward: input")
    try:
        await asyncio.wait((forwards, listening), return_when=asyncio.FIRST_COMPLETED)
        if forwards.done():
            forwards.result()
    finally:
        forwards.cancel()
        listening.cancel()
        await asyncio.gather(forwards, listening, return_exceptions=True)


async def _listen(ws: web.WebSocketResponse, pieces: list[_Pieces]) -> None:
    while True:
        message = await ws.receive()
        if message.type is not WSMsgType.BINARY:
            return
        channel = message.data[0] if message.data else 1
        if channel % 2 == 0 and channel // 2 < len(pieces) and len(message.data) > 1:
            await pieces[channel // 2].put(message.data[1:])


async def _forward(
    ws: web.WebSocketResponse, dialer: Dialer, where: locate.Place, i: int, port: int, pieces: _Pieces
) -> None:
    trouble = ""
    try:
        session = await locate.begin(dialer, where, tunnel.Port(kind="port", port=port))
    except StatusError as e:
        trouble = e.message
    else:
        down = asyncio.create_task(_down(pieces, session), name="pods/portforward: down")
        try:
            while (data := await session.receive(tunnel.STDOUT)) is not None:
                await ws.send_bytes(bytes([2 * i]) + data)
        except TunnelBroken as e:
            trouble = str(e)
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
            await session.close()
    if trouble:
        text = f"error forwarding port {port} to pod {where.pod}, uid {where.uid}: {trouble}"
        await ws.send_bytes(bytes([2 * i + 1]) + text.encode())


async def _down(pieces: _Pieces, session: Session) -> None:
    with contextlib.suppress(TunnelBroken):  # told by the other direction
        while True:
            await session.send(tunnel.STDIN, await pieces.get())
