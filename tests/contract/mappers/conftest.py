from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.connect import Connection, connect
from mappers.modbus.simulator import ModbusSimulator
from tests.contract.mappers.leaf import Leaf


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Leaf]:
    server = Leaf(tmp_path / "leaf")
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def watcher(server: Leaf) -> AsyncIterator[Connection]:
    """With the daemon's rights."""
    connection = await connect(server.settings("daemon", "watcher"))
    yield connection
    await connection.close()


@pytest.fixture
async def connection(server: Leaf) -> AsyncIterator[Connection]:
    """With a mapper's rights."""
    connection = await connect(server.settings("mapper", "mapper"))
    yield connection
    await connection.close()


@pytest.fixture
async def simulator() -> AsyncIterator[ModbusSimulator]:
    simulator = ModbusSimulator(seed=7)
    await simulator.start()
    yield simulator
    await simulator.stop()
