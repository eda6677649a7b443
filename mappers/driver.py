"""The contract of a driver: two declared configurations and four coroutines.

A driver speaks one protocol with one device and knows nothing else.  Reconnecting, backoff, polling, batching by time,
conversion to the model's type, ranges, quality, thresholds, writing what is desired, and telling anyone about it are the
engine's (``mappers/engine.py``): a driver that did them itself would do them differently from the next one.

    class Thermometer(Driver):
        protocol = "thermometer"
        device_config = ThermometerConfig      # pydantic: protocol.configData
        visitor_config = ThermometerVisitor    # pydantic: visitors.configData of each property

        async def connect(self, device): ...
        async def read(self, properties): return {p.name: Reading(21.5) for p in properties}
        async def write(self, property, value): return value
        async def close(self): ...

Rules
* One driver object per device; the engine never calls two of its coroutines at once.  ``connect`` may be called again after
  ``close``.
* Coroutines must not block the event loop, and must stand being cancelled: the engine ends a call that takes too long.
* The device does not answer: DeviceUnreachable.  It answers, but not for this property: PropertyError.  A value can't be
  expressed in the device's registers: BadValue.  Everything else counts as a bug of the driver, and is said as such.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel

from schemas.devices import PropertyType
from schemas.telemetry import Quality, Value

__all__ = [
    "BadValue",
    "ConfigError",
    "Device",
    "DeviceUnreachable",
    "Driver",
    "DriverError",
    "PropertyError",
    "PropertySpec",
    "Reading",
]


class DriverError(Exception):
    """Base of what a driver may raise."""


class DeviceUnreachable(DriverError):
    """No connection, or no answer: the engine closes the driver and connects again later."""


class PropertyError(DriverError):
    """The device answers, but refuses this one property; the others go on."""

    def __init__(self, property: str, reason: str) -> None:
        super().__init__(f"{property}: {reason}")
        self.property = property
        self.reason = reason


class BadValue(DriverError):
    """A value that can't be read as, or written to, this property.  Writing it again would not help."""


class ConfigError(DriverError):
    """A configData that the driver's model refuses; the message names device, property and field."""


@dataclass(frozen=True, slots=True)
class Device:
    """``config`` is an instance of the driver's ``device_config``."""

    namespace: str
    name: str
    config: Any

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PropertySpec:
    """``visitor`` is an instance of the driver's ``visitor_config``; ``minimum`` is the model's, for choosing signedness."""

    name: str
    type: PropertyType
    visitor: Any
    writable: bool = False
    minimum: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A raw value as the device gave it, and how far the driver itself trusts it."""

    value: Value | list[int]
    quality: Quality = "good"
    reason: str = field(default="")


class Driver(ABC):
    protocol: ClassVar[str]
    device_config: ClassVar[type[BaseModel]]
    visitor_config: ClassVar[type[BaseModel]]

    def check(self, property: PropertySpec) -> None:  # noqa: B027 (optional: most drivers have nothing to refuse)
        """Called once per property before it is used: refuse (PropertyError) what can never work."""

    @abstractmethod
    async def connect(self, device: Device) -> None:
        """Raises DeviceUnreachable."""

    @abstractmethod
    async def read(self, properties: Sequence[PropertySpec]) -> Mapping[str, Reading | PropertyError]:
        """The properties that are due now, in as few requests as the protocol allows.  One entry for each: a reading, or
        why there is none.  Raises DeviceUnreachable when the device as a whole doesn't answer."""

    @abstractmethod
    async def write(self, property: PropertySpec, value: Value) -> Value:
        """Writes, and returns the value that a read should show now (``value`` rounded to what the device can hold).
        Raises DeviceUnreachable, PropertyError, BadValue."""

    @abstractmethod
    async def close(self) -> None:
        """Lets go of the device; never raises, may be called without a connection."""
