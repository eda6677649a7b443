"""Catch-up: what a replica asks the sync service, and the pages it gets.  Not stored.

A page is *complete up to* a sequence: every event of the scope with ``cursor < sequence <= up_to`` is in it or was
overtaken by a later one that is (state, not history).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SCOPES_MAX = 64
MARK_BYTES = 4  # in every answer to a beat: it must be small, and one missed in four billion is found by the next catch-up
PAGE_BYTES_MAX = 512 << 10  # one answer message; half of nats-server's default max_payload

Seq = Annotated[int, Field(ge=0, lt=1 << 63)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class ScopeCursor(Model):
    scope: str
    epoch: str = Field(default="", description="epoch of the log that the cursor belongs to; '' when there is none yet")
    cursor: Seq = Field(default=0, description="applied up to here; 0 asks for everything")
    horizon: Seq = Field(default=0, description="while the pages of a reset come: the horizon that its first page named")


class SyncRequest(Model):
    scopes: Annotated[list[ScopeCursor], Field(min_length=1, max_length=SCOPES_MAX)]


class SyncEvent(Model):
    seq: Seq
    subject: str = Field(description="<scope>.<group>.<resource>.<namespace>.<name>: the event's place in the log")
    event: bytes = Field(description="the event's bytes exactly as in the log")


class ScopePage(Model):
    """``reset`` tells the replica to forget its cursor: this page starts the scope from nothing (list, mark, sweep)."""

    scope: str
    epoch: str
    up_to: Seq = Field(description="complete up to this sequence of the scope's stream")
    more: bool = Field(default=False, description="ask again from up_to")
    reset: bool = False
    horizon: Seq = Field(default=0, description="below it tombstones were taken out: a cursor from there begins anew")
    events: list[SyncEvent] = Field(default_factory=list, description="in stream order")


class SyncAnswer(Model):
    status: Literal["ok", "refused", "busy"] = "ok"
    message: str = ""
    pages: list[ScopePage] = Field(default_factory=list)


def epochs_mark(epochs: Sequence[str]) -> bytes:
    """What answers a node's beat: a hash of the epochs that its cursors must be of, its own scope's first."""
    return hashlib.sha256("\0".join(epochs).encode()).digest()[:MARK_BYTES]
