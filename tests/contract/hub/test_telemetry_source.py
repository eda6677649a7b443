"""Telemetry from a leaf's stream to the hub's: each sample once, through cut links and kill -9 on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import log, tasks
from bus.hub import telemetry
from bus.hub.nudger import Nudger
from bus.identity import join, keys, permissions, tokens
from cloud import joining, telemetry_sources
from schemas import event, identity, subjects
from tests.contract import node_fixture
from tests.contract.bus import plain
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


async def sources(hub: RunningHub) -> list[str]:
    return [s["external"]["api"] for s in (await hub.log.info("TELEMETRY")).config.get("sources") or []]


async def test_a_node_has_a_source_while_it_has_devices(hub: RunningHub, tmp_path: Path) -> None:
    """Also when another one left it out or put one in, and under its new key when it joined anew."""

    async def until(*wanted: str) -> None:
        async with asyncio.timeout(20):
            while await sources(hub) != list(wanted):
                await asyncio.sleep(0.05)

    def api(folder: str) -> str:
        return f"{subjects.uplink('edge-1', permissions.life_of(join.public_key(tmp_path / folder)))}.api"

    async with node_fixture.join_service(hub):
        await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        await node_fixture.join_node(hub, tmp_path / "m", "edge-2")
        assert await sources(hub) == []
        await telemetry.add_telemetry_source(hub.log, "edge-2", join.public_key(tmp_path / "m"))  # left by an older version
        keeper = asyncio.create_task(telemetry_sources.TelemetrySources(hub.log, linger_s=0.5).run())
        await until()
        for name in ("d1", "d2"):
            await hub.log.append(device(name), made(name, {"spec": {"nodeName": "edge-1"}}))
        await until(api("n"))
        await telemetry.remove_telemetry_source(hub.log, "edge-1")  # a nudge that died half-way
        await hub.log.append(device("d1"), made("d1", None))
        await until(api("n"))
        replace = await tokens.create_token(hub.log, hub.hub, node="edge-1")
        await join.join(replace, "edge-1", tmp_path / "new")
        await until(api("new"))
        await hub.log.append(device("d2"), made("d2", {"spec": {}}))
        await until()
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


def device(name: str) -> str:
    return subjects.cluster(subjects.ObjectKey(telemetry_sources.DEVICES, "devices", "default", name))


def made(name: str, data: dict[str, Any] | None) -> event.Event:
    return plain.make_event(subjects.ObjectKey(telemetry_sources.DEVICES, "devices", "default", name), data)


def test_a_source_lingers_after_the_last_device_and_goes_with_the_node() -> None:
    w = telemetry_sources.Wanted(linger_s=60)
    bound: dict[str, object] = {"spec": {"nodeName": "edge-1"}}
    w.device("a", bound, 0)
    assert w.now(0) == {}, "not joined"
    w.node("edge-1", identity.NodeState(public_key="K", token="t"))
    w.device("a", bound, 1)  # told twice
    w.device("b", bound, 1)
    w.device("a", None, 2)
    assert w.now(500) == {"edge-1": "K"} and w.next_s() is None
    w.pause("edge-1", 530)
    assert w.now(529) == {} and w.next_s() == 530, "paused: what it measures stays on it"
    assert w.now(530) == {"edge-1": "K"} and w.next_s() is None
    w.device("b", {"spec": {"nodeName": "edge-2"}}, 500)
    assert w.now(559) == {"edge-1": "K"} and w.next_s() == 560
    assert w.now(560) == {} and w.next_s() is None
    w.device("a", bound, 600)
    w.node("edge-1", identity.NodeState(public_key="K", token="t", revoked=True))
    assert w.now(601) == {}
    for bad in ({"spec": 5}, {"spec": {"nodeName": 7}}, {}):
        w.device("c", bad, 602)
    assert w.now(700) == {}
