"""A boiler that speaks Modbus TCP: a temperature that follows a set-point slowly, and some registers of every kind.

    python -m mappers.modbus.simulator --port 1502 --seed 7        prints "listening on 127.0.0.1:1502" when ready

It is a real Modbus server (pymodbus), made to be polled in the demo and in tests, and by hand while writing a manifest.
The temperature is a function of the seed, the set-points written, and the number of steps (ten a second).

| register | what | as |
|---|---|---|
| HoldingRegister 0 | set-point, writable | int16, scale 0.1, C |
| HoldingRegister 1 | power limit, writable | uint16, % |
| HoldingRegister 2-3 | operating seconds | uint32 |
| HoldingRegister 4-5 | gain, writable | float32 |
| HoldingRegister 6-9 | serial number | string of 8 |
| InputRegister 0 | temperature | int16, scale 0.1, C |
| InputRegister 1-2 | temperature | float32 |
| InputRegister 3-4 | temperature, registers swapped | float32 |
| CoilRegister 0 | heater on, writable | bit |
| DiscreteInputRegister 0 | temperature above 80 C | bit |
All else answers "illegal data address".
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

STEP_S = 0.1
START_C = 20.0
FOLLOW = 0.02  # of the distance to the set-point in one step: nine tenths of the way in about 12 s
NOISE_C = 0.05
ALARM_C = 80.0
READS = {1: "coils", 2: "discrete", 3: "holding", 4: "input"}


@dataclass(slots=True)
class Boiler:
    """The physics, without any I/O."""

    seed: int
    setpoint_c: float = START_C
    temperature_c: float = START_C
    heater: bool = True
    power: int = 100
    gain: float = 1.0
    steps: int = 0
    frozen: bool = False  # the temperature stays where it was put
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def step(self) -> None:
        self.steps += 1
        if self.frozen:
            return
        target = self.setpoint_c if self.heater else START_C
        self.temperature_c += (target - self.temperature_c) * FOLLOW + self._random.uniform(-NOISE_C, NOISE_C)


def _words(form: str, value: float) -> list[int]:
    raw = struct.pack(form, value)
    return list(struct.unpack(f">{len(raw) // 2}H", raw))


class ModbusSimulator:
    """``start`` and ``stop`` as often as wished: the boiler goes on where it was, on the same port."""

    def __init__(self, *, port: int = 0, seed: int = 1, host: str = "127.0.0.1", rtu_framing: bool = False) -> None:
        self.host = host
        self.port = port
        self.boiler = Boiler(seed)
        self.delay_s = 0.0  # of every answer: a slow device
        self.requests = 0
        self._framer = FramerType.RTU if rtu_framing else FramerType.SOCKET
        self._server: ModbusTcpServer | None = None
        self._stepping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        assert self._server is None, "it runs already"
        device = SimDevice(
            1,
            (
                [SimData(0, values=[True] * 16, datatype=DataType.BITS)],
                [SimData(0, values=[False] * 16, datatype=DataType.BITS)],
                [SimData(0, values=[0] * 10, datatype=DataType.REGISTERS)],
                [SimData(0, values=[0] * 5, datatype=DataType.REGISTERS)],
            ),
            action=self._action,
        )
        self._server = ModbusTcpServer(device, framer=self._framer, address=(self.host, self.port))
        await self._server.serve_forever(background=True)
        listener = cast(asyncio.Server, self._server.transport)  # pymodbus keeps it under a transport's name
        self.port = listener.sockets[0].getsockname()[1]
        self._stepping = asyncio.create_task(self._step_for_ever(), name="modbus.simulator")

    async def stop(self) -> None:
        """No connection, no listener: the plug is pulled."""
        if self._stepping is not None:
            self._stepping.cancel()
            with suppress(asyncio.CancelledError):
                await self._stepping
            self._stepping = None
        if self._server is not None:
            server, self._server = self._server, None
            server.serving.cancel()
            server.close()
            await asyncio.sleep(0)  # the transports close in the next round of the loop

    async def drop(self) -> None:
        """Every connection is cut; new ones are taken."""
        assert self._server is not None
        for connection in list(self._server.active_connections.values()):
            cast(asyncio.Transport, connection.transport).abort()

    async def _step_for_ever(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            self.boiler.step()

    async def _action(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """pymodbus calls this before each answer, with the registers of the block that was asked for."""
        self.requests += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        boiler = self.boiler
        if written is not None:
            return self._write(function, address, written)
        match READS.get(function):
            case "coils":
                registers[0] = int(boiler.heater)
            case "discrete":
                registers[0] = int(boiler.temperature_c > ALARM_C)
            case "holding":
                setpoint = struct.pack(">h", round(boiler.setpoint_c * 10))
                registers[:10] = [
                    int.from_bytes(setpoint, "big"),
                    boiler.power,
                    *_words(">I", int(boiler.steps * STEP_S)),
                    *_words(">f", boiler.gain),
                    *struct.unpack(">4H", b"SKERRY-1"),
                ]
            case "input":
                tenths = struct.pack(">h", round(boiler.temperature_c * 10))
                single = _words(">f", boiler.temperature_c)
                registers[:5] = [int.from_bytes(tenths, "big"), *single, *reversed(single)]
        return None

    def _write(self, function: int, address: int, written: Sequence[int | bool]) -> ExcCodes | None:
        boiler = self.boiler
        if function in (5, 15):
            if address != 0 or len(written) != 1:
                return ExcCodes.ILLEGAL_ADDRESS
            boiler.heater = bool(written[0])
            return None
        match address, len(written):
            case 0, 1:
                (tenths,) = struct.unpack(">h", int(written[0]).to_bytes(2, "big"))
                boiler.setpoint_c = tenths / 10
            case 1, 1:
                if int(written[0]) > 100:
                    return ExcCodes.ILLEGAL_VALUE
                boiler.power = int(written[0])
            case 4, 2:
                (boiler.gain,) = struct.unpack(">f", struct.pack(">2H", *(int(w) for w in written)))
            case _:
                return ExcCodes.ILLEGAL_ADDRESS
        return None


async def _serve(port: int, seed: int, host: str) -> None:
    simulator = ModbusSimulator(port=port, seed=seed, host=host)
    await simulator.start()
    print(f"listening on {simulator.host}:{simulator.port}", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    await simulator.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="A simulated boiler that speaks Modbus TCP")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    parser.add_argument("--seed", type=int, default=1, help="of the temperature's noise")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    given = parser.parse_args()
    asyncio.run(_serve(given.port, given.seed, given.host))


if __name__ == "__main__":
    main()
