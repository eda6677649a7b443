"""What a replica decides: pure, for the daemon, the hollow node, the simulator and the debugger alike.

Live is a fast hint, the chain proves it, catch-up repairs it.  Every event names the sequence of the event before it in its
scope (``prev``): it is applied at once when everything up to ``prev`` is here, and asks for a catch-up otherwise.

    stimulus                      leads to
    Connected                     Ask for every scope
    Live                          Apply, or nothing (already here), or Ask (a gap), or kept in the buffer while syncing
    Answered(page ...)            Apply / Stage / Finish, then the buffered live events, then Ask again if there is more
    Failed, Refresh               Ask (the rim paces it)

One catch-up is under way at a time.  The rim executes an instruction before it hands in the next stimulus; an Apply is one
transaction with its cursor.  A failed transaction is told by ``Lost``: the core forgets what it believed and asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bus import fold
from schemas import codec, subjects, sync

PAGE = "page"  # what a Refuse is about when a whole page can't be used
BUFFER_EVENTS_MAX = 4096  # live events kept while syncing, per scope; beyond it they are dropped and the catch-up repeats


@dataclass(frozen=True, slots=True)
class Connected:
    pass


@dataclass(frozen=True, slots=True)
class Disconnected:
    pass


@dataclass(frozen=True, slots=True)
class Live:
    """One message of the live subscription: subject's scope and key, the stream's sequence, the event's bytes, and the epoch
    of the log ("" when its writer didn't say).  A log that was restored gives the numbers of a lost one again: without the
    epoch its events could look as if they went on from our cursor."""

    scope: str
    key: subjects.ObjectKey
    seq: int
    payload: bytes
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """``asked`` are the cursors of the Ask that this answers, so that the answer to an earlier one is told apart."""

    pages: list[sync.ScopePage]
    asked: list[sync.ScopeCursor] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The catch-up was not answered (or refused, or garbled)."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Time to ask whether anything was missed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A transaction could not be committed: cursors as they are on disk."""

    cursors: dict[str, fold.Cursor]


Stimulus = Connected | Disconnected | Live | Answered | Failed | Refresh | Lost


@dataclass(frozen=True, slots=True)
class Apply:
    """Facts in stream order and the cursor after them: one transaction."""

    scope: str
    facts: list[fold.Fact]
    cursor: fold.Cursor


@dataclass(frozen=True, slots=True)
class Stage:
    """Facts of a catch-up of several pages: kept aside, ``first`` empties what was aside before.

    A page is state, not history: an object whose last event comes with a later page is missing from it.  So nothing of it
    is seen before the last page is here, and the replica is the fold of the log up to its cursor at every instant."""

    scope: str
    facts: list[fold.Fact]
    first: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """What is aside goes into the scope, with ``sweep`` all else of it goes, the cursor is set: one transaction."""

    scope: str
    cursor: fold.Cursor
    sweep: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """``soon`` is False for a retry after a failure: the rim waits (backoff, jitter) before it asks."""

    cursors: list[sync.ScopeCursor]
    soon: bool = True


@dataclass(frozen=True, slots=True)
class Refuse:
    """An event that can't be applied: counted and said, the replica goes on."""

    scope: str
    seq: int
    about: str
    reason: str


@dataclass(frozen=True, slots=True)
class Synced:
    """Every scope is complete (told once after each connection's first complete catch-up)."""


Instruction = Apply | Stage | Finish | Ask | Refuse | Synced


@dataclass(slots=True)
class _Scope:
    name: str
    cursor: fold.Cursor
    behind: bool = True  # must ask before live events may be applied
    staging: fold.Cursor | None = None  # a catch-up of several pages is under way: how far it has come
    sweep: bool = False  # and it is a reset
    horizon: int = 0  # begun under this one: what began before a compaction can't go on after it
    buffer: list[Live] = field(default_factory=list)
    overflowed: bool = False


class ReplicaCore:
    """State of the scopes of one replica; ``handle`` is the only mutator."""

    def __init__(self, cursors: dict[str, fold.Cursor]) -> None:
        self._scopes = {name: _Scope(name, c) for name, c in cursors.items()}
        self._connected = False
        self._asking = False
        self._asked: list[sync.ScopeCursor] = []
        self._ask_again = False
        self._told_synced = False

    def cursor(self, scope: str) -> fold.Cursor:
        return self._scopes[scope].cursor

    @property
    def synced(self) -> bool:
        return self._connected and not any(s.behind for s in self._scopes.values())

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        match stimulus:
            case Live():
                return self._live(stimulus)
            case Answered(pages, asked):
                if asked is not None and asked != self._asked:
                    return []  # a page of a reset that was given up is not the beginning of another
                return self._answered(pages)
            case Connected():
                self._connected = True
                self._told_synced = False
                self._asking = False
                self._ask_again = False
                for s in self._scopes.values():
                    self._fall_behind(s)
                return self._ask()
            case Disconnected():
                self._connected = False
                self._asking = False
                for s in self._scopes.values():
                    self._fall_behind(s)
                return []
            case Failed():
                # What is aside stays: a long catch-up over a bad link goes on where it was.
                self._asking = False
                return self._ask(soon=False) if self._connected else []
            case Refresh():
                return self._ask() if self._connected else []
            case Lost(cursors):
                for name, cursor in cursors.items():
                    s = self._scopes[name]
                    s.cursor = cursor
                    self._fall_behind(s)
                self._asking = False
                self._told_synced = False  # whoever was to be told may not have been: the rest of the batch was dropped
                return self._ask(soon=False) if self._connected else []

    def _fall_behind(self, s: _Scope) -> None:
        s.behind, s.staging, s.overflowed = True, None, False
        s.buffer.clear()

    def _ask(self, *, soon: bool = True) -> list[Instruction]:
        """Ask for every scope, or only for those behind when some are; one request at a time."""
        if self._asking:
            self._ask_again = True
            return []
        behind = [s for s in self._scopes.values() if s.behind] or list(self._scopes.values())
        self._asking = True
        self._ask_again = False
        self._asked = [_cursor_of(s) for s in behind]
        return [Ask(self._asked, soon)]

    # --- live

    def _live(self, live: Live) -> list[Instruction]:
        s = self._scopes.get(live.scope)
        if s is None:
            return [Refuse(live.scope, live.seq, str(live.key), "not a scope of this replica")]
        if s.behind:
            if len(s.buffer) >= BUFFER_EVENTS_MAX:
                s.overflowed = True
            else:
                s.buffer.append(live)
            return []
        return self._take(s, [live])

    def _take(self, s: _Scope, lives: Iterable[Live]) -> list[Instruction]:
        """Live events that follow on are applied together; the first gap asks."""
        out: list[Instruction] = []
        facts: list[fold.Fact] = []
        gap = False
        for live in lives:
            if live.epoch and live.epoch != s.cursor.epoch:
                gap = True
                break
            if live.seq <= s.cursor.seq:
                continue
            try:
                fact = fold.fact_of(live.scope, live.key, live.seq, live.payload)
            except codec.DecodeError as e:
                # Its prev can't be read: catch-up will show it again, from the log itself, and go past it.
                out.append(Refuse(s.name, live.seq, str(live.key), str(e)))
                gap = True
                break
            if fact.event is None or fact.event.prev is None or fact.event.prev > s.cursor.seq:
                gap = True
                break
            facts.append(fact)
            s.cursor = fold.Cursor(s.cursor.epoch, live.seq)
        if facts:
            out.append(Apply(s.name, facts, s.cursor))
        if gap:
            s.behind = True
            out.extend(self._ask())
        return out

    # --- catch-up

    def _answered(self, pages: list[sync.ScopePage]) -> list[Instruction]:
        if not self._asking:
            return []  # an answer to a request of an earlier connection
        self._asking = False
        out: list[Instruction] = []
        for page in pages:
            s = self._scopes.get(page.scope)
            if s is not None:
                out.extend(self._page(s, page))
        if self._ask_again or any(s.behind for s in self._scopes.values()):
            out.extend(self._ask(soon=not any(isinstance(i, Refuse) and i.about == PAGE for i in out)))
        elif not self._told_synced:
            self._told_synced = True
            out.append(Synced())
        return out

    def _page(self, s: _Scope, page: sync.ScopePage) -> list[Instruction]:
        out: list[Instruction] = []
        at = s.staging or s.cursor
        begins = page.reset or at.epoch == ""
        if not begins and page.epoch != at.epoch:
            return [Refuse(s.name, page.up_to, PAGE, f"of epoch {page.epoch}, asked for {at.epoch}")]
        after = 0 if begins else at.seq
        facts: list[fold.Fact] = []
        for item in page.events:
            if item.seq <= after:
                continue  # already applied by a live event that came before the answer
            try:
                scope, key = subjects.parse_live(f"live.{item.subject}")
                if scope != s.name:
                    raise codec.DecodeError(f"of scope {scope} in a page of {s.name}")
                facts.append(fold.fact_of(scope, key, item.seq, item.event))
            except (codec.DecodeError, subjects.SubjectError) as e:
                out.append(Refuse(s.name, item.seq, item.subject, str(e)))
        cursor = fold.Cursor(page.epoch, max(after, page.up_to))
        if begins or page.more or s.staging is not None:
            first = begins or s.staging is None
            if first:
                s.sweep, s.horizon = begins, page.horizon
            out.append(Stage(s.name, facts, first))
            s.staging = cursor
            if not page.more:
                s.staging, s.cursor = None, cursor
                out.append(Finish(s.name, cursor, s.sweep))
        elif facts or cursor != s.cursor:
            s.cursor = cursor
            out.append(Apply(s.name, facts, cursor))
        s.behind = page.more
        if not s.behind:
            out.extend(self._drain(s))
        return out

    def _drain(self, s: _Scope) -> list[Instruction]:
        lives, s.buffer = s.buffer, []
        if s.overflowed:
            s.overflowed, s.behind = False, True
        return self._take(s, lives)


def _cursor_of(s: _Scope) -> sync.ScopeCursor:
    at = s.staging or s.cursor
    horizon = s.horizon if s.staging is not None and s.sweep else 0
    return sync.ScopeCursor(scope=s.name, epoch=at.epoch, cursor=at.seq, horizon=horizon)
