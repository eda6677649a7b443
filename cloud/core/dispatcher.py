"""The dispatcher's decisions: CLUSTER events in, the META events that each scope is owed out.

It compares two folds: what every scope *should* hold (pods, devices and nodes, and what they name: ``needs.py``) and
what the log says each scope *does* hold.  Only the difference is written, so starting again at any point, or twice, is
harmless: there is no queue to lose and no bookkeeping but the log.

Four rules keep it exact:

* One append in flight per scope, expecting the scope's last sequence.  So ``prev`` is the true chain, and a second writer
  is refused by the log instead of being mixed in.
* Latest wins.  What is written is looked up when it is written; changes that come while a scope is busy fold into one.
* After a conflict nothing is written to the scope before it was read again *and* CLUSTER was folded, whole, at least as
  far as it had grown by then.  Whoever wrote last had folded no more than that, so a successor never decides on an older
  view than its predecessor did: a worker that slept through a fail-over can't bring old state back.
* META is followed: whatever somebody else wrote makes the scope be read again.  An append of a worker that died can arrive
  after its successor has looked and found nothing to do, and so nothing to conflict with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cloud.core import needs, projection
from cloud.core.stimuli import (
    Append,
    AppendConflict,
    Appended,
    AppendFailed,
    AppendRefused,
    ClusterEvent,
    Folded,
    Instruction,
    Loaded,
    MetaEvent,
    ReloadFailed,
    ReloadScope,
    ScopeReloaded,
    Stimulus,
    Written,
)
from schemas import subjects
from schemas.subjects import ObjectKey

APPENDS_IN_FLIGHT_MAX = 256  # nats-py is at full speed from a window of 100 (NATS-FACTS.md); more only holds memory
RETRY_DELAY_MS = (
    100  # doubles up to the maximum: a hub that restarts is back within seconds, one that is gone isn't hammered
)
RETRY_DELAY_MS_MAX = 10_000

# Order within a scope: a pod should find its config there, and lose it only after the pod itself is gone.
_SUPPORT, _MAIN, _LEAVING = range(3)


_UNREADABLE = b""


@dataclass(frozen=True, slots=True)
class Cause:
    """The CLUSTER event that made something change."""

    seq: int
    id: str
    trace: str


@dataclass(slots=True)
class _Known:
    """An object as CLUSTER has it last."""

    rev: int
    uid: str
    data: dict[str, Any]
    cause: Cause
    digest: bytes | None = None  # of the projection, made when first needed

    def content(self, key: ObjectKey) -> bytes:
        if self.digest is None:
            self.digest = projection.digest(projection.project(key, self.data))
        return self.digest


@dataclass(frozen=True, slots=True)
class _Held:
    """What a scope of the log has for an object."""

    content: bytes
    uid: str


@dataclass(slots=True)
class _Scope:
    name: str
    head: int = 0
    seen: int = 0  # last sequence that was told after Loaded, whoever wrote it
    holds: dict[ObjectKey, _Held] = field(default_factory=dict)  # no tombstones
    needs: dict[ObjectKey, int] = field(default_factory=dict)  # how many referrers; may contain needs.ANY
    dirty: tuple[dict[ObjectKey, Cause], ...] = field(default_factory=lambda: ({}, {}, {}))
    flight: tuple[ObjectKey, _Held | None] | None = None
    reloading: bool = False
    folded_needed: int = 0
    attempts: int = 0
    refused: dict[ObjectKey, bytes] = field(default_factory=dict)
    queued: bool = False

    def free(self, whole: int) -> bool:
        return self.flight is None and not self.reloading and self.folded_needed <= whole


class Dispatcher:
    """``handle`` is the only mutator.  ``owns`` says which shards of META this worker writes (None: all of them)."""

    def __init__(self, shards: int, owns: frozenset[int] | None = None) -> None:
        self._shards = shards
        self._owns = owns
        self._loaded = False
        self._folded = 0
        self._whole = 0  # as ``folded`` when nothing more was waiting: up to here no object's state is missing
        self._objects: dict[ObjectKey, _Known] = {}
        self._graves: dict[ObjectKey, Cause] = {}  # while loading: deletions of objects that some scope may hold
        self._any: dict[ObjectKey, dict[ObjectKey, None]] = {}  # needs.ANY key -> the objects that it covers
        self._claims: dict[ObjectKey, needs.Needs] = {}  # referrer -> what it needs now
        self._followed: dict[ObjectKey, tuple[ObjectKey, ...]] = {}  # object -> what goes where it goes
        self._needed_by: dict[ObjectKey, dict[str, None]] = {}  # object, or needs.ANY key -> scopes
        self._scopes: dict[str, _Scope] = {}
        self._ready: deque[str] = deque()
        self._waiting: dict[str, None] = {}  # scopes that were read again and wait for CLUSTER to be folded that far
        self._in_flight = 0
        self._out: list[Instruction] = []

    # --- what others may ask ---------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing in flight and nothing owed."""
        return self._loaded and not self._in_flight and not any(s.reloading or any(s.dirty) for s in self._scopes.values())

    @property
    def folded(self) -> int:
        return self._folded

    def scopes_of(self, key: ObjectKey) -> list[str]:
        """The scopes that should know an object, sorted."""
        return sorted(dict.fromkeys(self._scopes_needing(key)))

    # --- the one mutator -------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        handler: Callable[[Any], None] = self._HANDLERS[type(stimulus)].__get__(self)
        handler(stimulus)
        self._pump()
        out, self._out = self._out, []
        return out

    def _meta_event(self, s: MetaEvent) -> None:
        """Before Loaded it is folded; afterwards it is either ours, or a reason to read the scope again."""
        if not self._mine(s.scope):
            return
        scope = self._scope(s.scope)
        if self._loaded:
            self._seen(scope, s.seq)
        else:
            _hold(scope, s)

    def _written(self, s: Written) -> None:
        assert self._loaded
        if self._mine(s.scope):
            self._seen(self._scope(s.scope), s.seq)

    def _seen(self, scope: _Scope, seq: int) -> None:
        scope.seen = max(scope.seen, seq)
        self._notice(scope)

    def _notice(self, scope: _Scope) -> None:
        """Somebody else wrote to the scope.  With an append in flight we can't tell yet: its answer brings us back here."""
        if scope.seen > scope.head and scope.flight is None and not scope.reloading:
            self._read_again(scope, _backoff_ms(scope.attempts) if scope.attempts else 0)
            scope.attempts += 1

    def _cluster_event(self, s: ClusterEvent) -> None:
        key = s.event.key
        told = self._loaded and s.seq <= self._folded
        if not told and (key.group, key.resource) in needs.DISPATCHED:
            self._fold(s, key)
        self._folded_to(Folded(s.seq, s.more))

    def _fold(self, s: ClusterEvent, key: ObjectKey) -> None:
        ev = s.event
        cause = Cause(s.seq, ev.id, ev.trace)
        if ev.deleted or ev.data is None:
            self._forget(key, cause)
        else:
            self._objects[key] = _Known(s.seq, ev.uid, ev.data, cause)
            self._graves.pop(key, None)
            wildcard = needs.any_of(key)
            if wildcard is not None:
                self._any.setdefault(wildcard, {})[key] = None
            self._claim(key, needs.of(key, ev.data), cause)
            self._follow(key, needs.follow(key, ev.data), cause)
        if self._loaded:
            for scope in self._scopes_needing(key):
                self._mark(scope, key, cause)

    def _forget(self, key: ObjectKey, cause: Cause) -> None:
        self._objects.pop(key, None)
        if not self._loaded:
            self._graves[key] = cause
        self._claim(key, None, cause)
        self._follow(key, (), cause)
        wildcard = needs.any_of(key)
        if wildcard is not None and wildcard in self._any:
            self._any[wildcard].pop(key, None)
            if not self._any[wildcard]:
                del self._any[wildcard]

    def _folded_to(self, s: Folded) -> None:
        self._folded = max(self._folded, s.seq)
        if not s.more:
            self._whole = self._folded
            self._release_waiting()

    def _load_done(self, s: Loaded) -> None:
        assert not self._loaded
        self._loaded = True
        self._whole = self._folded = max(self._folded, s.seq)
        for scope in self._scopes.values():
            self._compare(scope)
        self._graves.clear()

    def _appended(self, s: Appended) -> None:
        scope = self._landed(s.scope)
        assert scope.flight is not None and s.seq > scope.head, (s, scope.head)
        key, held = scope.flight
        scope.flight, scope.head, scope.attempts = None, s.seq, 0
        if held is None:
            scope.holds.pop(key, None)
        else:
            scope.holds[key] = held
        self._notice(scope)
        self._queue(scope)

    def _conflict(self, s: AppendConflict) -> None:
        """At once the first time; two workers that keep refusing each other give way more and more."""
        scope = self._landed(s.scope)
        self._read_again(scope, _backoff_ms(scope.attempts) if scope.attempts else 0)
        scope.attempts += 1

    def _failed(self, s: AppendFailed) -> None:
        """Whether it was written is told by the log, not guessed."""
        scope = self._landed(s.scope)
        scope.attempts += 1
        self._read_again(scope, _backoff_ms(scope.attempts))

    def _refused(self, s: AppendRefused) -> None:
        scope = self._landed(s.scope)
        assert scope.flight is not None
        key, held = scope.flight
        scope.flight = None
        if held is not None:
            scope.refused[key] = held.content  # not tried again until it changes; the rest of the scope goes on
        self._notice(scope)
        self._queue(scope)

    def _scope_reloaded(self, s: ScopeReloaded) -> None:
        scope = self._scope(s.scope)
        assert scope.reloading
        scope.reloading, scope.flight = False, None
        scope.head = s.head
        scope.holds.clear()
        for entry in s.events:
            _hold(scope, entry)
        scope.folded_needed = s.cluster_seq
        if scope.folded_needed > self._whole:
            self._waiting[scope.name] = None
        if scope.seen <= s.up_to:
            scope.seen = min(scope.seen, scope.head)
        self._notice(scope)  # written to since it was read
        self._compare(scope)

    def _reload_failed(self, s: ReloadFailed) -> None:
        scope = self._scope(s.scope)
        scope.attempts += 1
        self._out.append(ReloadScope(scope.name, _backoff_ms(scope.attempts)))

    _HANDLERS: dict[type, Callable[..., None]] = {  # noqa: RUF012 - one table for the class, never changed
        MetaEvent: _meta_event,
        Written: _written,
        ClusterEvent: _cluster_event,
        Loaded: _load_done,
        Folded: _folded_to,
        Appended: _appended,
        AppendConflict: _conflict,
        AppendFailed: _failed,
        AppendRefused: _refused,
        ScopeReloaded: _scope_reloaded,
        ReloadFailed: _reload_failed,
    }

    # --- who needs what --------------------------------------------------------------------------------------------

    def _claim(self, referrer: ObjectKey, now: needs.Needs | None, cause: Cause) -> None:
        """Adds before it drops, so that what both the old and the new version name is never withdrawn in between."""
        if now is not None and not self._mine(now.scope):
            now = None
        before = self._claims.pop(referrer, None)
        if now is not None:
            self._claims[referrer] = now
            for key in now.keys:
                self._need(self._scope(now.scope), key, cause)
        if before is not None:
            for key in before.keys:
                self._need_no_more(self._scopes[before.scope], key, cause)

    def _follow(self, key: ObjectKey, now: tuple[ObjectKey, ...], cause: Cause) -> None:
        """What an object brings along, wherever it is needed.  Adds before it drops, as above."""
        before = self._followed.pop(key, ())
        if now:
            self._followed[key] = now
        if now == before:
            return
        for name in list(self._needed_by.get(key, ())):
            for other in now:
                self._need(self._scopes[name], other, cause)
            for other in before:
                self._need_no_more(self._scopes[name], other, cause)

    def _need(self, scope: _Scope, key: ObjectKey, cause: Cause) -> None:
        scope.needs[key] = scope.needs.get(key, 0) + 1
        if scope.needs[key] == 1:
            self._needed_by.setdefault(key, {})[scope.name] = None
            for other in self._followed.get(key, ()):
                self._need(scope, other, cause)
            self._mark_covered(scope, key, cause)

    def _need_no_more(self, scope: _Scope, key: ObjectKey, cause: Cause) -> None:
        scope.needs[key] -= 1
        if not scope.needs[key]:
            del scope.needs[key]
            del self._needed_by[key][scope.name]
            if not self._needed_by[key]:
                del self._needed_by[key]
            for other in self._followed.get(key, ()):
                self._need_no_more(scope, other, cause)
            self._mark_covered(scope, key, cause)

    def _mark_covered(self, scope: _Scope, key: ObjectKey, cause: Cause) -> None:
        if self._loaded:
            for real in self._covered(key):
                self._mark(scope.name, real, cause)

    def _covered(self, key: ObjectKey) -> list[ObjectKey]:
        return list(self._any.get(key, ())) if key.name == needs.ANY else [key]

    def _scopes_needing(self, key: ObjectKey) -> Iterator[str]:
        yield from self._needed_by.get(key, ())
        wildcard = needs.any_of(key)
        if wildcard is not None:
            yield from self._needed_by.get(wildcard, ())

    def _wanted(self, scope: _Scope, key: ObjectKey) -> _Known | None:
        wildcard = needs.any_of(key)
        if key in scope.needs or (wildcard is not None and wildcard in scope.needs):
            return self._objects.get(key)
        return None

    # --- what is owed ----------------------------------------------------------------------------------------------

    def _compare(self, scope: _Scope) -> None:
        """Everything that a scope holds or should hold, looked at once: after a start and after a conflict."""
        keys = dict.fromkeys(scope.holds)
        keys.update((real, None) for key in scope.needs for real in self._covered(key))
        here = Cause(self._folded, "", "")  # nobody remembers why: an object left while no dispatcher ran
        for key in keys:
            if not any(key in lane for lane in scope.dirty):  # what is owed already knows its own cause
                known = self._objects.get(key)
                self._mark(scope.name, key, known.cause if known else self._graves.get(key, here))
        self._queue(scope)

    def _mark(self, name: str, key: ObjectKey, cause: Cause) -> None:
        scope = self._scopes[name]
        if self._wanted(scope, key) is None:
            rank = _LEAVING if (key.group, key.resource) not in needs.REFERRERS else _MAIN
        else:
            rank = _MAIN if (key.group, key.resource) in needs.REFERRERS else _SUPPORT
        for lane, keys in enumerate(scope.dirty):
            if keys and lane != rank:
                keys.pop(key, None)
        scope.dirty[rank][key] = cause  # keeps its place when it was there: what changes often isn't pushed back for ever
        self._queue(scope)

    def _queue(self, scope: _Scope) -> None:
        if not scope.queued and any(scope.dirty) and scope.free(self._whole):
            scope.queued = True
            self._ready.append(scope.name)

    def _pump(self) -> None:
        """Round robin: each ready scope gets one append in flight, as far as the window allows."""
        while self._ready and self._in_flight < APPENDS_IN_FLIGHT_MAX:
            scope = self._scopes[self._ready.popleft()]
            scope.queued = False
            if scope.free(self._whole):
                self._send_next(scope)

    def _send_next(self, scope: _Scope) -> None:
        for lane in scope.dirty:
            while lane:
                key = next(iter(lane))
                cause = lane.pop(key)
                known = self._wanted(scope, key)
                now = _Held(known.content(key), known.uid) if known else None
                before = scope.holds.get(key)
                if now == before or (now is not None and now.content == scope.refused.get(key)):
                    continue
                scope.refused.pop(key, None)
                scope.flight = (key, now)
                self._in_flight += 1
                self._out.append(_append(scope, key, known, before, cause))
                return

    # --- small things ----------------------------------------------------------------------------------------------

    def _scope(self, name: str) -> _Scope:
        scope = self._scopes.get(name)
        if scope is None:
            scope = self._scopes[name] = _Scope(name)
        return scope

    def _mine(self, scope: str) -> bool:
        return self._owns is None or subjects.shard_of(scope, self._shards) in self._owns

    def _landed(self, name: str) -> _Scope:
        scope = self._scopes[name]
        assert scope.flight is not None, f"{name} has no append in flight"
        self._in_flight -= 1
        return scope

    def _read_again(self, scope: _Scope, delay_ms: int) -> None:
        scope.flight, scope.reloading = None, True
        self._out.append(ReloadScope(scope.name, delay_ms))

    def _release_waiting(self) -> None:
        for name in [n for n in self._waiting if self._scopes[n].folded_needed <= self._whole]:
            del self._waiting[name]
            self._queue(self._scopes[name])


def _hold(scope: _Scope, entry: MetaEvent) -> None:
    scope.head = max(scope.head, entry.seq)
    ev = entry.event
    if ev is None:
        scope.holds[entry.key] = _Held(_UNREADABLE, "")  # like nothing that we would write: replaced or withdrawn
    elif ev.deleted or ev.data is None:
        scope.holds.pop(entry.key, None)
    else:
        scope.holds[entry.key] = _Held(projection.digest(ev.data), ev.uid)


def _append(scope: _Scope, key: ObjectKey, known: _Known | None, before: _Held | None, cause: Cause) -> Append:
    """A tombstone names the uid that it ends, and as its revision the CLUSTER event that ended it."""
    return Append(
        scope=scope.name,
        key=key,
        prev=scope.head,
        rev=known.rev if known else cause.seq,
        uid=known.uid if known else before.uid if before else "",
        data=projection.project(key, known.data) if known else None,
        cause=cause.id or None,
        trace=cause.trace or None,
    )


def _backoff_ms(attempts: int) -> int:
    return int(min(RETRY_DELAY_MS << min(attempts - 1, 16), RETRY_DELAY_MS_MAX))
