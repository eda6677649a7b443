"""The ports that kubelets listen on: one for all nodes, and those that Node objects name as their own.

The Nodes are the only memory of who has which port (cloud/core/kubelets.py), so every replica listens on the same ones.
"""

from __future__ import annotations

import asyncio
import ssl

import structlog
from aiohttp import web

from bus.kube.storage import Reader
from cloud.core import kubelets
from cloud.kubelet.settings import Settings

logger = structlog.get_logger(__name__)

LOOK_S = 1.0  # how soon a new node's port is served
SHUTDOWN_S = 2.0  # for answers under way; streams have ended by then


class Ports:
    """``start`` listens on the port of all, ``run`` until cancelled on the others, ``stop`` ends every connection."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._settings, self._reader = settings, reader
        self._runner: web.AppRunner | None = None
        self._tls: ssl.SSLContext | None = None
        self._sites: dict[int, web.TCPSite] = {}
        self._nodes: dict[int, str] = {}
        self._taken: set[int] = set()  # said once
        self.port = 0

    def node_of(self, port: int) -> str:
        """ "" for the port of all."""
        return self._nodes.get(port, "")

    async def start(self, app: web.Application, tls: ssl.SSLContext) -> None:
        """Raises OSError when the port is taken."""
        self._tls = tls
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await self._listen(self._settings.listen_port)
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]

    async def _listen(self, port: int) -> web.TCPSite:
        assert self._runner is not None
        site = web.TCPSite(self._runner, self._settings.listen_host, port, ssl_context=self._tls)
        await site.start()
        return site

    async def run(self) -> None:
        seen: int | None = None
        while True:
            changed = self._reader.changed("", "nodes")
            if changed != seen or self._taken:
                seen = changed
                await self._settle()
            await asyncio.sleep(LOOK_S)

    async def _settle(self) -> None:
        wanted = {
            port: node.key.name
            for node in self._reader.list("", "nodes")
            if (port := kubelets.port_of(node.object)) in self._settings.ports
        }
        self._nodes = wanted
        for port in [p for p in self._sites if p not in wanted]:
            await self._sites.pop(port).stop()
        for port in [p for p in wanted if p not in self._sites]:
            try:
                self._sites[port] = await self._listen(port)
                self._taken.discard(port)
            except OSError as e:
                if port not in self._taken:
                    self._taken.add(port)
                    logger.error("kubelet.port_taken", port=port, node=wanted[port], reason=str(e))
        self._taken &= set(wanted)

    async def stop(self) -> None:
        if self._runner is None:
            return
        server = self._runner.server
        open_now = [c.transport for c in server.connections if c.transport is not None] if server else []
        await self._runner.cleanup()
        for transport in open_now:  # closing TLS waits for the peer, which may never answer
            transport.abort()
        await asyncio.sleep(0)
