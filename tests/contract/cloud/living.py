"""A served API with its controllers, and two nodes that run anything, for tests of what people type."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.contract.kube_served import Served, served
from tests.unit.cloud_controllers.kubelets import Cluster, running

BEAT_S = 0.02  # how often the nodes look


def _ends(pod: dict[str, Any]) -> str:
    return "" if pod["spec"]["restartPolicy"] == "Always" else "Succeeded"


@asynccontextmanager
async def living(folder: Path, ends: Callable[[dict[str, Any]], str] = _ends) -> AsyncIterator[Served]:
    async with served(folder) as found, running(Cluster(found.storage, found.api)) as cluster:
        for name in ("edge-1", "edge-2"):
            await cluster.node(name)
        nodes = asyncio.create_task(_live(cluster, ends))
        try:
            yield found
        finally:
            nodes.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await nodes


async def _live(cluster: Cluster, ends: Callable[[dict[str, Any]], str]) -> None:
    while True:
        await cluster.kubelets(ends=ends)
        await asyncio.sleep(BEAT_S)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]
