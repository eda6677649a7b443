"""A node's slice of the log: what it was at a point, and whether a replica equals it.  Pure.

Uses the replica's own fold (``bus/fold.py``): both sides of the comparison are made by the same rules, from different
sources (the stream here, the node's store there).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bus import fold
from schemas import codec, subjects
from schemas.event import Event

DIFFERENCES_MAX = 20  # enough to see what kind of difference it is; --all shows the rest


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a META stream, as read: sequence, subject, bytes."""

    seq: int
    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Folded:
    """``state`` as in a replica's ``objects`` table; ``refused`` are the lines that no replica applies."""

    state: dict[bytes, bytes]
    applied: int
    refused: list[str]


def fold_scope(lines: Iterable[Line], scope: str, up_to: int) -> Folded:
    """What a replica of ``scope`` must hold at cursor ``up_to``."""
    facts: list[fold.Fact] = []
    refused: list[str] = []
    for line in sorted({x.seq: x for x in lines if x.seq <= up_to}.values(), key=lambda x: x.seq):
        try:
            _, of, key = subjects.parse_meta(line.subject)
            if of == scope:
                facts.append(fold.fact_of(scope, key, line.seq, line.payload))
        except (subjects.SubjectError, codec.DecodeError) as e:
            refused.append(f"#{line.seq} {line.subject[:160]}: {e}")
    return Folded(fold.fold(facts), len(facts), refused)


@dataclass(frozen=True, slots=True)
class Held:
    """One object of a slice; ``event`` None when it is of a version from the future."""

    seq: int
    key: str
    event: Event | None


def objects(state: Mapping[bytes, bytes]) -> list[Held]:
    out = []
    for key, value in sorted(state.items()):
        seq, payload = fold.split_value(value)
        try:
            ev = codec.decode_event(payload)
        except codec.DecodeError:
            ev = None
        out.append(Held(seq, name_of(key), ev))
    return out


def name_of(store_key: bytes) -> str:
    """``resource.group namespace/name`` of a key of the ``objects`` table, for people."""
    parts = [p.decode(errors="replace") for p in store_key.split(b"\0")]
    if len(parts) != 5:
        return repr(store_key)
    return str(subjects.ObjectKey(*parts[1:]))


@dataclass(frozen=True, slots=True)
class Difference:
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one scope.  ``expected`` and ``found`` are state hashes; equal ones mean equal contents, byte for byte."""

    scope: str
    cursor: int
    objects: int
    expected: str
    found: str
    differences: list[Difference]
    refused: list[str]

    @property
    def equal(self) -> bool:
        return self.expected == self.found


def compare(scope: str, cursor: int, folded: Folded, replica: Mapping[bytes, bytes]) -> Verdict:
    prefix = fold.scope_prefix(scope)
    held = {k: v for k, v in replica.items() if k.startswith(prefix)}
    differences = [] if held == folded.state else list(_differences(folded.state, held))
    return Verdict(
        scope,
        cursor,
        len(held),
        fold.state_hash(folded.state.items()),
        fold.state_hash(held.items()),
        differences,
        folded.refused,
    )


def _differences(log: Mapping[bytes, bytes], replica: Mapping[bytes, bytes]) -> Iterable[Difference]:
    for key in sorted(log.keys() | replica.keys()):
        want, have = log.get(key), replica.get(key)
        if want == have:
            continue
        if have is None and want is not None:
            yield Difference(name_of(key), f"the log has it (#{fold.split_value(want)[0]}), the replica lacks it")
        elif want is None and have is not None:
            yield Difference(name_of(key), f"the replica has it (#{fold.split_value(have)[0]}), the log does not")
        elif want is not None and have is not None:
            yield Difference(name_of(key), _versions(fold.split_value(want), fold.split_value(have)))


def _versions(want: tuple[int, bytes], have: tuple[int, bytes]) -> str:
    if want[0] != have[0]:
        return f"the log has #{want[0]}, the replica #{have[0]}"
    return f"both have #{want[0]}, with different bytes ({len(want[1])} and {len(have[1])})"
