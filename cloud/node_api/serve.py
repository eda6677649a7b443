"""The handlers of this room, for ``bus.kube.server.make_app(connect=...)``."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from bus.connect import Connection
from bus.kube import errors
from bus.kube.http.context import Connect, Virtual
from bus.kube.registry import Registry
from bus.kube.targets import Target
from bus.tunnel import Dialer
from cloud.node_api import commands, locate, logs, metrics, portforward, usages


class NodeApi:
    """``start`` before serving, ``stop`` before the server stops: its streams end then."""

    def __init__(self, connection: Connection, rules: Registry) -> None:
        self._rules = rules
        self._dialer = Dialer(connection)
        self._usages = usages.Usages(self._dialer, rules.now_us)
        self._metrics = metrics.Metrics(self._usages, rules)

    async def start(self) -> None:
        await self._dialer.start()

    async def stop(self) -> None:
        await self._usages.stop()
        await self._dialer.stop()

    def handlers(self) -> Mapping[str, Connect]:
        return {
            "pods/log": self._logs,
            "pods/exec": self._exec,
            "pods/attach": self._exec,
            "pods/portforward": self._portforward,
        }

    def kinds(self) -> list[Virtual]:
        """What is served and stored nowhere, for ``make_app(virtual=...)``."""
        return [Virtual(metrics.NODES, self._metrics.nodes), Virtual(metrics.PODS, self._metrics.pods)]

    async def _logs(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        where = await locate.place(self._rules, target)
        return await logs.serve(self._dialer, where, request, request.query.get("container", ""))

    async def _exec(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        if request.method not in ("GET", "POST"):
            raise errors.method_not_allowed("", f"pods/{target.subresource}", request.method)
        where = await locate.place(self._rules, target)
        what = commands.asked(request, target.subresource, where.container(request.query.get("container", "")))
        return await commands.serve(self._dialer, where, request, what, actor)

    async def _portforward(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        return await portforward.serve(self._dialer, await locate.place(self._rules, target), request, actor)
