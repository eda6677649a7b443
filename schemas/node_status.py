"""What an edge daemon says of itself on the node's own bus (request ``node.status``), for people and for tests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LOCAL_NODE_STATUS = "node.status"  # request on the node's own bus, empty: DaemonStatus

Count = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class ScopeStatus(Model):
    epoch: str = Field(description="epoch of the log that the cursor belongs to; '' when never synced")
    cursor: Count = Field(description="applied up to this sequence")
    objects: Count
    bytes: Count = Field(description="bytes of the events held: about what listing them all would cost")


class ReplicaStatus(Model):
    """Counters since the daemon's start."""

    synced: bool
    complete: bool
    scopes: dict[str, ScopeStatus]
    live_events: Count
    live_bytes: Count
    catch_ups: Count
    page_events: Count
    page_bytes: Count
    resets: Count
    refused: Count
    last_refused: str = ""
    trouble: str = Field(default="", description="why the store can't be written; '' when it can")


class DaemonStatus(Model):
    node: str
    version: str
    pid: Count
    started: Count = Field(description="wall time in microseconds")
    link: Literal["unknown", "up", "down"]
    fenced: bool = Field(default=False, description="another daemon holds this node's identity")
    link_since: Count = Field(description="wall time in microseconds of the last change")
    link_mode: Literal["leaf", "direct"]
    leaf_pid: int | None = None
    replica: ReplicaStatus
    outbox_pending: Count
    outbox_sent: Count
    outbox_overtaken: Count
    runtime_ready: bool
    runtime_reason: str = ""
    pods: Count = 0
    devices: Count = 0
