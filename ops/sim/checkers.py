"""What must hold whatever happened, looked at from outside: the journal of the log, the stores, the engines, the API.

Nothing here calls what it checks: keys and values of a store are taken apart by hand, what a node is owed is computed from
the objects of the API in the plainest way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

from bus import log
from ops.sim.world import SimulationError
from schemas import codec, event, subjects
from schemas.subjects import ObjectKey

if TYPE_CHECKING:
    from ops.sim.edge import EdgeNode
    from ops.sim.scenario import Simulation

Held = dict[ObjectKey, tuple[int, bytes]]  # (sequence, event bytes)


@dataclass
class _Folded:
    """One node's scope, folded from the journal as far as its cursor."""

    position: int = 0
    cursor: int = 0
    held: Held = field(default_factory=dict)


class Checkers:
    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self._folded: dict[tuple[str, str], _Folded] = {}
        self._heads: dict[str, int] = {}
        self._revs: dict[tuple[str, ObjectKey], int] = {}
        self.reported: dict[str, list[event.Event]] = {}
        self.commits = 0

    # --- while it runs ---------------------------------------------------------------------------------------------

    def meta_stored(self, r: log.Recorded, ev: event.Event) -> None:
        """The chain is exact, and no scope ever gets an old version after a new one."""
        if ev.prev != self._heads.get(ev.scope, 0):
            raise SimulationError(f"#{r.seq} {r.subject}: prev is {ev.prev}, it follows #{self._heads.get(ev.scope, 0)}")
        self._heads[ev.scope] = r.seq
        if ev.data is not None:
            at = (ev.scope, ev.key)
            if ev.rev < self._revs.get(at, 0):
                raise SimulationError(f"#{r.seq} {r.subject}: revision {ev.rev} after {self._revs[at]}")
            self._revs[at] = ev.rev

    def replica_committed(self, node: EdgeNode, scope: str) -> None:
        """fold(log up to cursor) == replica, after every transaction (DESIGN.md, invariant 2)."""
        self.commits += 1
        raw = node.store.get("cursors", scope.encode())
        _, cursor = msgpack.unpackb(raw) if raw is not None else ("", 0)
        f = self._folded.setdefault((node.name, scope), _Folded())
        if cursor < f.cursor:
            raise SimulationError(f"{node.name}: the cursor of {scope} went back from {f.cursor} to {cursor}")
        f.cursor = cursor
        shard = subjects.shard_of(scope, self.sim.hub.shards)
        journal = self.sim.hub.streams[f"META-{shard}"].journal
        while f.position < len(journal) and journal[f.position].seq <= cursor:
            _fold(f.held, journal[f.position], scope)
            f.position += 1
        held = replica_of(node, scope)
        want = f.held
        if scope in node.between_pages:
            # Pages are state, not history: until the last of them, what it brings may be missing or still an older version.
            later = {r.event().key for r in journal[f.position :] if r.event().scope == scope}
            held, want = ({k: v for k, v in h.items() if k not in later} for h in (held, want))
        if held != want:
            raise SimulationError(f"{node.name}, scope {scope} at #{cursor}: {_difference(want, held)}")

    def report_kept(self, node: EdgeNode, subject: str, ev: event.Event) -> None:
        self.reported.setdefault(subject, []).append(ev)

    # --- at the end ------------------------------------------------------------------------------------------------

    def finally_(self) -> None:
        self.sim.hub.check()
        self._catch_up_from_anywhere()
        self._nothing_reported_is_lost()

    def _catch_up_from_anywhere(self) -> None:
        """From any cursor, the state after it leads to the same end as the history (invariant 1)."""
        for s in self.sim.hub.streams.values():
            if not s.name.startswith("META"):
                continue
            whole = _folded_scopes(s.journal)
            step = max(1, len(s.journal) // 20)
            for i in range(0, len(s.journal) + 1, step):
                then = s.journal[i - 1].seq if i else 0
                partly = _folded_scopes([*s.journal[:i], *self.sim.hub.last(s.name, after=then).records])
                if partly != whole:
                    raise SimulationError(f"{s.name}: catching up from #{then} ends elsewhere")

    def _nothing_reported_is_lost(self) -> None:
        """What was committed is in the log, each subject in its order, the last one last (invariant 3)."""
        stored: dict[str, list[str]] = {}
        for s in self.sim.hub.streams.values():
            if s.name.startswith("REPORT"):
                for r in s.journal:
                    stored.setdefault(r.subject, []).append(r.event().id)
        for subject, told in self.reported.items():
            have = list(dict.fromkeys(stored.get(subject, [])))
            want = [e.id for e in told]
            if have != want:
                missing = [i for i in want if i not in have]
                raise SimulationError(f"{subject}: {len(missing)} of {len(want)} reports are missing or out of order")
            if stored[subject][-1] != want[-1]:
                raise SimulationError(f"{subject}: an old report came after the newest")

    # --- convergence -----------------------------------------------------------------------------------------------

    def not_yet(self) -> str:
        """What still differs from what everything should come to; "" when nothing does."""
        sim = self.sim
        for node in sim.nodes:
            if not node.up:
                return f"{node.name} is down"
            if node.store.count("outbox"):
                return f"{node.name} has {node.store.count('outbox')} reports to send"
            wanted = owed(sim, node.name)
            held = {k: codec.decode_event(v[1]) for k, v in replica_of(node, node.name).items()}
            if {k: _content(o) for k, o in wanted.items()} != {k: _content(e.data or {}) for k, e in held.items()}:
                return f"{node.name} holds {sorted(map(str, held))}, is owed {sorted(map(str, wanted))}"
            if why := self._containers(node):
                return why
        return self._statuses()

    def _containers(self, node: EdgeNode) -> str:
        """Every pod runs, once; nothing else is left."""
        want = set()
        for p in self.sim.api.objects("pods"):
            if p.object["spec"].get("nodeName") == node.name:
                names = ["", *(c["name"] for c in p.object["spec"]["containers"])]
                want |= {(p.object["metadata"]["uid"], n) for n in names}
        have = [(b.pod_uid, b.container) for b in node.engine.running()]
        if len(have) != len(set(have)) or set(have) != want:
            return f"{node.name} runs {sorted(have)}, should run {sorted(want)}"
        known = {uid for uid, _ in want}
        left = {b.pod_uid for b in node.engine.boxes.values()} - known | node.engine.volumes - known
        return f"{node.name} has leftovers of {sorted(left)}" if left else ""

    def _statuses(self) -> str:
        for s in self.sim.api.objects("nodes"):
            if _condition(s.object, "Ready") != "True" or s.object["spec"].get("taints"):
                return f"node {s.key.name} is {_condition(s.object, 'Ready')}, {s.object['spec'].get('taints')}"
        if len(self.sim.api.objects("nodes")) != len(self.sim.nodes):
            return "not every node is registered"
        for s in self.sim.api.objects("pods"):
            if s.object["metadata"].get("deletionTimestamp"):
                return f"{s.key} is still being deleted"
            if s.object["status"].get("phase") != "Running" or _condition(s.object, "Ready") != "True":
                return f"{s.key} is {s.object['status']}"
        return ""


def replica_of(node: EdgeNode, scope: str) -> Held:
    prefix = scope.encode() + b"\0"
    out: Held = {}
    for _, value in node.store.items("objects", prefix):
        ev = codec.decode_event(value[8:])
        out[ev.key] = (int.from_bytes(value[:8], "big"), value[8:])
    return out


def owed(sim: Simulation, node: str) -> dict[ObjectKey, dict[str, Any]]:
    """From the API's objects alone: what lives on the node, and every config map and secret that a pod there names."""
    out: dict[ObjectKey, dict[str, Any]] = {}
    for s in sim.api.objects("nodes"):
        if s.key.name == node:
            out[s.key] = s.object
    pods = [s for s in sim.api.objects("pods") if s.object["spec"].get("nodeName") == node]
    for p in pods:
        out[p.key] = p.object
    text = repr([p.object["spec"] for p in pods])
    for resource in ("configmaps", "secrets"):
        for s in sim.api.objects(resource):
            if f"'{s.key.name}'" in text:
                out[s.key] = s.object
    if pods:
        out |= {s.key: s.object for s in sim.api.objects("services")}
    return out


def _content(obj: dict[str, Any]) -> dict[str, Any]:
    """What of an object must be the same on both sides."""
    meta = obj["metadata"]
    kept = {f: meta.get(f) for f in ("name", "uid", "labels", "deletionTimestamp")}
    return {"metadata": kept} | {f: obj[f] for f in ("spec", "data", "type") if f in obj}


def _condition(obj: dict[str, Any], kind: str) -> str | None:
    return next((c["status"] for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind), None)


def _fold(held: Held, r: log.Recorded, scope: str) -> None:
    ev = codec.decode_event(r.payload)
    if ev.scope == scope:
        if ev.type == "object.deleted":
            held.pop(ev.key, None)
        else:
            held[ev.key] = (r.seq, r.payload)


def _folded_scopes(records: Sequence[log.Recorded]) -> dict[str, Held]:
    out: dict[str, Held] = {}
    for r in records:
        _fold(out.setdefault(codec.decode_event(r.payload).scope, {}), r, codec.decode_event(r.payload).scope)
    return {scope: held for scope, held in out.items() if held}


def _difference(want: Held, have: Held) -> str:
    parts = [f"lacks {k} (#{want[k][0]})" for k in want if k not in have]
    parts += [f"has {k} (#{have[k][0]}), which the log has not" for k in have if k not in want]
    parts += [f"has {k} of #{have[k][0]} instead of #{want[k][0]}" for k in want if k in have and want[k] != have[k]]
    return "the replica is not the fold of the log: " + "; ".join(parts[:5])
