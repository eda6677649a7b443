"""The whole way of a device on a node: Kubernetes objects, daemon, local bus, mapper, Modbus server, and back."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from bus.connect import Connection
from mappers.local import BusDaemon, DaemonUnavailable
from mappers.modbus.simulator import ModbusSimulator
from schemas.devices import DeviceConfig
from schemas.telemetry import Sample
from tests.contract.mappers import node
from tests.contract.mappers.leaf import NODE, Leaf

pytestmark = pytest.mark.contract

MODEL: dict[str, Any] = {
    "spec": {
        "protocol": "modbus",
        "properties": [
            {"name": "temperature", "type": "DOUBLE", "accessMode": "ReadOnly", "minimum": "-40", "maximum": "150"},
            {"name": "setpoint", "type": "DOUBLE", "accessMode": "ReadWrite", "minimum": "0", "maximum": "90"},
        ],
    }
}


def boiler(port: int, setpoint: str = "", **protocol: Any) -> dict[str, Any]:
    """A Device as the KubeEdge documentation writes them."""
    visitor = {"limit": 1, "scale": 0.1, "dataType": "int16", "isSwap": False, "isRegisterSwap": False}
    cycles = {"collectCycle": 50, "reportCycle": 200, "reportToCloud": True}
    temperature = {"protocolName": "modbus", "configData": {"register": "InputRegister", "offset": 0, **visitor}}
    register = {"protocolName": "modbus", "configData": {"register": "HoldingRegister", "offset": 0, **visitor}}
    return {
        "spec": {
            "deviceModelRef": {"name": "boiler-model"},
            "nodeName": NODE,
            "protocol": {
                "protocolName": "modbus",
                "configData": {"ip": "127.0.0.1", "port": port, "slaveID": 1, "timeout": 1000, **protocol},
            },
            "properties": [
                {"name": "temperature", **cycles, "visitors": temperature},
                {"name": "setpoint", **cycles, "visitors": register, "desired": {"value": setpoint}},
            ],
        }
    }


@pytest.fixture(autouse=True)
async def telemetry(watcher: Connection) -> None:
    await node.make_telemetry(watcher)


def complete(samples: list[Sample]) -> None:
    """Nothing lost, nothing twice, in order: in each run of the mapper 1, 2, 3 ..."""
    for boot, run in itertools.groupby(samples, key=lambda s: s.boot):
        numbers = [s.seq for s in run]
        assert numbers == list(range(1, len(numbers) + 1)), (boot, numbers[:100])


async def test_a_desired_set_point_comes_back_as_reported_twin(
    server: Leaf, watcher: Connection, simulator: ModbusSimulator, tmp_path: Path
) -> None:
    async with node.daemon(server, tmp_path / "store") as daemon, node.mapper(server):
        daemon.apply("devicemodels", "boiler-model", MODEL)
        daemon.apply("devices", "boiler", boiler(simulator.port))
        await node.until("online", lambda: (r := daemon.last()) is not None and r.state == "online", daemon.last)

        change = daemon.apply("devices", "boiler", boiler(simulator.port, "42.5"))
        await node.until("the register holds it", lambda: simulator.boiler.setpoint_c == 42.5)
        await node.until("the twin says so", lambda: (v := daemon.twin("setpoint")) is not None and v.desired == "42.5")
        [report] = [r for r in daemon.reports if r.cause == change.id]
        setpoint = next(v for v in report.report.twins if v.property == "setpoint")
        assert (setpoint.value, setpoint.desired, setpoint.quality) == (42.5, "42.5", "good")
        assert report.trace == change.trace
        hops = report.report.hops
        assert [h.what for h in hops] == ["edge.applied", "mapper.told", "device.written", "device.read-back"]
        assert [h.time for h in hops] == sorted(h.time for h in hops)

        await node.until("the temperature follows", lambda: (daemon.twin("temperature").value or 0) > 25)
        daemon.apply("devices", "boiler", boiler(simulator.port, "500"))
        await node.until("refused", lambda: "above the maximum" in daemon.twin("setpoint").reason)
        assert simulator.boiler.setpoint_c == 42.5
    seen = await node.samples(watcher, "temperature")
    complete(seen)
    assert len(seen) > 10 and len({s.value for s in seen}) > 3


async def test_telemetry_is_complete_over_a_killed_bus(
    server: Leaf, watcher: Connection, simulator: ModbusSimulator, tmp_path: Path
) -> None:
    """kill -9 of the leaf, three times, while samples are under way."""
    async with node.daemon(server, tmp_path / "store") as daemon:
        daemon.apply("devicemodels", "boiler-model", MODEL)
        daemon.apply("devices", "boiler", boiler(simulator.port))
        async with node.mapper(server):
            await node.until("online", lambda: (r := daemon.last()) is not None and r.state == "online", daemon.last)
            for _ in range(3):
                before = simulator.requests
                await node.until("polled", lambda before=before: simulator.requests > before + 10)  # type: ignore[misc]
                server.kill()
                before = simulator.requests
                await node.until("polled without a bus", lambda before=before: simulator.requests > before + 20)  # type: ignore[misc]
                await server.start()
                await node.until("connected again", lambda: watcher.connected)
    seen = await node.samples(watcher, "temperature")
    complete(seen)
    assert len(seen) > 60 and len({s.boot for s in seen}) == 1


async def test_a_restarted_mapper_goes_on(
    server: Leaf, watcher: Connection, simulator: ModbusSimulator, tmp_path: Path
) -> None:
    async with node.daemon(server, tmp_path / "store") as daemon:
        daemon.apply("devicemodels", "boiler-model", MODEL)
        daemon.apply("devices", "boiler", boiler(simulator.port, "30"))
        for _ in range(2):
            reports = len(daemon.reports)
            async with node.mapper(server):
                await node.until("told", lambda reports=reports: len(daemon.reports) > reports)  # type: ignore[misc]
                await node.until("written", lambda: (v := daemon.twin("setpoint")) is not None and v.desired == "30")
    seen = await node.samples(watcher, "temperature")
    complete(seen)
    assert len({s.boot for s in seen}) == 2


async def test_a_restarted_daemon_knows_its_twins(
    server: Leaf, watcher: Connection, simulator: ModbusSimulator, tmp_path: Path
) -> None:
    async with node.mapper(server):
        async with node.daemon(server, tmp_path / "store") as daemon:
            daemon.apply("devicemodels", "boiler-model", MODEL)
            daemon.apply("devices", "boiler", boiler(simulator.port, "30"))
            await node.until("written", lambda: (v := daemon.twin("setpoint")) is not None and v.desired == "30")

        def loaded(again: node.Daemon) -> None:
            assert again.twin("setpoint").value == 30.0 and again.twin("setpoint").desired == "30"
            again.apply("devicemodels", "boiler-model", MODEL)
            again.apply("devices", "boiler", boiler(simulator.port, "30"))
            assert again.reports == []  # nothing changed, so nothing is said

        async with node.daemon(server, tmp_path / "store", loaded) as again:
            again.apply("devices", "boiler", boiler(simulator.port, "35"))
            await node.until("written again", lambda: (v := again.twin("setpoint")) is not None and v.desired == "35")
            again.apply("devices", "boiler", None)
            assert dict(again.store.items("state")) == {}


async def test_a_full_disk_delays_a_report_and_loses_none(
    server: Leaf, watcher: Connection, simulator: ModbusSimulator, tmp_path: Path
) -> None:
    async with node.daemon(server, tmp_path / "store") as daemon, node.mapper(server):
        daemon.apply("devicemodels", "boiler-model", MODEL)
        daemon.apply("devices", "boiler", boiler(simulator.port))
        await node.until("online", lambda: (r := daemon.last()) is not None and r.state == "online", daemon.last)
        daemon.full = True
        daemon.apply("devices", "boiler", boiler(simulator.port, "33"))
        await node.until("the device has it", lambda: simulator.boiler.setpoint_c == 33.0)
        count = len(daemon.reports)
        before = simulator.requests
        await node.until("polls go on", lambda: simulator.requests > before + 10)
        assert len(daemon.reports) == count
        daemon.full = False

        def told() -> bool:
            last = daemon.last()
            return last is not None and any(v.desired == "33" for v in last.twins)

        await node.until("reported after all", told, daemon.last)


async def test_a_device_that_is_configured_badly_says_so_in_its_twin(
    server: Leaf, watcher: Connection, simulator: ModbusSimulator, tmp_path: Path
) -> None:
    async with node.daemon(server, tmp_path / "store") as daemon, node.mapper(server):
        daemon.apply("devices", "boiler", boiler(simulator.port))
        await node.until(
            "model missing", lambda: "DeviceModel default/boiler-model" in getattr(daemon.last(), "message", "")
        )
        daemon.apply("devicemodels", "boiler-model", MODEL)
        daemon.apply("devices", "boiler", boiler(simulator.port, slaveID=300))
        await node.until("bad unit", lambda: "configData.slaveID" in getattr(daemon.last(), "message", ""), daemon.last)
        daemon.apply("devices", "boiler", boiler(simulator.port))
        await node.until("online", lambda: (r := daemon.last()) is not None and r.state == "online", daemon.last)


async def _listed(asker: BusDaemon) -> list[DeviceConfig]:
    try:
        return (await asker.devices()).devices
    except DaemonUnavailable:  # not listening yet
        return []


async def test_pages_of_a_long_device_list(server: Leaf, connection: Connection, tmp_path: Path) -> None:
    """A list far above one message arrives whole."""
    async with node.daemon(server, tmp_path / "store") as daemon:
        daemon.apply("devicemodels", "boiler-model", MODEL)
        padding = "x" * 20_000
        for i in range(60):
            daemon.apply("devices", f"boiler-{i:03}", boiler(502, padding=padding), uid=f"uid-{i}")
        asker = BusDaemon(connection, "modbus", "test", 10)
        while not (listed := await _listed(asker)):
            await asyncio.sleep(0.02)
    assert [d.name for d in listed] == [f"boiler-{i:03}" for i in range(60)]
