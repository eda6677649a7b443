"""What a node uses now, as it answers when the cloud asks (``kubectl top``).  Not an event: nothing of it is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PODS_MAX = 1_024
CONTAINERS_MAX = 256  # of a pod
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=253)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ContainerUsage(Model):
    """``cpu_nano``: billionths of a core; ``cpu_total_nano``: nanoseconds of a core since it was started, 0 when that is not
    told (by an older daemon); ``memory_bytes``: the working set."""

    name: Name
    cpu_nano: Count
    memory_bytes: Count
    cpu_total_nano: Count = 0


class PodUsage(Model):
    namespace: Name
    name: Name
    uid: Name
    containers: Annotated[list[ContainerUsage], Field(max_length=CONTAINERS_MAX)]


class NodeUsage(Model):
    """``window_ms``: over which CPU was measured."""

    window_ms: Count
    cpu_nano: Count
    memory_bytes: Count
    cpu_total_nano: Count = 0
    pods: Annotated[list[PodUsage], Field(max_length=PODS_MAX)] = []
