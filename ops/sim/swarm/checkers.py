"""What must hold at every moment, worked out from the log and the stores alone.

Nothing of the code under test is used: events are read as plain msgpack, stores as plain bytes, and each rule is written
down once more, as simply as possible.  ``Violation`` says which rule, where, and what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack

from bus import log
from ops.sim.swarm.edge import Edge
from ops.sim.swarm.hub import Hub, Stream
from schemas import codec, event

Address = tuple[str, ...]  # (scope, group, resource, namespace, name)


class Violation(AssertionError):
    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


def read(payload: bytes) -> dict[str, Any]:
    raw: dict[str, Any] = msgpack.unpackb(payload)
    return raw


def address(raw: dict[str, Any]) -> Address:
    return tuple(str(raw.get(k, "")) for k in ("scope", "group", "resource", "namespace", "name"))


# --- the log ---------------------------------------------------------------------------------------------------------


@dataclass
class LogChecker:
    """The chain of every scope, and no older version of an object after a newer one from the same epoch."""

    hub: Hub
    heads: dict[tuple[str, str], int] = field(default_factory=dict)  # (epoch, scope)
    revs: dict[tuple[str, Address], int] = field(default_factory=dict)

    def appended(self, record: log.Recorded) -> None:
        if not record.stream.startswith("META-"):
            return
        raw = read(record.payload)
        scope, epoch = raw["scope"], self.hub.epoch
        head = self.heads.get((epoch, scope), 0)
        if raw.get("prev", None) != head:
            raise Violation("chain", f"{record.subject} #{record.seq}: prev {raw.get('prev')}, its scope was at {head}")
        self.heads[epoch, scope] = record.seq
        of_epoch = raw["source"].endswith("@" + epoch)
        if raw["type"] == "object.applied" and of_epoch:
            at = (epoch, address(raw))
            rev = raw.get("rev", 0)
            if rev < self.revs.get(at, 0):
                raise Violation("fencing", f"{record.subject} #{record.seq}: version {rev} after {self.revs[at]}")
            self.revs[at] = rev

    def restored(self) -> None:
        """The new epoch begins with what the backup has."""
        for stream in self.hub.streams.values():
            for record in stream.history:
                if record.stream.startswith("META-"):
                    scope = read(record.payload)["scope"]
                    self.heads[self.hub.epoch, scope] = record.seq

    def last_stays(self) -> None:
        """Invariant 1: the last event of every subject is in the stream, tombstones included."""
        for stream in self.hub.streams.values():
            last = {r.subject: r.seq for r in stream.history}
            for subject, seq in last.items():
                if seq not in stream.records:
                    raise Violation("last event stays", f"{stream.name} #{seq} {subject} is gone")


# --- replicas --------------------------------------------------------------------------------------------------------


@dataclass
class _Fold:
    """One scope of the log of one epoch, folded up to a sequence."""

    at: int = 0
    state: dict[Address, bytes] = field(default_factory=dict)

    def advance(self, stream: Stream, scope: str, to: int) -> None:
        if to < self.at:
            self.at, self.state = 0, {}
        # History has every sequence, from 1.
        for record in stream.history[self.at : to]:
            raw = read(record.payload)
            if raw["scope"] == scope:
                if raw["type"] == "object.deleted":
                    self.state.pop(address(raw), None)
                else:
                    self.state[address(raw)] = record.seq.to_bytes(8, "big") + record.payload
        self.at = to


@dataclass
class ReplicaChecker:
    """Invariant 2: after every commit, fold(log up to the cursor) == replica, bit for bit.

    Between two pages of one catch-up it is weaker: a page is state, so an object that changed again after the page's end is
    not in it but on a later one, and until then the replica may have an older version of it, or none."""

    hub: Hub
    partial: set[tuple[str, str, int]]  # (scope, epoch, sequence): ends of pages that were not the last
    folds: dict[tuple[str, str, str], _Fold] = field(default_factory=dict)  # (node, scope, epoch)
    checked: int = 0

    def committed(self, edge: Edge, shard_of: dict[str, int]) -> None:
        for scope in edge.scopes:
            raw = edge.disk.raw.get("cursors", scope.encode())
            held = {
                tuple(p.decode() for p in key.split(b"\0")): value
                for key, value in edge.disk.raw.items("objects", scope.encode() + b"\0")
            }
            if raw is None:
                if held:
                    raise Violation("replica", f"{edge.name} holds {len(held)} objects of {scope} without a cursor")
                continue
            epoch, seq = msgpack.unpackb(raw)
            stream = self._stream(f"META-{shard_of[scope]}", epoch)
            if seq > stream.last_seq:
                raise Violation("replica", f"{edge.name} {scope}: cursor {seq}, the log ends at {stream.last_seq}")
            fold = self.folds.setdefault((edge.name, scope, epoch), _Fold())
            fold.advance(stream, scope, seq)
            self.checked += 1
            if held != fold.state and not (
                (scope, epoch, seq) in self.partial and _overtaken(stream, seq, fold.state, held)
            ):
                raise Violation("replica", f"{edge.name} {scope} at {epoch}/{seq}: {_difference(fold.state, held)}")

    def _stream(self, name: str, epoch: str) -> Stream:
        for streams in (*self.hub.past, self.hub.streams):
            if streams[name].epoch == epoch:
                return streams[name]
        raise Violation("replica", f"a cursor of epoch {epoch}, which never was")


def _overtaken(stream: Stream, at: int, want: dict[Address, bytes], held: dict[Address, bytes]) -> bool:
    """Whether all that differs has a later event in the log, and nothing held is newer than the cursor."""
    later = {address(read(r.payload)) for r in stream.history[at:]}
    differ = {k for k in {*want, *held} if want.get(k) != held.get(k)}
    return differ <= later and all(int.from_bytes(v[:8], "big") <= at for v in held.values())


def _difference(want: dict[Address, bytes], held: dict[Address, bytes]) -> str:
    missing = sorted(set(want) - set(held))
    extra = sorted(set(held) - set(want))
    other = sorted(k for k in set(want) & set(held) if want[k] != held[k])
    return f"missing {missing}, not to be there {extra}, of another version {other}"


# --- reports ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Said:
    node: str
    number: int
    subject: str
    id: str
    payload: bytes
    logged: bool = False


@dataclass
class ReportChecker:
    """Invariant 3: what an edge committed is logged before it leaves the outbox, in order for each subject."""

    said: dict[str, _Said] = field(default_factory=dict)  # by event id
    waiting: dict[str, dict[int, _Said]] = field(default_factory=dict)  # node -> outbox
    newest: dict[str, _Said] = field(default_factory=dict)  # by subject
    last_logged: dict[str, int] = field(default_factory=dict)  # subject -> order of commit
    lives: dict[str, int] = field(default_factory=dict)  # node -> number of its disk
    order: dict[str, int] = field(default_factory=dict)  # event id -> order of commit
    overtaken: int = 0

    def committed(self, edge: Edge) -> None:
        box: dict[int, _Said] = {}
        before = self.waiting.get(edge.name, {})
        for key, value in edge.disk.raw.items("outbox"):
            number = int.from_bytes(key, "big")
            known = before.get(number)
            if known is None:
                subject, ident, payload = msgpack.unpackb(value)
                known = self._say(_Said(edge.name, number, subject, ident, payload))
                self._is_newest(known)
            box[number] = known
        for number, old in before.items():
            if number not in box and not old.logged:
                if self.order[self.newest[old.subject].id] <= self.order[old.id]:
                    raise Violation("report", f"{edge.name} dropped {old.subject} ({old.id}): not logged, not overtaken")
                self.overtaken += 1
        self.waiting[edge.name] = box

    def refused(self, edge: Edge, subject: str, ev: event.Event) -> None:
        """A full disk may not take it: the node may send it all the same, and nothing relies on that."""
        self._say(_Said(edge.name, 0, subject, ev.id, codec.encode_event(ev)))

    def _is_newest(self, said: _Said) -> None:
        """Stored or logged: only then it may take the place of what was said before."""
        if self.order[said.id] >= self.order[self.newest.setdefault(said.subject, said).id]:
            self.newest[said.subject] = said

    def _say(self, new: _Said) -> _Said:
        if new.id not in self.said:
            self.said[new.id] = new
            self.order[new.id] = len(self.order) + 1
        return self.said[new.id]

    def disk_lost(self, edge: Edge) -> None:
        self.waiting[edge.name] = {}

    def appended(self, record: log.Recorded) -> None:
        if not record.stream.startswith("REPORT-"):
            return
        ident = read(record.payload)["id"]
        said = self.said.get(ident)
        if said is None:
            raise Violation("report", f"{record.subject} #{record.seq} was never committed by its node")
        said.logged = True
        order = self.order[ident]
        if order < self.last_logged.get(record.subject, 0):
            raise Violation("report order", f"{record.subject} #{record.seq} is older than the one logged before it")
        self.last_logged[record.subject] = order
        self._is_newest(said)

    def owed(self) -> list[str]:
        return [f"{s.subject} ({s.id})" for box in self.waiting.values() for s in box.values() if not s.logged]


# --- containers ------------------------------------------------------------------------------------------------------


def never_two(edge: Edge) -> None:
    """Never two running containers of one pod and name, never two pods of one name."""
    running: dict[tuple[str, str, str], str] = {}
    for seen in edge.engine.containers.values():
        if seen.state == "running":
            at = (seen.namespace, seen.pod, seen.container)
            if at in running:
                raise Violation(
                    "never two", f"{edge.name} runs {seen.namespace}/{seen.pod} {seen.container or '(sandbox)'} twice"
                )
            running[at] = seen.id
