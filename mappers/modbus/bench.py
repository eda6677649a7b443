"""The simulated boiler on the conformance bench."""

from __future__ import annotations

from typing import Any

from mappers.modbus.simulator import ModbusSimulator


class ModbusBench:
    def __init__(self, *, rtu_framing: bool = False) -> None:
        self._rtu = rtu_framing
        self._simulator = ModbusSimulator(rtu_framing=rtu_framing)
        self._simulator.boiler.frozen = True
        self._running = False

    async def start(self) -> None:
        await self._simulator.start()
        self._running = True

    async def stop(self) -> None:
        await self._simulator.stop()
        self._running = False

    async def drop(self) -> None:
        await self._simulator.drop()

    async def close(self) -> None:
        if self._running:
            await self.stop()

    def show(self, value: float) -> None:
        self._simulator.boiler.temperature_c = value

    def config(self) -> dict[str, Any]:
        framing = "rtu" if self._rtu else "socket"
        return {"ip": self._simulator.host, "port": self._simulator.port, "slaveID": 1, "timeout": 1000, "framing": framing}

    def bad_config(self) -> dict[str, Any]:
        return {"port": self._simulator.port, "slaveID": 1}

    def readable(self) -> dict[str, Any]:
        return {"register": "InputRegister", "offset": 0, "limit": 1, "scale": 0.1, "dataType": "int16"}

    def writable(self) -> dict[str, Any]:
        return {"register": "HoldingRegister", "offset": 0, "limit": 1, "scale": 0.1, "dataType": "int16"}

    def missing(self) -> dict[str, Any]:
        return {"register": "HoldingRegister", "offset": 4711, "limit": 1}

    def bad_visitor(self) -> dict[str, Any]:
        return {"register": "HoldingRegister", "offset": 0, "limit": 3}
