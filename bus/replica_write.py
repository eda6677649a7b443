"""What a replica's instructions do to its store: pure but for the transaction that is handed in.

Apart from the rim (replica.py), so that the simulation and the hollow node write with the code that runs on a node.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from bus import fold, replica_core
from bus.stores import base
from schemas import codec

STAGE = "\x01"  # prefix of the scope while pages are kept aside; no scope begins so


@dataclass(frozen=True, slots=True)
class Applied:
    """One fact that changed the replica; ``resync`` when it came by catch-up and not live."""

    fact: fold.Fact
    resync: bool


def write(txn: base.Transaction, i: replica_core.Instruction) -> list[Applied]:
    """Apply, Stage or Finish in the caller's transaction; what changed, in order."""
    match i:
        case replica_core.Apply(scope, facts, cursor):
            changed = [Applied(f, False) for f in facts if fold.put(txn, f)]
            txn.put("cursors", scope.encode(), cursor.to_bytes())
            return changed
        case replica_core.Stage(scope, facts, first):
            if first:
                for key, _ in txn.items("objects", fold.scope_prefix(STAGE + scope)):
                    txn.delete("objects", key)
            for f in facts:  # tombstones too: they take out what the scope holds
                txn.put("objects", fold.store_key(STAGE + scope, f.key), fold.store_value(f.seq, f.payload))
            return []
        case replica_core.Finish(scope, cursor, sweep):
            return _finish(txn, scope, cursor, sweep)
        case _:
            raise AssertionError(i)


def _finish(txn: base.Transaction, scope: str, cursor: fold.Cursor, sweep: bool) -> list[Applied]:
    """Put what is aside in, and sweep when it is the whole scope: only what differs is a change."""
    changed: list[Applied] = []
    keep: set[bytes] = set()
    for staged_key, value in txn.items("objects", fold.scope_prefix(STAGE + scope)):
        seq, payload = fold.split_value(value)
        txn.delete("objects", staged_key)
        try:
            fact = _refact(scope, seq, payload)
        except codec.DecodeError:
            fact = None
        if fact is None:
            # From the future: its key is the staged one without the prefix (never shortened to a hash here).
            key = staged_key[len(STAGE) :]
            txn.put("objects", key, value)
            keep.add(key)
            continue
        key = fold.store_key(scope, fact.key)
        keep.add(key)
        if fold.put(txn, fact):
            changed.append(Applied(fact, True))
    for key, value in txn.items("objects", fold.scope_prefix(scope)) if sweep else ():
        if key not in keep:
            seq, payload = fold.split_value(value)
            txn.delete("objects", key)
            with contextlib.suppress(codec.DecodeError):
                changed.append(Applied(_tombstone(_refact(scope, seq, payload)), True))
    txn.put("cursors", scope.encode(), cursor.to_bytes())
    return changed


def _refact(scope: str, seq: int, payload: bytes) -> fold.Fact:
    ev = codec.decode_event(payload)
    return fold.Fact(scope, ev.key, seq, payload, ev)


def _tombstone(swept: fold.Fact) -> fold.Fact:
    """What a sweep tells the node: as if the object's tombstone had come."""
    assert swept.event is not None
    gone = swept.event.model_copy(update={"type": "object.deleted", "data": None})
    return fold.Fact(swept.scope, swept.key, swept.seq, swept.payload, gone)
