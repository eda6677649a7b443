"""From a device as the daemon lists it to what the engine does with it; and what changed between two lists.  Pure.

A mistake in one property costs that property, a mistake in the device's own configuration costs the device, and both are
told with device, property and field, because the reader has only the manifest in front of him.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mappers.driver import ConfigError, Device, Driver, PropertyError, PropertySpec
from mappers.values import bound
from schemas.devices import DeviceConfig, Property

M = TypeVar("M", bound=BaseModel)
DEADBAND_KEY = "deadband"


class EngineVisitor(BaseModel):
    """What a visitor's configData may say to the engine, beside what it says to the driver."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    deadband: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0,
        description="in the property's unit: smaller changes are told only every reportCycle. 0: every sample is published",
    )


@dataclass(frozen=True, slots=True)
class Point:
    """One property, ready to be read."""

    property: Property
    spec: PropertySpec
    deadband: float


@dataclass(frozen=True, slots=True)
class Plan:
    """``refused`` has, per property that can't be used, why."""

    device: Device
    points: Mapping[str, Point]
    refused: Mapping[str, str]


def make(config: DeviceConfig, driver: Driver) -> Plan:
    """Raises ConfigError when the device as a whole can't be used."""
    who = f"device {config.namespace}/{config.name}"
    device = Device(config.namespace, config.name, _parse(type(driver).device_config, config.config, who, "configData"))
    points: dict[str, Point] = {}
    refused: dict[str, str] = {}
    for prop in config.properties:
        try:
            points[prop.name] = _point(prop, driver, f"{who}, property {prop.name}")
        except ConfigError as e:
            refused[prop.name] = str(e)
    return Plan(device, points, refused)


def _point(prop: Property, driver: Driver, who: str) -> Point:
    for_engine = {k: v for k, v in prop.visitor.items() if k == DEADBAND_KEY}
    for_driver = {k: v for k, v in prop.visitor.items() if k != DEADBAND_KEY}
    engine = _parse(EngineVisitor, for_engine, who, "visitors.configData")
    visitor = _parse(type(driver).visitor_config, for_driver, who, "visitors.configData")
    spec = PropertySpec(prop.name, prop.type, visitor, prop.writable, bound(prop.minimum))
    for what, text in (("minimum", prop.minimum), ("maximum", prop.maximum)):
        if text and bound(text) is None:
            raise ConfigError(f"{who}: the model's {what} {text!r} is not a number")
    try:
        driver.check(spec)
    except PropertyError as e:
        raise ConfigError(f"{who}: {e.reason}") from e
    return Point(prop, spec, engine.deadband)


def _parse(model: type[M], raw: Mapping[str, Any], who: str, what: str) -> M:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join([what, *(str(p) for p in first["loc"])])
        more = f" (and {e.error_count() - 1} more)" if e.error_count() > 1 else ""
        raise ConfigError(f"{who}: {where}: {first['msg']}{more}") from e


# --- lists of devices ------------------------------------------------------------------------------------------------

Key = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Difference:
    """``again``: new, or a new thing under an old name; ``changed``: the same device, told something else."""

    again: list[DeviceConfig]
    changed: list[DeviceConfig]
    gone: list[Key]


def difference(before: Mapping[Key, DeviceConfig], now: Iterable[DeviceConfig]) -> Difference:
    again: list[DeviceConfig] = []
    changed: list[DeviceConfig] = []
    seen: set[Key] = set()
    for config in now:
        key = (config.namespace, config.name)
        seen.add(key)
        old = before.get(key)
        if old is None or old.uid != config.uid:
            again.append(config)
        elif old != config:
            changed.append(config)
    return Difference(again, changed, [key for key in before if key not in seen])


def needs_reconnect(before: DeviceConfig, now: DeviceConfig) -> bool:
    """Whether the way to the device changed (a new desired value or cycle doesn't cut the connection)."""
    return before.config != now.config
