"""The virtual driver: plays ``script`` on the device in ``world``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel

from mappers.driver import Device, DeviceUnreachable, Driver, PropertyError, PropertySpec, Reading
from mappers.virtual import world
from mappers.virtual.script import DeviceScript, PropertyScript
from schemas.telemetry import Value


class VirtualDriver(Driver):
    protocol: ClassVar[str] = "virtual"
    device_config: ClassVar[type[BaseModel]] = DeviceScript
    visitor_config: ClassVar[type[BaseModel]] = PropertyScript

    def __init__(self) -> None:
        self._device: world.VirtualDevice | None = None
        self._generation = 0
        self._reads = 0

    async def connect(self, device: Device) -> None:
        script: DeviceScript = device.config
        found = world.device(script, f"{device.namespace}/{device.name}")
        found.connects += 1
        await asyncio.sleep(script.connect.delay_ms / 1000)
        if found.unreachable:
            raise DeviceUnreachable("the virtual device's plug is pulled")
        if found.connects <= script.connect.refuse:
            raise DeviceUnreachable(f"connection {found.connects} of {script.connect.refuse} that the script refuses")
        self._device, self._generation, self._reads = found, found.generation, 0

    async def read(self, properties: Sequence[PropertySpec]) -> Mapping[str, Reading | PropertyError]:
        device = self._connected()
        device.reads += 1
        self._reads += 1
        slow = device.script.slow
        await asyncio.sleep(device.delay_s + (slow.delay_ms / 1000 if slow and device.reads % slow.every == 0 else 0))
        self._connected()  # the plug may have been pulled meanwhile
        if device.script.disconnect_after and self._reads > device.script.disconnect_after:
            device.drop()
            raise DeviceUnreachable(f"the script breaks the connection after {device.script.disconnect_after} reads")
        return {spec.name: self._reading(device, spec) for spec in properties}

    def _reading(self, device: world.VirtualDevice, spec: PropertySpec) -> Reading | PropertyError:
        script: PropertyScript = spec.visitor
        n = device.readings.get(spec.name, 0)
        device.readings[spec.name] = n + 1
        if script.missing:
            return PropertyError(spec.name, "the virtual device doesn't have it")
        if script.fail and (n + 1) % script.fail.every == 0:
            return PropertyError(spec.name, script.fail.reason)
        return Reading(device.held[spec.name] if spec.name in device.held else script.reading(n))

    async def write(self, property: PropertySpec, value: Value) -> Value:
        device = self._connected()
        script: PropertyScript = property.visitor
        n = device.writes[property.name] = device.writes.get(property.name, 0) + 1
        if n <= script.write.refuse:
            raise PropertyError(property.name, script.write.reason)
        device.held[property.name] = value
        return value

    async def close(self) -> None:
        self._device = None

    def _connected(self) -> world.VirtualDevice:
        if self._device is None:
            raise DeviceUnreachable("not connected")
        if self._device.unreachable or self._device.generation != self._generation:
            raise DeviceUnreachable("the virtual device dropped the connection")
        return self._device
