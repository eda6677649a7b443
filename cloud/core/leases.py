"""Who leads a role: one lease, by compare-and-set on one subject of the log and by time.  Pure; the time comes in stimuli.

    a leader     renews by expecting its own last sequence; leads until TTL after it *began to send* the last renewal that
                 was acknowledged, less a margin
    a follower   looks; a lease whose sequence it has seen unchanged for TTL is over, and is taken by expecting that sequence

Nobody compares clocks: each measures from what it saw itself, the leader from before the write and the follower from after
it, so the leader's time is over first.  What that can't exclude is a leader that is stopped between looking at its lease and
writing, and goes on minutes later.  So the lease only says who works; that nobody harms is said by the log itself:

    dispatcher   each append expects the last sequence of its scope (cloud/core/dispatcher.py)
    controllers  updates and deletes name the revision they were made from, creates have names that two controllers choose
                 alike (cloud/standalone/naming.py)
    reports      as controllers; its objects' names come from the nodes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TTL_US = 6_000_000  # a takeover takes that long after a crash; after a clean end it is immediate
RENEW_US = 1_500_000  # three renewals may be lost
LOOK_US = 1_000_000
RETRY_US = 300_000
MARGIN_US = 1_000_000  # clocks of two machines that run at different speeds: far more than any


@dataclass(frozen=True, slots=True)
class Tick:
    now_us: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer to Look: the last record (``seq`` 0: none), and how long to leave a free lease to others."""

    now_us: int
    seq: int
    holder: str
    patience_us: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to Write: it is stored."""

    now_us: int
    seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to Write: the lease was not as expected."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer: whatever was asked may have happened or not."""

    now_us: int


Stimulus = Tick | Seen | Written | Refused | Failed


@dataclass(frozen=True, slots=True)
class Look:
    """Read the last record; answered by Seen or Failed."""


@dataclass(frozen=True, slots=True)
class Write:
    """Name ourselves, expecting that the last sequence is ``expect``; answered by Written, Refused or Failed."""

    expect: int


@dataclass(frozen=True, slots=True)
class Begin:
    """We lead."""

    seq: int


@dataclass(frozen=True, slots=True)
class End:
    """We don't lead any more: stop, at once."""

    reason: str


Instruction = Look | Write | Begin | End


class Lease:
    """``handle`` is the only mutator.  ``me`` is of one life of one process."""

    def __init__(self, me: str, *, ttl_us: int = TTL_US, renew_us: int = RENEW_US, look_us: int = LOOK_US) -> None:
        assert me and ttl_us > 2 * renew_us
        self._me, self._ttl_us, self._renew_us, self._look_us = me, ttl_us, renew_us, look_us
        self._margin_us = min(MARGIN_US, ttl_us // 6)
        self._seq = -1  # not looked yet
        self._holder = ""
        self._since_us = 0  # when this sequence was first seen
        self._until_us: int | None = None
        self._asked_us: int | None = None  # a request is under way, since then
        self._next_us = 0

    def leads(self, now_us: int) -> bool:
        """To be asked right before whatever only a leader may do."""
        return self._until_us is not None and now_us < self._until_us

    @property
    def me(self) -> str:
        return self._me

    @property
    def seq(self) -> int:
        """What a clean end writes behind."""
        return self._seq

    @property
    def next_us(self) -> int | None:
        """When a Tick has something to do; None while only an answer has."""
        due = [] if self._asked_us is not None else [self._next_us]
        return min([*due, *(() if self._until_us is None else (self._until_us,))], default=None)

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        handler: Callable[[Any], list[Instruction]] = self._HANDLERS[type(stimulus)].__get__(self)
        expired = self._expire(stimulus.now_us)
        return expired + handler(stimulus)

    def _expire(self, now_us: int) -> list[Instruction]:
        if self._until_us is None or now_us < self._until_us:
            return []
        self._until_us = None
        return [End("it was not renewed in time")]

    def _tick(self, s: Tick) -> list[Instruction]:
        if self._asked_us is not None or s.now_us < self._next_us:
            return []
        self._asked_us = s.now_us
        return [Look() if self._until_us is None else Write(self._seq)]

    def _seen(self, s: Seen) -> list[Instruction]:
        self._asked_us, self._next_us = None, s.now_us + self._look_us
        if (s.seq, s.holder) != (self._seq, self._holder):
            self._seq, self._holder, self._since_us = s.seq, s.holder, s.now_us
        waited = s.now_us - self._since_us
        due = 0 if s.holder == self._me else s.patience_us if not s.holder else self._ttl_us + s.patience_us
        if waited < due:
            self._next_us = min(self._next_us, self._since_us + due)
            return []
        self._asked_us = s.now_us
        return [Write(self._seq)]

    def _written(self, s: Written) -> list[Instruction]:
        assert self._asked_us is not None, "nothing was asked"
        asked, self._asked_us = self._asked_us, None
        self._seq, self._holder, self._since_us = s.seq, self._me, s.now_us
        until = asked + self._ttl_us - self._margin_us
        self._next_us = asked + self._renew_us
        if s.now_us >= until:
            self._next_us = s.now_us  # ours, but too old to be relied on: once more
            return []
        led, self._until_us = self._until_us is not None, until
        return [] if led else [Begin(s.seq)]

    def _refused(self, s: Refused) -> list[Instruction]:
        self._asked_us, self._next_us = None, s.now_us
        led, self._until_us = self._until_us is not None, None
        return [End("another has taken it")] if led else []

    def _failed(self, s: Failed) -> list[Instruction]:
        self._asked_us, self._next_us = None, s.now_us + RETRY_US
        return []

    _HANDLERS: dict[type, Callable[..., list[Instruction]]] = {  # noqa: RUF012 - one table for the class, never changed
        Tick: _tick,
        Seen: _seen,
        Written: _written,
        Refused: _refused,
        Failed: _failed,
    }
