"""Devices on the node's own bus: the contract between the edge daemon and a mapper.

* A mapper requests ``device.list`` with DeviceListRequest and gets DeviceList: the devices of its protocol, resolved
  (model merged in, every property with its visitor), with what is desired and a revision.
* The daemon publishes ``device.changed.<protocol>`` (empty) when that list changed; the mapper asks again.
* A mapper requests ``device.twin`` with TwinUpdate; the daemon answers TwinUpdateAnswer once the new twin is taken (what
  goes to the cloud, and every acknowledged desired value, is on disk by then).
* A mapper says something about each of its devices at least every HEARTBEAT_MS; a device of which nothing was heard for
  STALE_MS has the state "unknown".
* Telemetry does not pass through the daemon: mappers publish ``telemetry.<node>.<device>.<property>`` into the leaf's
  stream.

Times in configuration are milliseconds, as in KubeEdge's v1beta1 (``collectCycle``, ``reportCycle``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.reports import Hop, TwinValue

PropertyType = Literal["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"]
DeviceState = Literal["online", "offline", "unknown"]

HEARTBEAT_MS = 10_000  # local traffic only; three of them may be lost before a device counts as unknown
STALE_MS = 35_000
CYCLE_MS_DEFAULT = 1000  # KubeEdge's mapper framework polls every second when a manifest doesn't say
CYCLE_MS_MIN = 10  # faster is a mistake in the manifest, not a wish: one asyncio process can't keep it up
PAGE_BYTES_MAX = 512 << 10  # half of nats-server's default max_payload
NANOSECONDS_FROM = 10_000_000  # as milliseconds 2 h 47 min, as nanoseconds 10 ms: nobody means the first


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Property(Model):
    """One property of a device: the model's definition, and this device's way to it."""

    name: str
    type: PropertyType
    writable: bool
    unit: str = ""
    minimum: str | None = None
    maximum: str | None = None
    collect_cycle_ms: Annotated[int, Field(ge=1)] = CYCLE_MS_DEFAULT
    report_cycle_ms: Annotated[int, Field(ge=1)] = CYCLE_MS_DEFAULT
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
    config: dict[str, Any] = Field(default_factory=dict, description="protocol.configData over the model's, free")
    properties: list[Property]
    rev: int = Field(description="changes when anything above changed")
    trace: str | None = Field(default=None, description="trace of the last change, for the story")
    warnings: list[str] = Field(default_factory=list, description="what in the manifests was odd, in words")


class DeviceListRequest(Model):
    protocol: str
    mapper: str = Field(description="who asks, for the log")
    after: str = Field(default="", description="<namespace>/<name> of the last device of the page before")


class DeviceList(Model):
    """``more``: ask again with ``after``; a page is never above PAGE_BYTES_MAX."""

    node: str
    devices: list[DeviceConfig]
    more: bool = False


class TwinUpdate(Model):
    """What a mapper saw: whole for the properties named, the others are kept.

    ``seq`` counts the updates of one run (``boot``) of the mapper from 1 on: within a run it alone says what is newer,
    because a wall clock can be set back.
    """

    namespace: str
    device: str
    uid: str
    boot: str
    seq: Annotated[int, Field(ge=1)]
    state: DeviceState
    message: str = ""
    values: list[TwinValue] = Field(default_factory=list)
    hops: list[Hop] = Field(default_factory=list, description="what the mapper did for a desired value, with times")


class TwinUpdateAnswer(Model):
    """``known`` is False when the daemon has no such device (any more): the mapper asks for the list again."""

    ok: bool
    known: bool = True
    message: str = ""


class TwinRecordValue(Model):
    value: TwinValue
    boot: str = Field(description="the run of the mapper that said it, and its count")
    seq: int


class TwinRecord(Model):
    """The twin of one device as the daemon keeps it on disk: what was last reported, and what isn't for the cloud."""

    v: Literal[1] = 1
    namespace: str
    name: str
    uid: str
    state: DeviceState
    message: str = Field(default="", description="the mapper's")
    reported: str = Field(default="", description="the message that was reported: the mapper's and the manifest's warnings")
    values: list[TwinRecordValue] = Field(default_factory=list)


def cycle_ms(value: int | None, what: str) -> tuple[int, str]:
    """Milliseconds of a cycle or timeout as written in a manifest, and a warning in words ("" if there is none).

    KubeEdge says milliseconds, but several published v1beta1 samples carry nanoseconds: 10000000000 for 10 s."""
    if value is None or value == 0:
        return CYCLE_MS_DEFAULT, ""
    if value < 0:
        return CYCLE_MS_DEFAULT, f"{what} {value} is negative: {words(CYCLE_MS_DEFAULT)} is used"
    if value >= NANOSECONDS_FROM:
        ms = max(value // 1_000_000, CYCLE_MS_MIN)
        return ms, f"{what} {value} is taken as nanoseconds, that is {words(ms)}; the unit is milliseconds: write {ms}"
    if value < CYCLE_MS_MIN:
        return CYCLE_MS_MIN, f"{what} {value} ms is below the shortest possible: {words(CYCLE_MS_MIN)} is used"
    return value, ""


def words(ms: int) -> str:
    """A duration as a person says it."""
    if ms < 1000:
        return f"{ms} ms"
    for size, unit in ((3_600_000, "h"), (60_000, "min")):
        if ms >= size and ms % size == 0:
            return f"{ms // size} {unit}"
    return f"{ms / 1000:g} s"
