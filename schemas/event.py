"""The event: the one thing that is written to the log.

An event carries its own address, so that a reader can refuse one that came on another subject (NATS-FACTS.md, reply
injection), and its cause, so that a chain can be followed over every hop.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas import subjects

EVENT_VERSION = 1

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
Type = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)*$", max_length=64)]
NAME_MAX = 340
Name = Annotated[str, StringConstraints(max_length=NAME_MAX)]
Unsigned = Annotated[int, Field(ge=0, lt=1 << 63)]

OBJECT_APPLIED = "object.applied"
OBJECT_DELETED = "object.deleted"
REPORT = "report"


class Event(BaseModel):
    """One versioned event.  ``time`` is wall time in microseconds since 1970 (UTC); ``mono`` is microseconds of the
    monotonic clock of the boot named in ``boot`` (edge events only, so that a wrong wall clock can be seen)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    id: Id = Field(description="UUIDv7 of this event; also its Nats-Msg-Id")
    type: Type = Field(description="object.applied, object.deleted, report, audit..., identity...")
    v: Annotated[int, Field(ge=1, le=65535)] = Field(default=EVENT_VERSION, description="schema version of this event")
    scope: Name = Field(
        default="", description="who must know: a node, 'all', a group; for a report: the node; '' in CLUSTER"
    )
    group: Name = Field(default="", description="API group, '' is core; for a report: ''")
    resource: Name = Field(description="plural resource, or the kind of report")
    namespace: Name = ""
    name: Name
    uid: Name = Field(default="", description="metadata.uid of the object, so that a recreated name is a new thing")
    rev: Unsigned = Field(
        default=0,
        description="resourceVersion at the source; 0 where the source is CLUSTER itself, whose sequence it then is",
    )
    time: Unsigned
    mono: Unsigned | None = None
    boot: Name | None = None
    source: Name = Field(description="component and code version that wrote it, e.g. cloud/api@0.1.0")
    actor: Name = Field(default="", description="user or component on whose behalf")
    cause: Id | None = Field(default=None, description="the event that led to this one")
    trace: Id = Field(description="the first event of the chain; its own id when it is the first")
    prev: Unsigned | None = Field(
        default=None, description="META: sequence of the event before it in its scope, 0 for the first"
    )
    data: dict[str, Any] | None = Field(default=None, description="the object or report; None in a tombstone")

    @property
    def key(self) -> subjects.ObjectKey:
        return subjects.ObjectKey(self.group, self.resource, self.namespace, self.name)

    @property
    def deleted(self) -> bool:
        return self.type == OBJECT_DELETED


def uuid7(time_us: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562, 5.7) from wall time in microseconds and ten random bytes."""
    if len(random) != 10:
        raise ValueError(f"a UUIDv7 takes 10 random bytes, got {len(random)}")
    ms, sub = divmod(time_us, 1000)
    value = (ms & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | ((sub * 4096 // 1000) & 0xFFF) << 64  # method 3: sub-millisecond order in rand_a
    value |= 0b10 << 62 | int.from_bytes(random[:8], "big") & ((1 << 62) - 1)
    h = f"{value:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
