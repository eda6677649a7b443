"""The Modbus driver: pymodbus' asynchronous client behind the engine's contract.

pymodbus' own retries and reconnecting are off: the engine owns both.  A serial line needs pyserial, is opened by one device
at a time (several units on one line need a Modbus gateway for now), and is untested on real hardware.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from mappers.driver import BadValue, Device, DeviceUnreachable, Driver, PropertyError, PropertySpec, Reading
from mappers.modbus import config as configs
from mappers.modbus.batching import Batch, batches
from mappers.modbus.config import PARITY, VisitorConfig
from mappers.modbus.convert import Layout, decode, encode, layout
from schemas.telemetry import Value

# Modbus application protocol 1.1b3, 7
EXCEPTIONS = {
    1: "illegal function: the device doesn't have this kind of register",
    2: "illegal data address: the device doesn't have these registers",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge: the device needs longer",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target didn't respond",
}
UNREACHABLE = (10, 11)  # a gateway says that the device behind it is not there
ILLEGAL_ADDRESS = 2

# pymodbus prints frame dumps for what is said here in one sentence; a configured root logger still gets them.
logging.getLogger("pymodbus").addHandler(logging.NullHandler())

Client = AsyncModbusTcpClient | AsyncModbusSerialClient


class _Refused(Exception):
    """A Modbus exception response."""

    def __init__(self, code: int) -> None:
        super().__init__(EXCEPTIONS.get(code, f"exception {code}"))
        self.code = code


class ModbusDriver(Driver):
    protocol: ClassVar[str] = "modbus"
    device_config: ClassVar[type[BaseModel]] = configs.DeviceConfig
    visitor_config: ClassVar[type[BaseModel]] = VisitorConfig

    def __init__(self) -> None:
        self._client: Client | None = None
        self._config: configs.DeviceConfig | None = None

    def check(self, property: PropertySpec) -> None:
        layout(property)

    async def connect(self, device: Device) -> None:
        config: configs.DeviceConfig = device.config
        await self.close()
        self._config, self._client = config, _client(config)
        if not await self._client.connect():
            raise DeviceUnreachable(f"no Modbus connection to {config}")

    async def read(self, properties: Sequence[PropertySpec]) -> Mapping[str, Reading | PropertyError]:
        specs = {spec.name: spec for spec in properties}
        layouts = {name: layout(spec) for name, spec in specs.items()}
        found: dict[str, Reading | PropertyError] = {}
        for batch in batches(layouts.items()):
            found.update(await self._read_batch(batch, specs, layouts))
        return found

    async def _read_batch(
        self, batch: Batch, specs: Mapping[str, PropertySpec], layouts: Mapping[str, Layout]
    ) -> dict[str, Reading | PropertyError]:
        try:
            data = await self._request(batch)
        except _Refused as e:
            if e.code == ILLEGAL_ADDRESS and len(batch.names) > 1:  # one of them is wrong: the others should go on
                found: dict[str, Reading | PropertyError] = {}
                for name in batch.names:
                    one = Batch(batch.kind, layouts[name].offset, layouts[name].count, (name,))
                    found.update(await self._read_batch(one, specs, layouts))
                return found
            where = f"{batch.kind} {batch.offset}" + (f" to {batch.offset + batch.count - 1}" if batch.count > 1 else "")
            return {name: PropertyError(name, f"reading {where}: {e}") for name in batch.names}
        readings: dict[str, Reading | PropertyError] = {}
        for name in batch.names:
            start = layouts[name].offset - batch.offset
            part = data[start : start + layouts[name].count]
            if len(part) < layouts[name].count:
                readings[name] = PropertyError(name, f"the device answered {len(data)} of {batch.count} registers")
            elif layouts[name].bits:
                readings[name] = Reading(bool(part[0]))
            else:
                readings[name] = Reading(decode([int(r) for r in part], specs[name].visitor, layouts[name].data_type))
        return readings

    async def write(self, property: PropertySpec, value: Value) -> Value:
        place = layout(property)
        client, unit = self._connected()
        try:
            if place.kind == "CoilRegister":
                if not isinstance(value, bool | int):
                    raise BadValue(f"{value!r} can't be written to a coil")
                await _answered(lambda: client.write_coil(place.offset, bool(value), device_id=unit))
                return bool(value)
            if place.kind != "HoldingRegister":
                raise PropertyError(property.name, f"a {place.kind} can't be written: Modbus has no request for it")
            registers, shown = encode(value, property.visitor, place.data_type, place.count)
            if len(registers) == 1:
                await _answered(lambda: client.write_register(place.offset, registers[0], device_id=unit))
            else:
                await _answered(lambda: client.write_registers(place.offset, registers, device_id=unit))
            return shown
        except _Refused as e:
            raise PropertyError(property.name, f"writing {place.kind} {place.offset}: {e}") from e

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def _request(self, batch: Batch) -> list[int] | list[bool]:
        """Registers or bits.  Raises _Refused, DeviceUnreachable."""
        client, unit = self._connected()
        read = {
            "CoilRegister": client.read_coils,
            "DiscreteInputRegister": client.read_discrete_inputs,
            "InputRegister": client.read_input_registers,
            "HoldingRegister": client.read_holding_registers,
        }[batch.kind]
        answer = await _answered(lambda: read(batch.offset, count=batch.count, device_id=unit))
        bits = batch.kind in ("CoilRegister", "DiscreteInputRegister")
        return list(answer.bits)[: batch.count] if bits else list(answer.registers)

    def _connected(self) -> tuple[Client, int]:
        if self._client is None or self._config is None:
            raise DeviceUnreachable("not connected")
        return self._client, self._config.unit


def _client(config: configs.DeviceConfig) -> Client:
    timeout_s = config.timeout_ms / 1000
    if config.ip:
        framer = FramerType.RTU if config.framing == "rtu" else FramerType.SOCKET
        return AsyncModbusTcpClient(
            config.ip, port=config.port, framer=framer, timeout=timeout_s, retries=0, reconnect_delay=0
        )
    try:
        return AsyncModbusSerialClient(
            config.serial_port,
            baudrate=config.baud_rate,
            bytesize=config.data_bits,
            parity=PARITY[config.parity],
            stopbits=config.stop_bits,
            timeout=timeout_s,
            retries=0,
            reconnect_delay=0,
        )
    except RuntimeError as e:  # what pymodbus raises without pyserial
        raise DeviceUnreachable(f"the serial line {config.serial_port} can't be opened: {e}") from e


async def _answered(request: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
    """The answer to a request.  Raises _Refused, DeviceUnreachable."""
    try:
        answer = await request()  # without a connection the call itself raises already
    except (ModbusException, OSError) as e:
        raise DeviceUnreachable(f"no answer: {e}") from e
    if answer.isError():
        code = int(answer.exception_code)
        if code in UNREACHABLE:
            raise DeviceUnreachable(EXCEPTIONS[code])
        raise _Refused(code)
    return answer
