"""Modbus without a wire: configurations as KubeEdge's samples write them, registers to values and back, batches."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mappers.driver import BadValue, PropertyError, PropertySpec
from mappers.modbus.batching import batches
from mappers.modbus.config import READ_REGISTERS_MAX, DeviceConfig, VisitorConfig
from mappers.modbus.convert import FORMATS, REGISTERS_OF, Layout, decode, encode, layout
from mappers.modbus.simulator import Boiler


def visitor(**fields: Any) -> VisitorConfig:
    return VisitorConfig.model_validate({"register": "HoldingRegister", "offset": 0, **fields})


def spec(kind: str = "DOUBLE", minimum: float | None = None, **fields: Any) -> PropertySpec:
    return PropertySpec("p", kind, visitor(**fields), True, minimum)  # type: ignore[arg-type]


# --- configurations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown", "unit"),
    [
        ({"ip": "172.17.0.3", "port": 1502}, "172.17.0.3:1502", 1),
        ({"ip": "10.0.0.1", "port": "502", "slaveID": "17"}, "10.0.0.1:502", 17),
        ({"tcp": {"ip": "10.0.0.1", "port": 503, "slaveID": 3}}, "10.0.0.1:503", 3),
        ({"slaveID": 1, "serialPort": "/dev/ttyS0", "baudRate": 115200, "dataBits": 8, "parity": "even", "stopBits": 1},
         "/dev/ttyS0", 1),
        ({"com": {"serialPort": "/dev/ttyUSB0", "baudRate": 9600}, "slaveID": 2}, "/dev/ttyUSB0", 2),
        ({"ip": "10.0.0.1", "somethingOfTheirs": True}, "10.0.0.1:502", 1),
    ],
)  # fmt: skip
def test_devices_as_published_samples_write_them(raw: dict[str, Any], shown: str, unit: int) -> None:
    config = DeviceConfig.model_validate(raw)
    assert (str(config), config.unit) == (shown, unit)


@pytest.mark.parametrize(("timeout", "ms"), [(500, 500), (3_000_000_000, 3000), (60_000, 8000), (0, 2000)])
def test_timeouts_are_milliseconds_and_bounded(timeout: int, ms: int) -> None:
    assert DeviceConfig.model_validate({"ip": "h", "timeout": timeout}).timeout_ms == ms


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"ip": "h", "port": 0},
        {"ip": "h", "port": 70000},
        {"ip": "h", "slaveID": 300},
        {"serialPort": "x", "parity": "?"},
    ],
)
def test_devices_that_can_not_be_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeviceConfig.model_validate(raw)


def test_the_visitor_of_the_kubeedge_documentation() -> None:
    found = VisitorConfig.model_validate(
        {"register": "HoldingRegister", "offset": 2, "limit": 1, "scale": 1, "isSwap": True, "isRegisterSwap": True}
    )
    assert (found.register_type, found.offset, found.limit, found.is_swap, found.is_register_swap) == (
        "HoldingRegister", 2, 1, True, True
    )  # fmt: skip
    assert VisitorConfig.model_validate({"register": "coil", "offset": "3", "scale": 0}).scale == 1.0


@pytest.mark.parametrize(
    ("given_spec", "data_type", "count"),
    [
        (spec("INT"), "uint16", 1),
        (spec("INT", minimum=-40), "int16", 1),
        (spec("INT", limit=2), "uint32", 2),
        (spec("INT", limit=4, dataType="int64"), "int64", 4),
        (spec("FLOAT"), "float32", 2),
        (spec("FLOAT", limit=1, scale=0.1), "uint16", 1),
        (spec("DOUBLE", limit=2), "float32", 2),
        (spec("DOUBLE"), "float64", 4),
        (spec("DOUBLE", dataType="float"), "float32", 2),
        (spec("STRING", limit=8), "string", 8),
        (spec("BOOLEAN"), "uint16", 1),
        (spec("BOOLEAN", register="CoilRegister", limit=1), "bool", 1),
    ],
)
def test_the_data_type_follows_from_what_is_written(given_spec: PropertySpec, data_type: str, count: int) -> None:
    found = layout(given_spec)
    assert (found.data_type, found.count) == (data_type, count)


@pytest.mark.parametrize(
    "bad",
    [
        spec(limit=3),
        spec(dataType="int32", limit=1),
        spec(dataType="complex"),
        spec(register="CoilRegister", limit=2),
        spec(offset=65535, limit=2),
    ],
)
def test_layouts_that_can_not_be_are_refused(bad: PropertySpec) -> None:
    with pytest.raises(PropertyError):
        layout(bad)


# --- registers -------------------------------------------------------------------------------------------------------


def test_swaps() -> None:
    one = struct.unpack(">2H", struct.pack(">I", 0x01020304))
    assert decode(one, visitor(), "uint32") == 0x01020304
    assert decode(one, visitor(isRegisterSwap=True), "uint32") == 0x03040102
    assert decode(one, visitor(isSwap=True), "uint32") == 0x02010403
    assert decode(one, visitor(isSwap=True, isRegisterSwap=True), "uint32") == 0x04030201


def test_scaling_gives_the_number_that_a_person_expects() -> None:
    assert decode([217], visitor(scale=0.1), "int16") == 21.7
    assert encode(21.7, visitor(scale=0.1), "int16", 1) == ([217], 21.7)
    assert encode(21.74, visitor(scale=0.1), "int16", 1) == ([217], 21.7)
    assert encode(-0.1, visitor(scale=0.1), "int16", 1) == ([0xFFFF], -0.1)


@pytest.mark.parametrize(
    ("value", "data_type"),
    [(40000, "int16"), (-1, "uint16"), (1e39, "float32"), (float("nan"), "int16"), ("x", "int16"), (float("inf"), "int32")],
)
def test_what_does_not_fit_is_refused(value: Any, data_type: Any) -> None:
    with pytest.raises(BadValue):
        encode(value, visitor(), data_type, REGISTERS_OF[data_type])


def test_texts() -> None:
    assert encode("abc", visitor(), "string", 2) == ([0x6162, 0x6300], b"abc\0")
    with pytest.raises(BadValue):
        encode("abcde", visitor(), "string", 2)


@given(
    st.data(), st.sampled_from(sorted(FORMATS)), st.booleans(), st.booleans(), st.sampled_from([1.0, 0.1, 0.01, 10.0, -2.0])
)
def test_what_was_written_reads_back(data: st.DataObject, kind: Any, swap: bool, registers: bool, scale: float) -> None:
    how = visitor(isSwap=swap, isRegisterSwap=registers, scale=scale)
    width = int("".join(c for c in kind if c.isdigit()))
    if kind.startswith("float"):
        edge = 2.0**60
        raw: Any = data.draw(st.floats(-edge, edge, width=32 if width == 32 else 64))
    else:
        low = 0 if kind.startswith("u") else -(1 << (width - 1))
        raw = data.draw(st.integers(low, (1 << (width - (0 if low == 0 else 1))) - 1))
    try:
        words, shown = encode(raw * scale, how, kind, REGISTERS_OF[kind])
    except BadValue:  # rounding at the very edge of the type, or a float beyond float32
        return
    assert decode(words, how, kind) == shown


# --- batches ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(["HoldingRegister", "CoilRegister"]), st.integers(0, 300), st.integers(1, 4)), max_size=60
    )
)
def test_every_property_is_in_exactly_one_batch_that_covers_it(places: list[tuple[str, int, int]]) -> None:
    layouts = {str(i): Layout(kind, offset, count, "uint16") for i, (kind, offset, count) in enumerate(places)}
    found = batches(layouts.items())
    assert sorted(name for batch in found for name in batch.names) == sorted(layouts)
    for batch in found:
        touched = {i for name in batch.names for i in range(layouts[name].offset, layouts[name].end)}
        assert touched == set(range(batch.offset, batch.offset + batch.count)), "no register that nobody asked for"
        assert all(layouts[name].kind == batch.kind for name in batch.names)
        assert batch.kind == "CoilRegister" or batch.count <= READ_REGISTERS_MAX


def test_the_boiler_is_a_function_of_its_seed() -> None:
    def story(seed: int) -> list[float]:
        boiler = Boiler(seed, setpoint_c=60.0)
        temperatures = []
        for _ in range(200):
            boiler.step()
            temperatures.append(boiler.temperature_c)
        return temperatures

    assert story(1) == story(1) != story(2)
    assert 55 < story(1)[-1] < 61
