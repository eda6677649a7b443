"""What the log gives and what it can answer: records, batches, expectations, errors.  No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import nats.errors

from bus.connect import NotConnected
from schemas import codec, event, subjects

NO_ANSWER = (nats.errors.Error, NotConnected, TimeoutError, OSError)  # what "the server did not answer" looks like


class LogError(Exception):
    """Base of what the log can answer."""


class LogUnavailable(LogError):
    """No answer: whether an append happened is unknown; repeating it with the same event id is harmless."""


class LogFull(LogUnavailable):
    """The stream may not grow: the hub's disk is nearly full (bus/hub/room.py).  Nothing was stored; later there may be
    room."""


class Undecided(LogUnavailable):
    """A cluster did not look at the append, because another write to the subject is in process (10164, 10158): nothing was
    stored and nothing decided.  Whoever appends tries again with the same event; raised when that took too long."""


class RunRefused(LogError):
    """The stream took none of a run of messages, and would not take it again: they may be sent one by one."""


class WrongSequence(LogError):
    """The expectation of an append does not hold: somebody else wrote (or we are stale)."""


class EventTooLarge(LogError):
    """The server refuses messages of this size."""


class EpochChanged(LogError):
    """The stream is not the one we followed: it was made anew or restored from a backup.  Start again from nothing."""


class ForeignEvent(codec.DecodeError):
    """A well-formed event on a subject that is not its own address."""


@dataclass(frozen=True, slots=True)
class Expect:
    """The last sequence of the subject (or of ``filter``, as ``meta.<shard>.<scope>.>``) must be ``seq``; 0: none yet."""

    seq: int
    filter: str | None = None


def check_address(subject: str, ev: event.Event) -> None:
    """Raises ForeignEvent unless the event's own address is the subject it came on (reply injection, NATS-FACTS.md)."""
    try:
        room = subject.partition(".")[0]
        if room == "cluster":
            ok = subjects.cluster(ev.key) == subject and ev.scope == ""  # a key has one subject
        elif room == "meta":
            _, scope, key = subjects.parse_meta(subject)
            ok = (scope, key) == (ev.scope, ev.key)
        elif room == "live":
            ok = subjects.parse_live(subject) == (ev.scope, ev.key)
        elif room == "report":
            a = subjects.parse_report(subject)
            own = (ev.scope, ev.resource, ev.namespace, ev.name if a.name else "")
            ok = (a.node, a.kind, a.namespace, a.name) == own
        else:
            ok = True  # audit and identity events name their subject's last token
    except subjects.SubjectError as e:
        raise ForeignEvent(f"on {subject[:160]!r}: {e}") from e
    if not ok:
        raise ForeignEvent(f"event {ev.id} of {ev.scope or '-'} {ev.key} came on {subject[:160]!r}")


class Recorded(NamedTuple):
    """One message of a stream, as stored.  ``time_us`` is the server's time of storing."""

    stream: str
    seq: int
    subject: str
    time_us: int
    payload: bytes
    headers: dict[str, str] | None = None

    def event(self) -> event.Event:
        """Raises DecodeError (ForeignEvent, UnknownVersion), the message naming subject and sequence."""
        try:
            ev = codec.decode_event(self.payload)
            check_address(self.subject, ev)
        except codec.UnknownVersion as e:
            raise codec.UnknownVersion(f"{self.stream} #{self.seq} {self.subject[:160]}: {e}") from e
        except ForeignEvent as e:
            raise ForeignEvent(f"{self.stream} #{self.seq}: {e}") from e
        except codec.DecodeError as e:
            raise codec.DecodeError(f"{self.stream} #{self.seq} {self.subject[:160]}: {e}") from e
        return ev


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in stream order; ``pending`` is how many more the server knew of after the last one (0: caught up);
    ``epoch`` is the stream's."""

    records: list[Recorded]
    pending: int
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class LastState:
    """Records in stream order, complete up to sequence ``up_to``; ``more`` when a page limit was hit (ask from up_to)."""

    records: list[Recorded]
    up_to: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class StreamInfo:
    name: str
    epoch: str
    horizon: int
    first_seq: int
    last_seq: int
    messages: int
    bytes: int
    config: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def replicas(self) -> int:
        return int(self.config.get("num_replicas", 1))
