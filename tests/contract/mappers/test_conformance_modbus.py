"""The Modbus driver passes the conformance suite against a real Modbus server, with both framings."""

from __future__ import annotations

from functools import partial

import pytest

from mappers import conformance
from mappers.modbus.bench import ModbusBench
from mappers.modbus.driver import ModbusDriver

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("case", conformance.CASES, ids=lambda c: c.__name__)
async def test_modbus_tcp_conforms(case: conformance.Case) -> None:
    await conformance.check(case, ModbusDriver, ModbusBench)


@pytest.mark.parametrize("case", conformance.CASES[:2], ids=lambda c: c.__name__)
async def test_rtu_frames_over_tcp_conform(case: conformance.Case) -> None:
    await conformance.check(case, ModbusDriver, partial(ModbusBench, rtu_framing=True))
