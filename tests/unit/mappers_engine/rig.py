"""An engine in virtual time with a driver that a test can steer, and everything that came out of it with its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from mappers.driver import Device, DeviceUnreachable, Driver, PropertyError, PropertySpec, Reading
from mappers.engine import Engine
from mappers.memory import MemoryDaemon, MemorySamples
from mappers.settings import Settings
from schemas import subjects
from schemas.devices import DeviceConfig, Property, TwinUpdate, TwinUpdateAnswer
from schemas.reports import TwinValue
from schemas.telemetry import Sample, Value

START_US = 1_790_000_000_000_000


def now() -> float:
    """Seconds since the loop began."""
    return asyncio.get_running_loop().time() - 1000.0


@dataclass
class Thing:
    """A device that does as it is told."""

    values: dict[str, Any] = field(default_factory=lambda: {"t": 20.0})
    refuse: bool = False
    read_s: float = 0.0
    hang: bool = False
    bug: Exception | None = None
    write_error: Exception | None = None
    ignores_writes: bool = False
    connects: list[float] = field(default_factory=list)
    reads: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    writes: list[tuple[float, str, Any]] = field(default_factory=list)
    open: int = 0


class ThingConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    thing: str = "one"
    address: int = 1


class ThingVisitor(BaseModel):
    model_config = ConfigDict(extra="forbid")

    offset: int = 0


class Rig:
    def __init__(self, settings: Settings | None = None) -> None:
        self.things: dict[str, Thing] = {"one": Thing(), "two": Thing()}
        self.daemon = TimedDaemon()
        self.samples = MemorySamples()
        self.settings = settings or Settings()
        things = self.things

        class ThingDriver(Driver):
            protocol = "thing"
            device_config = ThingConfig
            visitor_config = ThingVisitor

            def __init__(self) -> None:
                self.thing: Thing | None = None

            async def connect(self, device: Device) -> None:
                thing = things[device.config.thing]
                thing.connects.append(now())
                if thing.refuse:
                    raise DeviceUnreachable("the thing refuses")
                self.thing = thing
                thing.open += 1

            async def read(self, properties: Sequence[PropertySpec]) -> Mapping[str, Reading | PropertyError]:
                assert self.thing is not None
                self.thing.reads.append((now(), tuple(p.name for p in properties)))
                await asyncio.sleep(3600 if self.thing.hang else self.thing.read_s)
                if self.thing.refuse:
                    raise DeviceUnreachable("the thing is gone")
                if self.thing.bug is not None:
                    raise self.thing.bug
                found: dict[str, Reading | PropertyError] = {}
                for p in properties:
                    value = self.thing.values.get(p.name)
                    found[p.name] = PropertyError(p.name, "not there") if value is None else Reading(value)
                return found

            async def write(self, property: PropertySpec, value: Value) -> Value:
                assert self.thing is not None
                self.thing.writes.append((now(), property.name, value))
                if self.thing.write_error is not None:
                    raise self.thing.write_error
                if not self.thing.ignores_writes:
                    self.thing.values[property.name] = value
                return value

            async def close(self) -> None:
                if self.thing is not None:
                    self.thing.open -= 1
                    self.thing = None

        self.driver = ThingDriver

    @asynccontextmanager
    async def engine(self, *devices: DeviceConfig) -> AsyncIterator[None]:
        self.daemon.set_devices(*devices)
        engine = Engine(
            self.driver,
            self.daemon,
            self.samples,
            boot="b1",
            wall_us=lambda: START_US + int(now() * 1e6),
            random=lambda: 1.0,  # no shortening: times in the tests are exact
            settings=self.settings,
        )
        task = asyncio.create_task(engine.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def seen(self, prop: str = "t", device: str = "one") -> list[Sample]:
        return self.samples.by_subject.get(subjects.telemetry("edge-1", "default", device, prop), [])

    def twin(self, prop: str = "t", device: str = "one") -> TwinValue:
        return self.daemon.twins[device, prop]


class TimedDaemon(MemoryDaemon):
    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self.refuse = False
        self.asked = 0

    async def devices(self) -> Any:
        self.asked += 1
        return await super().devices()

    async def report(self, update: TwinUpdate) -> TwinUpdateAnswer:
        if self.refuse:
            return TwinUpdateAnswer(ok=False, message="the disk is full")
        answer = await super().report(update)
        if answer.ok:
            self.times.append(now())
        return answer


def prop(name: str = "t", **more: Any) -> Property:
    return Property(**{"name": name, "type": "DOUBLE", "writable": True, **more})


def device(name: str = "one", *properties: Property, **more: Any) -> DeviceConfig:
    fields: dict[str, Any] = {
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "model": "m",
        "protocol": "thing",
        "config": {"thing": name},
        "properties": list(properties) or [prop()],
        "rev": 1,
    }
    return DeviceConfig(**{**fields, **more})


async def until(true: Callable[[], bool], step_s: float = 0.01, limit_s: float = 3600.0) -> float:
    """Virtual seconds until it is so."""
    began = now()
    while not true():
        assert now() - began < limit_s, "never"
        await asyncio.sleep(step_s)
    return now() - began
