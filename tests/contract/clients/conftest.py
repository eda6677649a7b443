"""A served API with all controllers and two nodes that run what they are given, for programs that users bring."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.clients import binaries
from tests.contract.kube_served import Served, served
from tests.unit.cloud_controllers.kubelets import Cluster, running

BEAT_S = 0.02  # how often the nodes look


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """Every program, by name: kubectl-1.35 and so on, helm."""
    found = {f"kubectl-{minor}": binaries.kubectl(minor) for minor in binaries.MINORS}
    return {**found, "helm": binaries.helm()}


@pytest.fixture
async def cluster(tmp_path: Path, programs: dict[str, Path]) -> AsyncIterator[Served]:
    async with served(tmp_path) as api, running(Cluster(api.storage, api.api)) as world:
        for name in ("edge-1", "edge-2"):
            await world.node(name)
        nodes = asyncio.create_task(_live(world))
        yield api
        nodes.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await nodes


async def _live(world: Cluster) -> None:
    while True:
        await world.kubelets(ends=lambda p: "" if p["spec"].get("restartPolicy", "Always") == "Always" else "Succeeded")
        await asyncio.sleep(BEAT_S)
