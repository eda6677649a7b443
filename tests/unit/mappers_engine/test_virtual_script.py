"""The virtual driver plays what its manifest says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mappers.driver import Device, DeviceUnreachable, PropertyError, PropertySpec, Reading
from mappers.virtual import world
from mappers.virtual.driver import VirtualDriver
from mappers.virtual.script import WRONG, DeviceScript, PropertyScript


async def connected(request: pytest.FixtureRequest, **script: Any) -> VirtualDriver:
    name = request.node.name
    request.addfinalizer(lambda: world.forget(name))
    driver = VirtualDriver()
    await driver.connect(Device("ns", "d", DeviceScript.model_validate({"world": name, **script})))
    return driver


def spec(**script: Any) -> PropertySpec:
    return PropertySpec("p", "DOUBLE", PropertyScript.model_validate(script), True)


async def values(driver: VirtualDriver, one: PropertySpec, count: int) -> list[Any]:
    found = []
    for _ in range(count):
        reading = (await driver.read([one]))["p"]
        found.append(reading.value if isinstance(reading, Reading) else reading.reason)
    return found


async def test_sources(request: pytest.FixtureRequest) -> None:
    driver = await connected(request)
    assert await values(driver, spec(value=21.5), 2) == [21.5, 21.5]
    world.forget(request.node.name)
    driver = await connected(request)
    assert await values(driver, spec(sequence=[1, "x", True]), 4) == [1, "x", True, 1]
    world.forget(request.node.name)
    driver = await connected(request)
    assert await values(driver, spec(ramp={"from": 20, "to": 21, "step": 0.5}), 5) == [20, 20.5, 21, 20, 20.5]


async def test_faults(request: pytest.FixtureRequest) -> None:
    driver = await connected(request)
    faulty = spec(value=1, wrongType={"every": 3}, fail={"every": 4, "reason": "no sensor"})
    assert await values(driver, faulty, 6) == [1, 1, WRONG, "no sensor", 1, WRONG]


async def test_refused_connections_are_counted(request: pytest.FixtureRequest) -> None:
    for n in (1, 2):
        with pytest.raises(DeviceUnreachable, match=f"connection {n} of 2"):
            await connected(request, connect={"refuse": 2})
    await connected(request, connect={"refuse": 2})


async def test_a_connection_breaks_after_its_reads(request: pytest.FixtureRequest) -> None:
    driver = await connected(request, disconnectAfter=2)
    assert await values(driver, spec(value=1), 2) == [1, 1]
    with pytest.raises(DeviceUnreachable):
        await driver.read([spec(value=1)])
    with pytest.raises(DeviceUnreachable):
        await driver.read([spec(value=1)])
    again = await connected(request, disconnectAfter=2)
    assert await values(again, spec(value=1), 1) == [1]


async def test_writes_stay_and_may_be_refused(request: pytest.FixtureRequest) -> None:
    driver = await connected(request)
    locked = spec(value=1, write={"refuse": 1, "reason": "locked"})
    with pytest.raises(PropertyError, match="locked"):
        await driver.write(locked, 5)
    assert await driver.write(locked, 5) == 5
    await driver.close()
    assert await values(await connected(request), locked, 1) == [5]


@pytest.mark.parametrize(
    "script",
    [{"value": 1, "ramp": {}}, {"ramp": {"from": 0, "to": 1, "step": -1}}, {"fail": {"every": 0}}, {"colour": "red"}],
)
def test_scripts_that_can_not_be_are_refused(script: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PropertyScript.model_validate(script)
