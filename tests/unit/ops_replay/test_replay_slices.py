"""The fold of a slice and the comparison with a replica: equal, and every way to differ."""

from typing import Any

import pytest

from bus import fold
from ops.replay import render, slices
from schemas import codec, event, subjects
from tests.unit.ops_replay import made

KEYS = [subjects.ObjectKey("", "configmaps", "default", f"c{i}") for i in range(4)]


def _line(seq: int, key: subjects.ObjectKey, scope: str = "edge-1", **fields: Any) -> slices.Line:
    values: dict[str, Any] = {"type": event.OBJECT_APPLIED, "data": {"seq": seq}} | fields
    ev = event.Event(
        id=made.id_of(seq), scope=scope, group=key.group, resource=key.resource, namespace=key.namespace, name=key.name,
        time=made.T, source="d", trace=made.id_of(seq), **values,
    )  # fmt: skip
    return slices.Line(seq, subjects.meta(scope, key, 1), codec.encode_event(ev))


LINES = [
    _line(1, KEYS[0]),
    _line(2, KEYS[1]),
    _line(3, KEYS[1], scope="edge-2"),
    _line(4, KEYS[0]),
    _line(5, KEYS[2]),
    _line(6, KEYS[1], type=event.OBJECT_DELETED, data=None),
    _line(9, KEYS[3]),
]


def _names(folded: slices.Folded) -> list[str]:
    return [h.key.rpartition("/")[2] for h in slices.objects(folded.state)]


def test_the_slice_as_it_was_at_every_sequence() -> None:
    at = [_names(slices.fold_scope(LINES, "edge-1", n)) for n in range(10)]
    assert at[0] == []
    assert at[1:3] == [["c0"], ["c0", "c1"]]
    assert at[5] == ["c0", "c1", "c2"]
    assert at[6:9] == [["c0", "c2"]] * 3
    assert at[9] == ["c0", "c2", "c3"]
    seqs = [h.seq for h in slices.objects(slices.fold_scope(LINES, "edge-1", 9).state)]
    assert seqs == [4, 5, 9]


def test_order_and_repetition_of_reading_change_nothing() -> None:
    once = slices.fold_scope(LINES, "edge-1", 9)
    assert slices.fold_scope([*reversed(LINES), *LINES], "edge-1", 9) == once


def test_a_replica_that_equals_the_fold() -> None:
    folded = slices.fold_scope(LINES, "edge-1", 9)
    other = slices.fold_scope(LINES, "edge-2", 9)
    verdict = slices.compare("edge-1", 9, folded, {**folded.state, **other.state})
    assert verdict.equal
    assert verdict.differences == []
    assert verdict.objects == 3
    assert "equal" in render.verdict_lines("edge-1", [verdict], 5)[-1]


def test_every_kind_of_difference_is_found_and_named() -> None:
    folded = slices.fold_scope(LINES, "edge-1", 9)
    replica = dict(folded.state)
    stale, gone, bytes_differ = sorted(replica)[0], sorted(replica)[1], sorted(replica)[2]
    replica[stale] = fold.store_value(1, LINES[0].payload)
    del replica[gone]
    replica[bytes_differ] = replica[bytes_differ][:-1] + b"\x00"
    ghost = subjects.ObjectKey("", "secrets", "default", "ghost")
    replica[fold.store_key("edge-1", ghost)] = fold.store_value(7, b"x")
    verdict = slices.compare("edge-1", 9, folded, replica)
    assert not verdict.equal
    why = {d.key: d.why for d in verdict.differences}
    assert why["configmaps default/c0"] == "the log has #4, the replica #1"
    assert why["configmaps default/c2"] == "the log has it (#5), the replica lacks it"
    assert why["configmaps default/c3"].startswith("both have #9, with different bytes")
    assert why["secrets default/ghost"] == "the replica has it (#7), the log does not"
    lines = render.verdict_lines("edge-1", [verdict], 2)
    assert "and 2 more" in "\n".join(lines)
    assert lines[-1].startswith("DIFFERENT")


def test_what_no_replica_applies_is_told_and_not_folded() -> None:
    foreign = slices.Line(7, subjects.meta("edge-1", KEYS[2], 1), LINES[0].payload)
    rubbish = slices.Line(8, subjects.meta("edge-1", KEYS[2], 1), b"\xc1")
    subject = slices.Line(10, "meta.0.edge-1", b"")
    folded = slices.fold_scope([*LINES, foreign, rubbish, subject], "edge-1", 99)
    assert len(folded.refused) == 3
    assert folded.state == slices.fold_scope(LINES, "edge-1", 99).state


def test_an_event_from_the_future_is_held_and_said() -> None:
    raw = codec.unpack(LINES[4].payload) | {"v": event.EVENT_VERSION + 1}
    future = slices.Line(11, LINES[4].subject, codec.pack(raw))
    held = slices.objects(slices.fold_scope([*LINES, future], "edge-1", 11).state)
    assert [h.event is None for h in held] == [False, True, False]
    assert "from the future" in "\n".join(render.slice_lines(held))


@pytest.mark.parametrize(("us", "text"), [(700, "0.7 ms"), (56_000, "56 ms"), (1_234_000, "1.23 s"), (-2_000, "-2.0 ms")])
def test_durations_can_be_read(us: int, text: str) -> None:
    assert render.duration(us) == text
