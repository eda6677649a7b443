"""Devices on the node's own bus: the contract between the edge daemon and a mapper.

* A mapper requests ``device.list`` with DeviceListRequest and gets DeviceList: the devices of its protocol, resolved
  (model merged in, every property with its visitor), with what is desired and a revision.
* The daemon publishes ``device.changed.<protocol>`` (empty) when that list changed; the mapper asks again.
* A mapper requests ``device.twin`` with TwinUpdate; the daemon answers TwinUpdateAnswer after the new twin is stored.
* Telemetry does not pass through the daemon: mappers publish it into the leaf's stream.

Times in configuration are milliseconds, as in KubeEdge's v1beta1 (``collectCycle``, ``reportCycle``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.reports import TwinValue

PropertyType = Literal["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Property(Model):
    """One property of a device: the model's definition, and this device's way to it."""

    name: str
    type: PropertyType
    writable: bool
    unit: str = ""
    minimum: str | None = None
    maximum: str | None = None
    collect_cycle_ms: Annotated[int, Field(ge=1)] = 1000
    report_cycle_ms: Annotated[int, Field(ge=1)] = 1000
    report_to_cloud: bool = True
    visitor: dict[str, Any] = Field(default_factory=dict, description="visitors.configData over the model's, free")
    desired: str | None = None


class DeviceConfig(Model):
    """One device as a mapper needs it."""

    namespace: str
    name: str
    uid: str
    model: str
    protocol: str
    config: dict[str, Any] = Field(default_factory=dict, description="protocol.configData, free")
    properties: list[Property]
    rev: int = Field(description="changes when anything above changed")
    trace: str | None = Field(default=None, description="trace of the last change, for the story")


class DeviceListRequest(Model):
    protocol: str
    mapper: str = Field(description="who asks, for the log")


class DeviceList(Model):
    node: str
    devices: list[DeviceConfig]


class TwinUpdate(Model):
    """What a mapper saw: whole for the properties named, the others are kept."""

    namespace: str
    device: str
    uid: str
    state: Literal["online", "offline", "unknown"]
    message: str = ""
    values: list[TwinValue] = Field(default_factory=list)


class TwinUpdateAnswer(Model):
    ok: bool
    message: str = ""
