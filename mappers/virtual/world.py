"""The devices behind the virtual driver: what they were told and how often they were asked outlives a connection, as in a
real device.  A test can take hold of one and pull its plug."""

from __future__ import annotations

from dataclasses import dataclass, field

from mappers.virtual.script import DeviceScript, Scalar
from schemas.telemetry import Value


@dataclass(slots=True)
class VirtualDevice:
    """``unreachable`` refuses connections and breaks the present ones; ``drop`` only breaks."""

    script: DeviceScript
    unreachable: bool = False
    connects: int = 0
    reads: int = 0
    generation: int = 0
    delay_s: float = 0.0
    readings: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    held: dict[str, Value | Scalar] = field(default_factory=dict)

    def drop(self) -> None:
        self.generation += 1


_devices: dict[tuple[str, str], VirtualDevice] = {}


def device(script: DeviceScript, name: str) -> VirtualDevice:
    """The device of that name, or the one of the script's world; a changed script is a new device."""
    key = (script.world, "" if script.world else name)
    found = _devices.get(key)
    if found is None or found.script != script:
        found = _devices[key] = VirtualDevice(script)
    return found


def forget(world: str) -> None:
    _devices.pop((world, ""), None)
