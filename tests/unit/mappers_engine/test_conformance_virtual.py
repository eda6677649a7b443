"""The virtual driver passes the conformance suite; and the suite fails a driver that breaks a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mappers import conformance
from mappers.driver import PropertyError, PropertySpec, Reading
from mappers.virtual.bench import VirtualBench
from mappers.virtual.driver import VirtualDriver
from schemas.telemetry import Value


@pytest.mark.parametrize("case", conformance.CASES, ids=lambda c: c.__name__)
async def test_the_virtual_driver_conforms(case: conformance.Case) -> None:
    await conformance.check(case, VirtualDriver, VirtualBench)


class Pretender(VirtualDriver):
    """Says that it wrote, and did not."""

    async def write(self, property: PropertySpec, value: Value) -> Value:
        return value


class Hasty(VirtualDriver):
    """Lets one missing property take the others with it."""

    async def read(self, properties: Sequence[PropertySpec]) -> Mapping[str, Reading | PropertyError]:
        readings = await super().read(properties)
        for reading in readings.values():
            if isinstance(reading, PropertyError):
                raise reading
        return readings


@pytest.mark.parametrize(
    ("driver", "case"),
    [
        (Pretender, conformance.writes_and_reads_back),
        (Hasty, conformance.one_missing_property_costs_only_itself),
    ],
)
async def test_the_suite_finds_a_driver_that_breaks_a_rule(
    monkeypatch: pytest.MonkeyPatch, driver: type[VirtualDriver], case: conformance.Case
) -> None:
    monkeypatch.setattr(conformance, "WAIT_S", 0.5)
    with pytest.raises(AssertionError, match="not within 0.5 s"):
        await conformance.check(case, driver, VirtualBench)


async def test_run_tells_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        conformance, "CASES", (conformance.a_driver_can_be_closed_in_any_state, conformance.writes_and_reads_back)
    )
    monkeypatch.setattr(conformance, "WAIT_S", 0.5)
    closed, written = await conformance.run(Pretender, VirtualBench)
    assert (closed.name, closed.error) == ("a_driver_can_be_closed_in_any_state", "")
    assert written.name == "writes_and_reads_back" and written.error.startswith("AssertionError: not within 0.5 s")
