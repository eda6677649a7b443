"""pods/exec and pods/attach: a command's channels, between a client (``channels``) and a session of the tunnel.

Source: kubernetes, pkg/kubelet/cri/streaming/remotecommand for what is sent when.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiohttp import web
from pydantic import ValidationError

from bus.kube import errors
from bus.kube.errors import StatusError
from bus.tunnel import Dialer, Session, TunnelBroken
from cloud.node_api import channels, locate, query
from schemas import tunnel

logger = structlog.get_logger(__name__)

API_FLAGS = ("stdin", "stdout", "stderr")  # of the query, in the API
KUBELET_FLAGS = ("input", "output", "error")  # and in a kubelet's


async def serve(
    dialer: Dialer, where: locate.Place, request: web.Request, what: tunnel.Exec | tunnel.Attach, actor: str
) -> web.StreamResponse:
    """Raises StatusError, before the upgrade; what fails later is told on the error channel."""
    where.must_have_node()
    pod = f"{where.namespace}/{where.pod}"
    try:
        client = await channels.accept(request, what)
    except channels.NoStreams as e:
        logger.warning("node_api.no_streams", actor=actor, pod=pod, reason=str(e))
        return e.answer
    logger.info(f"node_api.{what.kind}", actor=actor, node=where.node, pod=pod, container=what.container)
    try:
        session = await locate.begin(dialer, where, what)
    except StatusError as e:
        await client.end(e.as_status())
        return client.answer
    try:
        await client.end(await _bridge(client, session, what))
    except ConnectionResetError:
        pass  # the client has gone
    finally:
        await session.close()
    return client.answer


def asked(
    request: web.Request, kind: str, container: str, flags: tuple[str, str, str] = API_FLAGS
) -> tunnel.Exec | tunnel.Attach:
    """Raises StatusError 400."""
    q = request.query
    attach = kind == "attach"
    tty = query.flag(q, "tty")
    stdin, stdout = query.flag(q, flags[0]), query.flag(q, flags[1], attach and flags is API_FLAGS)
    stderr = query.flag(q, flags[2], attach and flags is API_FLAGS) and not tty  # a terminal has one output
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


async def _bridge(client: channels.Client, session: Session, what: tunnel.Exec | tunnel.Attach) -> dict[str, Any]:
    """The Status of the end.  Raises ConnectionResetError when nobody is there to hear it."""
    outputs = [c for c, wanted in ((tunnel.STDOUT, what.stdout), (tunnel.STDERR, what.stderr)) if wanted]
    listening = asyncio.create_task(_listen(client, session, what.stdin), name=f"pods/{what.kind}: input")
    talking = asyncio.create_task(_talk(client, session, outputs), name=f"pods/{what.kind}: output")
    idle = asyncio.create_task(client.idle(), name=f"pods/{what.kind}: alive")
    try:
        await asyncio.wait((listening, talking), return_when=asyncio.FIRST_COMPLETED)
        if not talking.done() and not listening.result():
            await talking  # its input has nowhere to go any more; its output may still come
    finally:
        for task in (listening, talking, idle):
            task.cancel()
        await asyncio.gather(listening, talking, idle, return_exceptions=True)
    if talking.cancelled():
        raise ConnectionResetError("the client has gone")
    return talking.result()


async def _listen(client: channels.Client, session: Session, stdin: bool) -> bool:
    """Whether the client has gone; else the session takes no more input."""
    try:
        while (heard := await client.hear()) is not None:
            channel, data = heard
            if channel == tunnel.RESIZE and data:
                await session.send(tunnel.RESIZE, data[: tunnel.CHUNK_BYTES_MAX])
            elif channel == tunnel.STDIN and stdin:
                if data is None:
                    await session.end(tunnel.STDIN)
                else:
                    await session.send(tunnel.STDIN, data)
        return True
    except TunnelBroken:
        return False


async def _talk(client: channels.Client, session: Session, outputs: list[int]) -> dict[str, Any]:
    """Everything that was said, and then the Status of its end."""

    async def one(channel: int) -> None:
        while (data := await session.receive(channel)) is not None:
            await client.say(channel, data)

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
