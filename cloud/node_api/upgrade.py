"""Which of Kubernetes' streaming protocols a request speaks, and the refusal of those that are not spoken here.

kubectl speaks WebSocket since 1.31 (exec, attach, port-forward), and SPDY/3.1 when that is refused; so a refusal
of SPDY is what its user reads.  Everything else about a request is checked before, so that the true reason is read instead.
Source: KEP 4006, "Transition from SPDY to WebSockets".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from aiohttp import web

from bus.kube import errors

CLOSE_S = 3.0  # for a client to answer the end of its WebSocket
MESSAGE_BYTES_MAX = (1 << 20) + 64  # kubectl sends 32 KiB, the official Python client 1 MiB and the channel's number
PONG_S = 10.0  # a client whose input waits gets no answers to its pings; kubectl gives up after 60 s without any


def websocket(request: web.Request, protocols: Sequence[str]) -> web.WebSocketResponse:
    """Not prepared yet.  Raises StatusError 400."""
    kinds = [k.strip().lower() for k in request.headers.get("Upgrade", "").split(",")]
    if "websocket" not in kinds:
        if any(k.startswith("spdy/") for k in kinds):
            raise errors.bad_request(
                "this server streams over WebSocket, not over SPDY: use kubectl 1.31 or later "
                "(1.29 and 1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true and KUBECTL_PORT_FORWARD_WEBSOCKETS=true)"
            )
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
