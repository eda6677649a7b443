"""Fifty hollow nodes on a real hub: they hold what the log says, through a restart of the hub and through being away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloud import beats, sync
from ops.fleet import feed, fleet, truth
from ops.lab.processes import Processes
from tests.contract.hub_fixture import RunningHub, hub

__all__ = ["hub"]
pytestmark = pytest.mark.contract

NODES, OBJECTS = 50, 5


@asynccontextmanager
async def cloud(hub: RunningHub) -> AsyncIterator[sync.SyncService]:
    service = sync.SyncService(hub.core, hub.log, shards=hub.hub.shards)
    answers = beats.Beats(hub.core, lambda node, beat: None, lambda: True)
    await service.start()
    await answers.start()
    yield service
    await answers.stop()
    await service.stop()


@asynccontextmanager
async def running(hub: RunningHub, folder: Path, **more: int) -> AsyncIterator[fleet.Fleet]:
    processes = Processes(folder)
    async with fleet.Fleet(processes, hub.hub.dir, NODES, workers=1, beat_s=1.0, reports=False, **more) as nodes:
        yield nodes
    assert processes.alive() == []


async def _converged(hub: RunningHub, nodes: fleet.Fleet) -> None:
    digest, objects = await truth.digest(hub.log, hub.hub.shards, nodes.names)
    assert await nodes.hold(objects, 30) == objects
    assert await nodes.digest() == digest


async def test_a_fleet_converges_through_a_restart_of_the_hub_and_an_absence(hub: RunningHub, tmp_path: Path) -> None:
    feeding = feed.Feed(hub.log, hub.hub.shards, cluster=False)
    async with cloud(hub) as service, running(hub, tmp_path / "fleet") as nodes:
        await feeding.load(nodes.names, OBJECTS)
        await nodes.ask("connect")
        await nodes.settle(seconds=30)
        await _converged(hub, nodes)
        status = await nodes.status()
        assert (status["connections"], status["synced"], status["refused"]) == (NODES, NODES, 0)

        await feeding.changes(nodes.names, OBJECTS, rate=200, seconds=0.5)
        assert len(await nodes.told(100, 30)) == 100, "each stamped change is told once, live"

        asked, since = service.answered, time.monotonic()
        await hub.server.stop()
        await hub.server.start()
        while not hub.core.connected:
            await asyncio.sleep(0.02)
        await feeding.change_share(nodes.names, OBJECTS, 0.5)
        await nodes.settle(since=since, seconds=60)
        await _converged(hub, nodes)
        assert service.answered >= asked + NODES, "after a lost connection each node asks what it missed"

        await nodes.ask("away")
        changed = await feeding.change_share(nodes.names, OBJECTS, 0.3)
        await feeding.tell_all(1)
        before = await nodes.status()
        await nodes.ask("connect")
        await nodes.settle(seconds=60)
        await _converged(hub, nodes)
        after = await nodes.status()
        assert (before["connections"], after["connections"]) == (0, NODES)
        assert 0 < after["page_events"] <= changed + NODES, "a catch-up carries what changed, not what is there"


async def test_many_nodes_on_one_connection_are_many_nodes(hub: RunningHub, tmp_path: Path) -> None:
    feeding = feed.Feed(hub.log, hub.hub.shards, cluster=False)
    async with cloud(hub), running(hub, tmp_path / "fleet", per_connection=25) as nodes:
        await feeding.load(nodes.names, OBJECTS)
        await nodes.ask("connect")
        await nodes.settle(seconds=30)
        await feeding.tell_all(1)
        assert len(await nodes.told(NODES, 30)) == NODES
        await _converged(hub, nodes)
        assert (await nodes.status())["connections"] == NODES / 25
