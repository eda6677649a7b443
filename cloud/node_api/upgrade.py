"""Which of Kubernetes' streaming protocols a request speaks, and the refusal of those that are not spoken here.

kubectl speaks WebSocket since 1.31 (exec, attach, port-forward), and SPDY/3.1 when that is refused; before, and a
kube-apiserver towards a kubelet, only SPDY.  Everything else about a request is checked before, so that the true reason
of a refusal is read.
Source: KEP 4006, "Transition from SPDY to WebSockets"; apimachinery's httpstream (the handshake of SPDY).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from aiohttp import WSMsgType, web

from bus.kube import errors
from cloud.node_api import rawstream

CLOSE_S = 3.0  # for a client to answer the end of its WebSocket
MESSAGE_BYTES_MAX = (1 << 20) + 64  # kubectl sends 32 KiB, the official Python client 1 MiB and the channel's number
PONG_S = 10.0  # a client whose input waits gets no answers to its pings; kubectl gives up after 60 s without any
SPDY = "SPDY/3.1"
VERSION_HEADER = "X-Stream-Protocol-Version"


class Pipe(Protocol):
    """Bytes both ways, whatever carries them."""

    async def receive(self) -> bytes | None:
        """None when the client has gone."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises ConnectionResetError."""
        ...


class WebSocketPipe:
    """The bytes inside a WebSocket."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self._ws = ws

    async def receive(self) -> bytes | None:
        message = await self._ws.receive()
        return message.data if message.type is WSMsgType.BINARY else None

    async def send(self, data: bytes) -> None:
        await self._ws.send_bytes(data)


def wants_spdy(request: web.Request) -> bool:
    return any(k.lower() == SPDY.lower() for k in _kinds(request)) and "websocket" not in _kinds(request)


def _kinds(request: web.Request) -> list[str]:
    return [k.strip().lower() for k in request.headers.get("Upgrade", "").split(",")]


def version(request: web.Request, known: Sequence[str]) -> str:
    """The first protocol that a client of SPDY offers and that is known here.  Raises StatusError 400, 403."""
    offered = [p.strip() for h in request.headers.getall(VERSION_HEADER, []) for p in h.split(",")]
    found = next((p for p in offered if p in known), "")
    if not found:
        said = f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {list(known)}"
        raise errors.StatusError(403, "Forbidden", said)
    return found


async def spdy(request: web.Request, protocol: str) -> rawstream.RawStream:
    """Raises ConnectionResetError."""
    return await rawstream.take(request, {"Connection": "Upgrade", "Upgrade": SPDY, VERSION_HEADER: protocol})


def websocket(request: web.Request, protocols: Sequence[str]) -> web.WebSocketResponse:
    """Not prepared yet.  Raises StatusError 400."""
    if "websocket" not in _kinds(request):
        raise errors.bad_request("Upgrade request required")
    if request.method != "GET":
        raise errors.bad_request("a WebSocket is opened by GET")
    offered = [p.strip() for h in request.headers.getall("Sec-WebSocket-Protocol", []) for p in h.split(",")]
    if not set(offered) & set(protocols):
        raise errors.bad_request(f"none of the subprotocols {', '.join(protocols)} was offered")
    return web.WebSocketResponse(
        protocols=protocols, timeout=CLOSE_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False, autoclose=False
    )


async def pongs(ws: web.WebSocketResponse) -> None:
    """Until cancelled."""
    with contextlib.suppress(ConnectionResetError):
        while True:
            await asyncio.sleep(PONG_S)
            await ws.pong()
