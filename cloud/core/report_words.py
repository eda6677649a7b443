"""What the reports core is told, and what it asks for.  ``cloud/reports.py`` speaks these words with log and registry.

Times are microseconds since 1970: ``now_us`` by the worker's clock, which only goes on, ``time_us`` by the log's (when the
hub stored the event).  The edge's own clock is never compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloud.core.writes import Write
from schemas.event import Event
from schemas.subjects import ObjectKey

# --- stimuli ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApiEvent:
    """An object as the API has it from revision ``rev`` on, None when it is gone: before Loaded every object and every
    deleted Node, then every change, each object's in order.  ``object`` is shared and never changed."""

    rev: int
    key: ObjectKey
    object: dict[str, Any] | None
    time_us: int


@dataclass(frozen=True, slots=True)
class Reported:
    """One event of REPORT: before Loaded the last of each subject, then every one, in order."""

    seq: int
    event: Event
    time_us: int


@dataclass(frozen=True, slots=True)
class Loaded:
    now_us: int


@dataclass(frozen=True, slots=True)
class BeatSeen:
    node: str
    now_us: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The hub says that the node's connection is gone."""

    node: str
    now_us: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two daemons live on the node's identity; ``message`` "" when that is over."""

    node: str
    message: str
    now_us: int


@dataclass(frozen=True, slots=True)
class DoorsShut:
    """All nodes whose door at the hub is shut now, because they flooded it, with what is said of each."""

    nodes: dict[str, str]
    now_us: int


@dataclass(frozen=True, slots=True)
class Tick:
    now_us: int


@dataclass(frozen=True, slots=True)
class Written:
    """A write was done; the API will tell what became of the object."""

    key: ObjectKey
    rev: int


@dataclass(frozen=True, slots=True)
class WriteConflict:
    """The object is not as we saw it: the API will tell how it is (or has told already)."""

    key: ObjectKey


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """No answer from the log; tried again at a later Tick."""

    key: ObjectKey


@dataclass(frozen=True, slots=True)
class WriteRefused:
    """The API refuses the object as it is (4xx): not tried again until report or object change."""

    key: ObjectKey


Stimulus = (
    ApiEvent
    | Reported
    | Loaded
    | BeatSeen
    | LinkDown
    | Duplicate
    | DoorsShut
    | Tick
    | Written
    | WriteConflict
    | WriteFailed
    | WriteRefused
)

# --- instructions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Complain:
    """A report that can't be used: counted and said, nothing else."""

    seq: int
    about: str
    reason: str


Instruction = Write | Complain
