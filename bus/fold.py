"""The fold of a log, and how a replica writes it down.  Pure.

``fold(events up to the cursor) == replica`` is the invariant; both sides are made here: the same key and the same value for
an event whether it came live, in a page or from the debugger reading the stream, and one hash over all of them.

A tombstone leaves nothing in the fold: that an object is gone is told by the cursor.  An event of a version from the future
is kept as it is (a later version of this code will understand it) and only not applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgpack

from bus.stores import base
from schemas import codec, event, subjects

_SEQ_BYTES = 8


@dataclass(frozen=True, slots=True)
class Fact:
    """One event as a replica takes it: where it belongs, its sequence, its bytes, and the event when it could be read."""

    scope: str
    key: subjects.ObjectKey
    seq: int
    payload: bytes
    event: event.Event | None

    @property
    def deleted(self) -> bool:
        return self.event is not None and self.event.deleted


def fact_of(scope: str, key: subjects.ObjectKey, seq: int, payload: bytes) -> Fact:
    """Raises DecodeError for bytes that are not an event, or one whose address is another."""
    try:
        ev = codec.decode_event(payload)
    except codec.UnknownVersion:
        return Fact(scope, key, seq, payload, None)
    if (ev.scope, ev.key) != (scope, key):
        raise codec.DecodeError(f"event {ev.id} of {ev.scope or '-'} {ev.key} came as {scope} {key} (#{seq})")
    return Fact(scope, key, seq, payload, ev)


def scope_prefix(scope: str) -> bytes:
    return scope.encode() + b"\0"


def store_key(scope: str, key: subjects.ObjectKey) -> bytes:
    """The key of an object in the ``objects`` table; addresses above LMDB's limit end in a hash."""
    raw = scope_prefix(scope) + b"\0".join(p.encode() for p in (key.group, key.resource, key.namespace, key.name))
    if len(raw) <= base.KEY_BYTES_MAX:
        return raw
    return raw[: base.KEY_BYTES_MAX - 34] + b"\0#" + hashlib.sha256(raw).digest()


def store_value(seq: int, payload: bytes) -> bytes:
    return seq.to_bytes(_SEQ_BYTES, "big") + payload


def split_value(value: bytes) -> tuple[int, bytes]:
    """(sequence, event bytes) of a stored value."""
    return int.from_bytes(value[:_SEQ_BYTES], "big"), value[_SEQ_BYTES:]


def put(txn: base.Transaction, fact: Fact) -> bool:
    """Apply one fact in a transaction; False when it changed nothing (a repeated event, a tombstone of nothing)."""
    key = store_key(fact.scope, fact.key)
    old = txn.get("objects", key)
    if fact.deleted:
        return txn.delete("objects", key)
    value = store_value(fact.seq, fact.payload)
    if old == value:
        return False
    txn.put("objects", key, value)
    return True


def fold(facts: Iterable[Fact]) -> dict[bytes, bytes]:
    """What the ``objects`` table must hold after these facts, given in stream order."""
    state: dict[bytes, bytes] = {}
    for f in facts:
        key = store_key(f.scope, f.key)
        if f.deleted:
            state.pop(key, None)
        else:
            state[key] = store_value(f.seq, f.payload)
    return state


def state_hash(items: Iterable[tuple[bytes, bytes]]) -> str:
    """SHA-256 over keys and values in key order, each with its length, as hex."""
    h = hashlib.sha256()
    for k, v in sorted(items):
        h.update(len(k).to_bytes(4, "big") + k + len(v).to_bytes(4, "big") + v)
    return h.hexdigest()


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a scope is applied, and in which epoch of the log."""

    epoch: str = ""
    seq: int = 0

    def to_bytes(self) -> bytes:
        data: bytes = msgpack.packb([self.epoch, self.seq])
        return data

    @staticmethod
    def from_bytes(data: bytes | None) -> Cursor:
        """Raises StoreCorrupt for bytes that are no cursor; None is the cursor of a scope never synced."""
        if data is None:
            return Cursor()
        try:
            epoch, seq = msgpack.unpackb(data)
            return Cursor(str(epoch), int(seq))
        except (ValueError, TypeError) as e:
            raise base.StoreCorrupt(f"a cursor is damaged: {e}") from e
