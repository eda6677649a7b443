from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edge.core.settings import PodSettings
from tests.contract.edge import rim


@pytest.fixture
async def engine() -> AsyncIterator[rim.Engine]:
    """A hub of its own for each test keeps its containers apart from all others on the machine."""
    async with rim.engine(f"test-{secrets.token_hex(6)}") as found:
        yield found


@pytest.fixture
async def node(engine: rim.Engine, tmp_path: Path) -> AsyncIterator[Callable[..., rim.Node]]:
    """Makes lives of one node, one after the other."""
    made: list[rim.Node] = []

    def make(settings: PodSettings = rim.QUICK, host: str = "") -> rim.Node:
        one = rim.Node("edge-test", engine.hub, tmp_path / "node", settings, host)
        made.append(one)
        return one

    yield make
    for one in made:
        await one.stop()
