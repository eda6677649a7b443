"""What must hold at every moment, worked out from the log and the stores alone.

Nothing of the code under test is used: events are read as plain msgpack, stores as plain bytes, and each rule is written
down once more, as simply as possible.  ``Violation`` says which rule, where, and what was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgpack

from bus import fold, log
from ops.sim.hub import Hub, Stream
from ops.sim.leading import TTL_US, Campaign
from ops.sim.worker import Worker
from schemas import event

if TYPE_CHECKING:
    from ops.sim.edge import Edge

Address = tuple[str, ...]  # (scope, group, resource, namespace, name)
ANYWHERE_LOOKS = 12  # cursors of each stream that are tried at the end


class Violation(AssertionError):
    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


@lru_cache(maxsize=8192)  # more than a run has
def read(payload: bytes) -> dict[str, Any]:
    """Shared: not to be changed."""
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
    compacted: bool = False  # by an operator, who took out what was over

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
        """Invariant 1: the last event of every subject is in the stream, tombstones included; an operator may have taken out
        what is over, but never the last event of a scope."""
        for stream in self.hub.streams.values():
            last = {r.subject: r for r in stream.history}
            heads = set(stream.of_scope.values())
            for subject, r in last.items():
                if r.seq not in stream.records and not (over(r) and self.compacted and r.seq not in heads):
                    raise Violation("last event stays", f"{stream.name} #{r.seq} {subject} is gone")

    def catch_up_from_anywhere(self) -> None:
        """Invariant 1, seen by a replica: from any cursor that is not below the horizon, what the stream holds after it
        leads to where the whole history leads."""
        for stream in self.hub.streams.values():
            if not stream.name.startswith("META-"):
                continue
            whole = _folded(stream.history)
            for seq in range(0, stream.last_seq + 1, max(1, stream.last_seq // ANYWHERE_LOOKS)):
                if 0 < seq < stream.horizon:
                    continue
                after = [r for r in stream.records.values() if r.seq > seq]
                if _folded([*stream.history[:seq], *after]) != whole:
                    raise Violation("last event stays", f"{stream.name}: catching up from #{seq} ends elsewhere")


def over(record: log.Recorded) -> bool:
    """Whether a record says that something is no more: a tombstone, or the report that a pod is gone."""
    raw = read(record.payload)
    data = raw.get("data")
    if raw["type"] == event.REPORT:
        return raw["resource"] == "event" or (raw["resource"] == "pod" and (data or {}).get("status") is None)
    return bool(raw["type"] == event.OBJECT_DELETED)


def _folded(records: Sequence[log.Recorded]) -> dict[Address, int]:
    out: dict[Address, int] = {}
    for r in records:
        raw = read(r.payload)
        if raw["type"] == event.OBJECT_DELETED:
            out.pop(address(raw), None)
        else:
            out[address(raw)] = r.seq
    return out


# --- the API ---------------------------------------------------------------------------------------------------------


@dataclass
class ClusterChecker:
    """No write is lost: what was acknowledged is in the log as it was told, no write overwrites one that it did not see (a
    counter rises by one each time), and no object takes the place of another that was not deleted."""

    hub: Hub
    uids: dict[str, str] = field(default_factory=dict)  # subject -> uid of what is there
    counter: int = 0
    writes: int = 0

    def appended(self, record: log.Recorded) -> None:
        if record.stream != "CLUSTER":
            return
        raw = read(record.payload)
        if raw["type"] == event.OBJECT_DELETED:
            self.uids.pop(record.subject, None)
            return
        before = self.uids.get(record.subject)
        if before is not None and before != raw["uid"]:
            raise Violation("api", f"{record.subject} #{record.seq}: {raw['uid']} in the place of {before}, not deleted")
        self.uids[record.subject] = raw["uid"]
        if raw["name"] == "counter" and raw["resource"] == "configmaps":
            now = int(raw["data"]["data"]["n"])
            if now != self.counter and now != self.counter + 1:
                raise Violation("api", f"an update is lost: #{record.seq} sets the counter from {self.counter} to {now}")
            if now == self.counter and before is not None and self._bare(raw) != self._bare_last(record):
                raise Violation("api", f"an update is lost: #{record.seq} counts to {now} once more")
            self.counter = now

    def _bare(self, raw: dict[str, Any]) -> Any:
        return raw["data"]["data"]

    def _bare_last(self, record: log.Recorded) -> Any:
        """What the counter was before this record."""
        for r in reversed(self.hub.streams["CLUSTER"].history[: record.seq - 1]):
            if r.subject == record.subject:
                return self._bare(read(r.payload))
        return None

    def acknowledged(self, server: Worker, rev: int, obj: dict[str, Any]) -> None:
        """A user was told that this is stored; and the server must show it from now on."""
        self.writes += 1
        stream = self.hub.streams["CLUSTER"]
        if server.epoch != stream.epoch:
            return  # of a log that is no more: a restore loses what came after the backup
        found = stream.history[rev - 1] if rev <= stream.last_seq else None
        if found is None or read(found.payload)["uid"] != obj["metadata"]["uid"]:
            raise Violation("api", f"{server.name} acknowledged #{rev} of {obj['metadata']['name']}, which the log has not")

    def restored(self) -> None:
        self.uids, self.counter = {}, 0
        for r in self.hub.streams["CLUSTER"].history:
            raw = read(r.payload)
            if raw["type"] == event.OBJECT_DELETED:
                self.uids.pop(r.subject, None)
            else:
                self.uids[r.subject] = raw["uid"]
                if raw["name"] == "counter" and raw["resource"] == "configmaps":
                    self.counter = int(raw["data"]["data"]["n"])


# --- replicas --------------------------------------------------------------------------------------------------------


@dataclass
class _Fold:
    """One scope of the log of one epoch, folded up to a sequence."""

    at: int = 0
    state: dict[Address, bytes] = field(default_factory=dict)

    def advance(self, stream: Stream, scope: str, to: int) -> None:
        if to < self.at:
            self.at, self.state = 0, {}
        self.also(stream.history[self.at : to], scope)  # history has every sequence, from 1
        self.at = to

    def also(self, records: Sequence[log.Recorded], scope: str) -> dict[Address, bytes]:
        for record in records:
            raw = read(record.payload)
            if raw["scope"] == scope:
                if raw["type"] == "object.deleted":
                    self.state.pop(address(raw), None)
                else:
                    self.state[address(raw)] = record.seq.to_bytes(8, "big") + record.payload
        return self.state


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
                    raise Violation("replica", f"{edge.ident} holds {len(held)} objects of {scope} without a cursor")
                continue
            epoch, seq = msgpack.unpackb(raw)
            stream = self._stream(f"META-{shard_of[scope]}", epoch)
            self.checked += 1
            fold = self.folds.setdefault((edge.ident, scope, epoch), _Fold())
            fold.advance(stream, scope, min(seq, stream.last_seq))
            if held == fold.state and seq <= stream.last_seq:
                continue
            if held in self._written_late(stream, scope, seq):
                continue
            if seq > stream.last_seq:
                raise Violation("replica", f"{edge.ident} {scope}: cursor {seq}, the log ends at {stream.last_seq}")
            if not ((scope, epoch, seq) in self.partial and _overtaken(stream, seq, fold.state, held)):
                raise Violation("replica", f"{edge.ident} {scope} at {epoch}/{seq}: {_difference(fold.state, held)}")

    def _written_late(self, stream: Stream, scope: str, to: int) -> Iterator[dict[Address, bytes]]:
        """What a replica of an ended epoch holds that heard a dispatcher of that epoch, which had not noticed yet that the
        hub was restored: its event went to the new log, and goes on from the old one.  The next catch-up resets both."""
        later = [s for n in (*self.hub.past, self.hub.streams) if (s := n[stream.name]).epoch > stream.epoch]
        late = {
            r.seq: r
            for s in later
            for r in s.history
            if (r.headers or {}).get(log.EPOCH_HEADER) == stream.epoch and read(r.payload)["scope"] == scope
        }
        chain: list[log.Recorded] = []
        at = to
        while at in late:
            chain.insert(0, late[at])
            at = read(late[at].payload)["prev"]
        for n in range(len(chain)):  # a number may be of both logs: where it went over from one to the other is not known
            at = read(chain[n].payload)["prev"]
            if at <= stream.last_seq:
                fold = _Fold()
                fold.advance(stream, scope, at)
                yield fold.also(chain[n:], scope)

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


# --- who leads -------------------------------------------------------------------------------------------------------


@dataclass
class LeaseChecker:
    """Never two that may act as the leader of one role, by the time that all machines share; one that sleeps counts: it may
    wake up now.  A restored hub has forgotten who led."""

    hub: Hub
    campaigns: dict[str, dict[str, Campaign]] = field(default_factory=dict)  # role -> process -> its campaign

    def changed(self, role: str, campaign: Campaign) -> None:
        of_role = self.campaigns.setdefault(role, {})
        of_role[campaign.worker.name] = campaign
        leaders = [name for name, c in of_role.items() if c.leads]
        now_us = campaign.worker.schedule.now_us
        if len(leaders) > 1 and now_us - self.hub.restored_us > TTL_US:
            raise Violation("one leader", f"{role} is led by {' and '.join(leaders)}")


# --- who looks at a node ---------------------------------------------------------------------------------------------


@dataclass
class ObserverChecker:
    """Whatever lives from a replica (pods, devices, a watcher) never sees an older version of an object after a newer one:
    through live events, catch-ups, restarts and lost stores.  Only a log of another epoch may take it back.

    A withdrawal is no version: what isn't needed any more may be needed again as it was.  The end of an object is one."""

    hub: Hub
    seen: dict[tuple[str, Address], tuple[int, int, int]] = field(default_factory=dict)
    told_of: int = 0

    def told(self, edge: Edge, fact: fold.Fact) -> None:
        raw = read(fact.payload)
        if fact.deleted and not self._ended(raw):
            return
        cursor = edge.disk.raw.get("cursors", fact.scope.encode())
        of_log = msgpack.unpackb(cursor)[0] if cursor is not None else "e0"
        of_writer = raw["source"].rpartition("@")[2]
        now = (int(of_log[1:]), int(of_writer[1:]), raw.get("rev", 0))
        at = (edge.ident, address(raw))
        before = self.seen.get(at, (0, 0, 0))
        if now < before:
            raise Violation("observer", f"{edge.ident} shows {address(raw)} of {now} after {before}")
        self.seen[at] = now
        self.told_of += 1

    def _ended(self, raw: dict[str, Any]) -> bool:
        """Whether the object itself was deleted, at the revision that the tombstone names."""
        history, rev = self.hub.streams["CLUSTER"].history, raw.get("rev", 0)
        if not 0 < rev <= len(history) or raw["type"] != event.OBJECT_DELETED:
            return False
        cause = read(history[rev - 1].payload)
        return cause["type"] == event.OBJECT_DELETED and address(cause)[1:] == address(raw)[1:]


# --- reports ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Said:
    ident: str
    subject: str
    id: str
    order: int  # of being made
    logged: bool = False


@dataclass
class ReportChecker:
    """Invariant 3: what an edge committed is logged before it leaves the outbox, each subject in the order of being made.

    A report that a full disk refused is held in memory.  It is bound by the same order, and by the same promise for as long
    as the daemon lives: in the end it is logged, or one made after it is stored or logged.  A crash may lose it: the state
    that it told of was not stored either, so the next life finds it anew, which is checked from the engine's side
    (outcome.py).  What two machines with one identity say has an order on each; a copied store has copies of reports."""

    said: dict[str, _Said] = field(default_factory=dict)  # by event id
    waiting: dict[str, dict[int, _Said]] = field(default_factory=dict)  # machine -> outbox
    held: dict[str, dict[str, _Said]] = field(default_factory=dict)  # machine -> subject -> in memory only
    newest: dict[tuple[str, str], int] = field(default_factory=dict)  # (machine, subject): stored or logged
    last_logged: dict[tuple[str, str], int] = field(default_factory=dict)  # (machine, subject)
    copied: set[str] = field(default_factory=set)  # ids that two machines have
    overtaken: int = 0
    held_ever: int = 0

    def committed(self, edge: Edge) -> None:
        box: dict[int, _Said] = {}
        before = self.waiting.get(edge.ident, {})
        for key, value in edge.disk.raw.items("outbox"):
            number = int.from_bytes(key, "big")
            known = before.get(number)
            if known is None:
                subject, ident, _ = msgpack.unpackb(value)
                known = self._say(edge, subject, ident)
                self._kept(known)
            box[number] = known
        for number, old in before.items():
            if number not in box and not old.logged:
                if self.newest[edge.ident, old.subject] <= old.order:
                    raise Violation("report", f"{edge.ident} dropped {old.subject} ({old.id}): not logged, not overtaken")
                self.overtaken += 1
        self.waiting[edge.ident] = box

    def refused(self, edge: Edge, subject: str, ev: event.Event) -> None:
        self.held_ever += 1
        self.held.setdefault(edge.ident, {})[subject] = self._say(edge, subject, ev.id)

    def _kept(self, said: _Said) -> None:
        at = (said.ident, said.subject)
        self.newest[at] = max(self.newest.get(at, 0), said.order)
        held = self.held.get(said.ident, {}).get(said.subject)
        if held is not None and held.order <= said.order:
            del self.held[said.ident][said.subject]

    def _say(self, edge: Edge, subject: str, ident: str) -> _Said:
        if ident not in self.said:
            self.said[ident] = _Said(edge.ident, subject, ident, len(self.said) + 1)
        return self.said[ident]

    def crashed(self, edge: Edge) -> None:
        self.held.pop(edge.ident, None)

    def disk_lost(self, edge: Edge) -> None:
        self.waiting[edge.ident] = {}

    def cloned(self, clone: Edge) -> None:
        """Its store is a copy: what waits in it is said by two."""
        box: dict[int, _Said] = {}
        for key, value in clone.disk.raw.items("outbox"):
            subject, ident, _ = msgpack.unpackb(value)
            self.copied.add(ident)
            copy = self.said[ident]
            box[int.from_bytes(key, "big")] = _Said(clone.ident, subject, ident, copy.order, copy.logged)
            self.newest[clone.ident, subject] = copy.order
        self.waiting[clone.ident] = box

    def appended(self, record: log.Recorded) -> None:
        if not record.stream.startswith("REPORT-"):
            return
        ident = read(record.payload)["id"]
        said = self.said.get(ident)
        if said is None:
            raise Violation("report", f"{record.subject} #{record.seq} was never made by its node")
        said.logged = True
        at = (said.ident, record.subject)
        if ident not in self.copied:
            if said.order < self.last_logged.get(at, 0):
                raise Violation("report order", f"{record.subject} #{record.seq} is older than the one logged before it")
            self.last_logged[at] = said.order
        for box in self.waiting.values():
            for copy in box.values():
                if copy.id == ident:
                    copy.logged = True
        self._kept(said)

    def owed(self) -> list[str]:
        boxes = [s for box in self.waiting.values() for s in box.values()]
        held = [s for of in self.held.values() for s in of.values()]
        return [f"{s.subject} ({s.id})" for s in (*boxes, *held) if not s.logged]


# --- containers ------------------------------------------------------------------------------------------------------


def never_two(edge: Edge) -> None:
    """Never two running containers of one pod and name, never two pods of one name."""
    running: dict[tuple[str, str, str], str] = {}
    for seen in edge.engine.containers.values():
        if seen.state == "running":
            at = (seen.namespace, seen.pod, seen.container)
            if at in running:
                raise Violation(
                    "never two", f"{edge.ident} runs {seen.namespace}/{seen.pod} {seen.container or '(sandbox)'} twice"
                )
            running[at] = seen.id
