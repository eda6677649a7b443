"""A proxy in front of an API server that misbehaves on demand: cuts, refusals, delays, swallowed events, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from cloud.bridge.credentials import Credentials

Rule = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FaultyProxy:
    """``rules`` answer instead of the server; ``swallow`` says which watch lines are lost, ``repeat`` how often each is
    told; ``limit``: objects of a page at most; ``requests``: what was asked.  With ``who`` it asks the server as them."""

    def __init__(self, upstream: str, who: Credentials | None = None) -> None:
        self.upstream, self.who = upstream, who
        self.repeat, self.limit = 1, 0
        self.garble: Callable[[dict[str, Any]], bool] = lambda event: False  # the lines that arrive as no JSON
        self.rules: list[Rule] = []
        self.swallow: Callable[[dict[str, Any]], bool] = lambda event: False
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._watches: set[asyncio.Transport] = set()
        self._site: web.TCPSite | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=0))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self.up()

    async def up(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """As an API server that is killed: nobody listens, and every connection is gone."""
        assert self._site is not None and self._runner.server is not None
        await self._site.stop()
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def stop(self) -> None:
        await self._http.close()
        await self.down()
        await self._runner.cleanup()
        await asyncio.sleep(0.05)

    @property
    def watches(self) -> int:
        return len(self._watches)

    def cut(self) -> None:
        """Every watch ends in the middle."""
        for transport in list(self._watches):
            transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.requests.append((request.method, request.path, query))
        for rule in list(self.rules):
            answer = await rule(request)
            if answer is not None:
                return answer
        skip = ("Host", "Content-Length", "Transfer-Encoding", "Connection", "Accept-Encoding")
        headers = {k: v for k, v in request.headers.items() if k not in skip}
        if self.who is not None:
            headers |= await self.who.headers()
        if self.limit and "limit" in query:
            query["limit"] = str(min(self.limit, int(query["limit"])))
        body = await request.read()
        url = self.upstream + request.path
        try:
            tls = self.who.tls if self.who is not None else False
            async with self._http.request(
                request.method, url, params=query, headers=headers, data=body or None, ssl=tls
            ) as r:
                if query.get("watch") == "1":
                    return await self._stream(request, r)
                return web.Response(status=r.status, body=await r.read(), content_type="application/json")
        except aiohttp.ClientError as e:
            return web.Response(status=502, text=repr(e))

    async def _stream(self, request: web.Request, r: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=r.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        transport = request.transport
        assert transport is not None
        self._watches.add(transport)
        try:
            with contextlib.suppress(ConnectionResetError):
                async for line in lines(r):
                    event = json.loads(line)
                    if self.garble(event):
                        line = line[: len(line) // 2]
                    if not self.swallow(event):
                        await response.write((line + b"\n") * self.repeat)
        finally:
            self._watches.discard(transport)
        return response


async def lines(r: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in r.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


def status(code: int, reason: str, message: str = "as the test wants it") -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code)
