"""Telemetry from a leaf's stream to the hub's: each sample once, through cut links and kill -9 on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus import log, tasks
from bus.hub import telemetry
from bus.hub.nudger import Nudger
from bus.identity import keys
from cloud import joining
from schemas import subjects
from tests.contract import node_fixture
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract

SUBJECT = subjects.telemetry("edge-1", "default", "meter", "volts")


class Meter:
    """Publishes numbers, each acknowledged by the leaf; one without acknowledgement is sent again under the same id."""

    def __init__(self, node: node_fixture.RunningNode) -> None:
        self._node = node
        self.sent = 0

    async def publish(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            while True:
                try:
                    await self._node.daemon.request(
                        SUBJECT, str(self.sent).encode(), timeout_s=1, headers={"Nats-Msg-Id": f"m{self.sent}"}
                    )
                    break
                except Exception:  # whatever the dead leaf makes of it: the id makes a retry harmless
                    await asyncio.sleep(0.05)


async def at_hub(hub: RunningHub) -> list[int]:
    info = await hub.log.info("TELEMETRY")
    found = []
    for seq in range(1, info.last_seq + 1):
        record = await hub.log.get("TELEMETRY", seq)
        assert record is not None and record.subject == SUBJECT
        assert telemetry.origin_is_true(record.subject, record.headers)
        found.append(int(record.payload))
    return found


async def until_at_hub(hub: RunningHub, count: int) -> None:
    told: object = None
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(log.LogError):  # the hub is being restarted
                    told = await hub.log.request("STREAM.INFO.TELEMETRY")
                    if told["state"]["messages"] >= count:
                        return
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{count} samples were sent, the hub says: {told}")


@asynccontextmanager
async def nudging(hub: RunningHub, service: joining.JoinService) -> AsyncIterator[None]:
    assert service._sys is not None
    nudger = Nudger(service._sys, hub.log, hub.hub.accounts.edge)
    task = asyncio.create_task(nudger.run())
    yield
    await tasks.end(task)


async def test_each_sample_once_through_kills_and_cuts(hub: RunningHub, tmp_path: Path) -> None:
    async with (
        node_fixture.join_service(hub) as service,
        nudging(hub, service),
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        meter = Meter(node)
        await meter.publish(50)
        await until_at_hub(hub, 50)
        for round_ in range(2):
            # the leaf dies while samples flow
            flow = asyncio.create_task(meter.publish(100))
            await asyncio.sleep(0.02)
            assert node.server.pid is not None
            os.kill(node.server.pid, signal.SIGKILL)
            await flow
            await until_at_hub(hub, meter.sent)
            # the hub dies while samples flow, and more come while it is away
            restarts = hub.server.restarts
            flow = asyncio.create_task(meter.publish(100))
            await asyncio.sleep(0.02)
            assert hub.server.pid is not None
            os.kill(hub.server.pid, signal.SIGKILL)
            await flow
            while hub.server.restarts == restarts or not hub.core.connected:
                await asyncio.sleep(0.05)
            await until_at_hub(hub, meter.sent)
            assert await at_hub(hub) == list(range(1, meter.sent + 1)), f"round {round_}"


async def test_a_hostile_leaf_is_found_out_by_the_source_of_its_messages(hub: RunningHub, tmp_path: Path) -> None:
    headers = {"Nats-Stream-Source": "TELEMETRY:abc 7 telemetry.edge-1.> > telemetry.edge-1.m.v"}
    assert telemetry.origin_is_true("telemetry.edge-1.m.v", headers)
    assert not telemetry.origin_is_true("telemetry.edge-10.m.v", headers)
    assert not telemetry.origin_is_true("telemetry.edge-2.m.v", headers)
    assert not telemetry.origin_is_true("telemetry.edge-1.m.v", {})
    assert not telemetry.origin_is_true("telemetry.edge-1.m.v", None)


async def test_sources_are_added_once_replaced_and_removed(hub: RunningHub) -> None:
    first, second = keys.generate("user").public, keys.generate("user").public
    assert await telemetry.add_telemetry_source(hub.log, "edge-1", first)
    assert not await telemetry.add_telemetry_source(hub.log, "edge-1", first)
    await telemetry.add_telemetry_source(hub.log, "edge-2", second)
    assert await telemetry.add_telemetry_source(hub.log, "edge-1", second)
    sources = (await hub.log.info("TELEMETRY")).config["sources"]
    assert sorted(s["filter_subject"] for s in sources) == ["telemetry.edge-1.>", "telemetry.edge-2.>"]
    assert await telemetry.remove_telemetry_source(hub.log, "edge-1")
    assert not await telemetry.remove_telemetry_source(hub.log, "edge-1")
    assert not await telemetry.nudge(hub.log, ["edge-1"])
    assert (await hub.log.info("TELEMETRY")).config["max_age"] > 0


async def test_a_source_that_a_dead_nudge_left_out_is_put_back(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub):
        await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        before = (await hub.log.info("TELEMETRY")).config["sources"]
    await telemetry.remove_telemetry_source(hub.log, "edge-1")
    async with node_fixture.join_service(hub):
        after = (await hub.log.info("TELEMETRY")).config["sources"]
    assert [s["external"]["api"] for s in after] == [s["external"]["api"] for s in before]
