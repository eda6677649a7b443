"""pods/exec and pods/attach over WebSocket: each message begins with the number of its channel.

Source: kubernetes, k8s.io/apimachinery/pkg/util/remotecommand (v4: results as Status on channel 3; v5: channel 255 closes
another), pkg/kubelet/cri/streaming/remotecommand for what is sent when.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import structlog
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from bus.kube import errors
from bus.kube.errors import StatusError
from bus.kube.registry import Registry
from bus.kube.targets import Target
from bus.tunnel import Dialer, Session, TunnelBroken
from cloud.node_api import locate, query, upgrade
from schemas import tunnel

logger = structlog.get_logger(__name__)

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
CLOSE_CHANNEL = 255


async def serve(dialer: Dialer, rules: Registry, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
    """Raises StatusError, before the upgrade; what fails later is told on the error channel."""
    if request.method not in ("GET", "POST"):
        raise errors.method_not_allowed("", f"pods/{target.subresource}", request.method)
    where = await locate.place(rules, target)
    what = _what(request, target.subresource, where.container(request.query.get("container", "")))
    where.must_have_node()
    ws = upgrade.websocket(request, (V5, V4))
    await ws.prepare(request)
    pod = f"{where.namespace}/{where.pod}"
    logger.info(f"node_api.{what.kind}", actor=actor, node=where.node, pod=pod, container=what.container)
    await ws.send_bytes(bytes([tunnel.STDOUT if what.stdout else tunnel.STDERR if what.stderr else tunnel.ERROR]))
    try:
        session = await locate.begin(dialer, where, what)
    except StatusError as e:
        await _end(ws, e.as_status())
        return ws
    try:
        await _bridge(ws, session, what)
    except ConnectionResetError:
        pass  # the client has gone
    finally:
        await session.close()
    return ws


def _what(request: web.Request, kind: str, container: str) -> tunnel.Exec | tunnel.Attach:
    """Raises StatusError 400."""
    q = request.query
    attach = kind == "attach"
    tty = query.flag(q, "tty")
    stdin, stdout = query.flag(q, "stdin"), query.flag(q, "stdout", attach)
    stderr = query.flag(q, "stderr", attach) and not tty  # a terminal has one output
    if not (stdin or stdout or stderr):
        raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    try:
        if attach:
            return tunnel.Attach(kind="attach", container=container, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
        command = q.getall("command", [])
        if not command:
            raise errors.bad_request("you must specify at least one command for the container")
        return tunnel.Exec(
            kind="exec", container=container, command=command, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )
    except ValidationError as e:
        raise errors.bad_request(f"the command is too long: {e.errors()[0]['msg']}") from e


async def _bridge(ws: web.WebSocketResponse, session: Session, what: tunnel.Exec | tunnel.Attach) -> None:
    """Raises ConnectionResetError."""
    outputs = [c for c, wanted in ((tunnel.STDOUT, what.stdout), (tunnel.STDERR, what.stderr)) if wanted]
    listening = asyncio.create_task(_listen(ws, session, what.stdin), name=f"pods/{what.kind}: input")
    talking = asyncio.create_task(_talk(ws, session, outputs), name=f"pods/{what.kind}: output")
    pongs = asyncio.create_task(upgrade.pongs(ws), name=f"pods/{what.kind}: pongs")
    try:
        await asyncio.wait((listening, talking), return_when=asyncio.FIRST_COMPLETED)
        if not talking.done() and not listening.result():
            await talking  # its input has nowhere to go any more; its output may still come
    finally:
        for task in (listening, talking, pongs):
            task.cancel()
        results = await asyncio.gather(listening, talking, pongs, return_exceptions=True)
    status = results[1]
    if isinstance(status, dict):
        await _end(ws, status)
    elif isinstance(status, Exception):
        raise status


async def _listen(ws: web.WebSocketResponse, session: Session, stdin: bool) -> bool:
    """Whether the client has gone; else the session takes no more input."""
    try:
        while True:
            message = await ws.receive()
            if message.type is WSMsgType.BINARY:
                data = message.data
            elif message.type is WSMsgType.TEXT:
                data = message.data.encode()
            else:
                return True
            if not data:
                continue
            channel, data = data[0], data[1:]
            if channel == tunnel.STDIN and stdin:
                await session.send(tunnel.STDIN, data)
            elif channel == tunnel.RESIZE:
                await session.send(tunnel.RESIZE, data[: tunnel.CHUNK_BYTES_MAX])
            elif channel == CLOSE_CHANNEL and data[:1] == bytes([tunnel.STDIN]) and ws.ws_protocol == V5:
                await session.end(tunnel.STDIN)
    except TunnelBroken:
        return False


async def _talk(ws: web.WebSocketResponse, session: Session, outputs: list[int]) -> dict[str, Any]:
    """Everything that was said, and then the Status of its end."""

    async def one(channel: int) -> None:
        while (data := await session.receive(channel)) is not None:
            await ws.send_bytes(bytes([channel]) + data)

    said = [asyncio.create_task(one(channel)) for channel in outputs]
    try:
        for task in said:
            await task
        ended = await session.finished()
    except TunnelBroken as e:
        return errors.internal(str(e)).as_status()
    finally:
        for task in said:
            task.cancel()
        await asyncio.gather(*said, return_exceptions=True)
    return _status(ended)


def _status(ended: tunnel.Ended) -> dict[str, Any]:
    if ended.code:
        return StatusError(ended.code, ended.reason, ended.message).as_status()
    if ended.exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {ended.exit_code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(ended.exit_code)}]},
    }


async def _end(ws: web.WebSocketResponse, status: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionResetError):
        await ws.send_bytes(bytes([tunnel.ERROR]) + json.dumps(status).encode())
        await ws.close()
