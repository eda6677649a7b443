"""pods/log: an HTTP answer that grows as long as the node sends.

Its end says whether it was all: a stream that broke has no last chunk, and every HTTP client tells ("unexpected EOF").
"""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from bus.kube import errors
from bus.tunnel import Dialer, Session, TunnelBroken
from cloud.node_api import locate, query
from schemas import tunnel

logger = structlog.get_logger(__name__)

LOOK_S = 1.0  # how soon a follower that hung up is noticed when there is nothing to tell it
TEXT = {"Content-Type": "text/plain", "Cache-Control": "no-cache, private"}


class Broken(Exception):
    """What was sent is not all."""


async def serve(dialer: Dialer, where: locate.Place, request: web.Request, container: str) -> web.StreamResponse:
    """Raises StatusError."""
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed("", "pods/log", request.method)
    what = query.logs(request.query, where.pod, where.container(container))
    response = web.StreamResponse(headers=TEXT)
    if not where.node or request.method == "HEAD":  # as the real server: nowhere yet, so nothing was logged
        await response.prepare(request)
        return response
    session = await locate.begin(dialer, where, what)
    try:
        await _answer(request, response, session)
    except Broken as e:
        logger.warning("node_api.logs_broken", node=where.node, pod=f"{where.namespace}/{where.pod}", reason=str(e))
        if request.transport is not None:
            request.transport.close()
    except ConnectionResetError:
        pass  # the reader has gone
    finally:
        await session.close()
    return response


async def _answer(request: web.Request, response: web.StreamResponse, session: Session) -> None:
    """Raises Broken, ConnectionResetError."""
    response.enable_chunked_encoding()
    await response.prepare(request)
    pump = asyncio.create_task(_pump(response, session), name="pods/log")
    gone = asyncio.create_task(hung_up(request), name="pods/log: does anybody listen")
    try:
        await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        if pump.done():
            pump.result()
            await response.write_eof()
    finally:
        for task in (pump, gone):
            task.cancel()
        await asyncio.gather(pump, gone, return_exceptions=True)


async def _pump(response: web.StreamResponse, session: Session) -> None:
    try:
        while (data := await session.receive(tunnel.STDOUT)) is not None:
            await response.write(data)
        ended = await session.finished()
    except TunnelBroken as e:
        raise Broken(str(e)) from e
    if ended.code:
        raise Broken(ended.message)


async def hung_up(request: web.Request) -> None:
    """Until the client is gone."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - aiohttp has no event
        await asyncio.sleep(LOOK_S)
