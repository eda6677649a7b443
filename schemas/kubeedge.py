"""KubeEdge's ``devices.kubeedge.io/v1beta1`` objects, as far as Skerry acts on them.

Read leniently: the API has checked them against their definitions, fields that we don't use are none of our business, and
a manifest written for KubeEdge must not fail here for being written loosely.  Source: its CRDs (devices, devicemodels).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "devices.kubeedge.io"
DEVICES = "devices"
MODELS = "devicemodels"


class Lenient(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, coerce_numbers_to_str=True
    )


class Visitors(Lenient):
    """How a property is reached: ``configData`` is the driver's."""

    protocol_name: str = ""
    config_data: dict[str, Any] = Field(default_factory=dict)


class ModelProperty(Lenient):
    name: str = ""
    type: str = ""
    access_mode: str = "ReadOnly"
    minimum: str | None = None
    maximum: str | None = None
    unit: str = ""
    visitors: Visitors | None = None


class DeviceModelSpec(Lenient):
    properties: list[ModelProperty] = Field(default_factory=list)
    protocol: str = ""
    protocol_config_data: dict[str, Any] = Field(default_factory=dict)


class Twin(Lenient):
    """An empty value is no wish: KubeEdge's own clients write ``desired: {value: ""}`` where there is none."""

    value: str = ""


class DeviceProperty(Lenient):
    name: str = ""
    desired: Twin | None = None
    visitors: Visitors | None = None
    collect_cycle: int | None = None
    report_cycle: int | None = None
    report_to_cloud: bool | None = None


class Protocol(Lenient):
    protocol_name: str = ""
    config_data: dict[str, Any] = Field(default_factory=dict)


class ModelRef(Lenient):
    name: str = ""


class DeviceSpec(Lenient):
    device_model_ref: ModelRef | None = None
    node_name: str = ""
    protocol: Protocol = Field(default_factory=Protocol)
    properties: list[DeviceProperty] = Field(default_factory=list)
