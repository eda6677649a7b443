"""What the dispatcher's core is told, and what it asks for.  ``cloud/dispatcher.py`` speaks these words with the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.event import Event
from schemas.subjects import ObjectKey

# --- stimuli ---------------------------------------------------------------------------------------------------------


class MetaEvent(NamedTuple):
    """An event of META: the last of its subject, or more of them in order.  ``event`` None: bytes that can't be read
    (damaged, or from the future), which hold their place in the chain all the same.

    After Loaded it is as good as Written."""

    seq: int
    scope: str
    key: ObjectKey
    event: Event | None


class Written(NamedTuple):
    """After Loaded: something was written to a scope, by us or by another."""

    seq: int
    scope: str


class ClusterEvent(NamedTuple):
    """One event of CLUSTER: before Loaded the last of each subject, then every one that is kept, in order.

    ``more``: later ones are known to wait.  A stream keeps a few versions of each object, so a reader that lags can have
    been told all that is kept up to ``seq`` and still lack an object's state at ``seq``: later versions took its place."""

    seq: int
    event: Event
    more: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """META was told first, CLUSTER after it up to ``seq``: from now on the difference is acted on."""

    seq: int


@dataclass(frozen=True, slots=True)
class Folded:
    """Every event of CLUSTER up to ``seq`` was told, or is of no use to anyone (bytes that don't decode)."""

    seq: int
    more: bool = False


class Appended(NamedTuple):
    scope: str
    seq: int


@dataclass(frozen=True, slots=True)
class AppendConflict:
    """Somebody else wrote to the scope since we looked: the log refused ours."""

    scope: str


@dataclass(frozen=True, slots=True)
class AppendFailed:
    """No answer: the event may be in the log, or not."""

    scope: str


@dataclass(frozen=True, slots=True)
class AppendRefused:
    """The event can never be written as it is (too large)."""

    scope: str


@dataclass(frozen=True, slots=True)
class ScopeReloaded:
    """One scope as the log has it, and a sequence of CLUSTER that was its last *after* these were read."""

    scope: str
    events: tuple[MetaEvent, ...]
    cluster_seq: int
    head: int = 0  # last sequence of the scope, also when it is of a record whose subject nobody can read
    up_to: int = 0  # what was written to META up to here and isn't in ``events`` is no longer kept (a compaction)


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    scope: str


Stimulus = (
    MetaEvent
    | Written
    | ClusterEvent
    | Loaded
    | Folded
    | Appended
    | AppendConflict
    | AppendFailed
    | AppendRefused
    | ScopeReloaded
    | ReloadFailed
)

# --- instructions ----------------------------------------------------------------------------------------------------


class Append(NamedTuple):
    """Write one META event, expecting that the scope's last sequence is ``prev``; exactly one stimulus answers it."""

    scope: str
    key: ObjectKey
    prev: int
    rev: int
    uid: str
    data: dict[str, Any] | None
    cause: str | None
    trace: str | None


@dataclass(frozen=True, slots=True)
class ReloadScope:
    """After ``delay_ms`` read the scope again; answered by ScopeReloaded or ReloadFailed."""

    scope: str
    delay_ms: int


Instruction = Append | ReloadScope
