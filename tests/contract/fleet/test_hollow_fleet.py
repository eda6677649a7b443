"""Fifty hollow nodes on a real hub: they hold what the log says, through a restart of the hub and through being away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
async def running(hub: RunningHub, folder: Path, **more: Any) -> AsyncIterator[fleet.Fleet]:
    processes = Processes(folder)
    async with fleet.Fleet(processes, hub.hub.dir, NODES, workers=1, beat_s=1.0, reports=False, **more) as nodes:
        yield nodes
    assert processes.alive() == []


async def _converged(hub: RunningHub, nodes: fleet.Fleet) -> None:
    digest, objects = await truth.digest(hub.log, hub.hub.shards, nodes.names)
    assert await nodes.holds(objects, digest, 30)


async def test_a_fleet_converges_through_a_restart_of_the_hub_and_an_absence(hub: RunningHub, tmp_path: Path) -> None:
    feeding = feed.Feed(hub.log, hub.hub.shards, cluster=False)
    async with cloud(hub) as service, running(hub, tmp_path / "fleet") as nodes:
        await feeding.load(nodes.names, OBJECTS)
        await nodes.connect()
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
        await nodes.connect()
        await nodes.settle(seconds=60)
        await _converged(hub, nodes)
        after = await nodes.status()
        assert (before["connections"], after["connections"]) == (0, NODES)
        assert 0 < after["page_events"] <= changed + NODES, "a catch-up carries what changed, not what is there"


async def test_many_nodes_on_one_connection_are_many_nodes(hub: RunningHub, tmp_path: Path) -> None:
    feeding = feed.Feed(hub.log, hub.hub.shards, cluster=False)
    async with cloud(hub), running(hub, tmp_path / "fleet", per_connection=25) as nodes:
        await feeding.load(nodes.names, OBJECTS)
        await nodes.connect()
        await nodes.settle(seconds=30)
        await feeding.tell_all(1)
        assert len(await nodes.told(NODES, 30)) == NODES
        await _converged(hub, nodes)
        assert (await nodes.status())["connections"] == nodes.connections == NODES / 25


async def test_a_worker_that_ends_and_a_command_that_fails_are_said(hub: RunningHub, tmp_path: Path) -> None:
    async with running(hub, tmp_path / "fleet") as nodes:
        with pytest.raises(fleet.FleetError, match="nonsense"):
            await nodes.ask("nonsense")
        assert (await nodes.status())["nodes"] == NODES, "a failed command leaves the worker as it was"
        os.kill(nodes.pids[0], signal.SIGKILL)
        with pytest.raises(fleet.FleetError, match="ended"):
            while True:
                await nodes.status()


async def test_no_more_nodes_are_connected_when_there_is_enough(hub: RunningHub, tmp_path: Path) -> None:
    """The hub's door is shut: nobody comes in, and the fleet goes on with those who did, which is nobody."""
    await hub.server.stop()
    async with running(hub, tmp_path / "fleet") as nodes:
        connecting = asyncio.create_task(nodes.connect())
        while not (await nodes.status())["nodes"]:
            await asyncio.sleep(0.05)
        await nodes.ask("enough")
        with pytest.raises(fleet.FleetError, match="no node came to have a connection"):
            await connecting
