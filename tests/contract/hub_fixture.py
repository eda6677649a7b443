"""A whole hub for contract tests: made by ``init_hub``, supervised, with streams, and a CORE connection.

Import the fixture in a conftest:  ``from tests.contract.hub_fixture import hub``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus import connect, log
from bus.hub import health, init, streams, supervise


@dataclass
class RunningHub:
    """``core`` is a connection as CORE's admin, ``log`` the log over it."""

    hub: init.Hub
    server: supervise.NatsServer
    core: connect.Connection
    log: log.Log

    async def connect_core(self, name: str = "test") -> connect.Connection:
        return await connect.connect(core_settings(self.hub, name))


def core_settings(hub: init.Hub, name: str = "test") -> connect.ConnectSettings:
    return connect.ConnectSettings(tuple(hub.urls), name, credentials=hub.core_creds, ca=hub.ca_path)


async def start_hub(directory: Path, *, shards: int = 2, health_every_s: float = health.LOOK_EVERY_S) -> RunningHub:
    hub = init.init_hub(
        directory,
        hosts=["127.0.0.1"],
        ports=init.HubPorts(client=0, leaf=0, websocket=0),
        listen="127.0.0.1",
        shards=shards,
    )
    server = supervise.hub_server(hub, health_every_s=health_every_s)
    await server.start()
    try:
        core = await connect.connect(core_settings(hub))
    except BaseException:
        await server.stop()
        raise
    store = log.Log(core)
    await streams.ensure_streams(store, shards=hub.shards)
    return RunningHub(hub, server, core, store)


async def stop_hub(running: RunningHub) -> None:
    await running.log.close()
    await running.core.close()
    await running.server.stop()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[RunningHub]:
    running = await start_hub(tmp_path / "hub")
    yield running
    await stop_hub(running)
