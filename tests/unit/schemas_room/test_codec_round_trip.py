"""Any event survives the way through bytes; any bytes decode or raise the one error, in bounded memory."""

import contextlib
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import codec, event, export, telemetry
from tests.unit.schemas_room import strategies


@given(strategies.events)
def test_any_event_round_trips(ev: event.Event) -> None:
    data = codec.encode_event(ev)
    assert codec.decode_event(data) == ev
    assert codec.encode_event(codec.decode_event(data)) == data  # one form of bytes for one event


@given(strategies.events)
def test_an_event_put_together_has_the_same_bytes(ev: event.Event) -> None:
    envelope = {"v": ev.v, **ev.model_dump(exclude_defaults=True)}
    data = envelope.pop("data", None)
    made = codec.encode_applied(envelope, None if data is None else codec.pack(data))
    assert made == codec.encode_event(ev)


def test_an_event_put_together_has_the_same_limits() -> None:
    with pytest.raises(codec.EncodeError, match="the limit is"):
        codec.encode_applied({"v": 1}, b"\xc4" + b"x" * codec.EVENT_BYTES_MAX)
    with pytest.raises(codec.EncodeError, match="msgpack"):
        codec.encode_applied({"v": 1 << 70}, None)


@given(st.binary(max_size=400))
@example(b"")
@example(b"\xc1")
@example(b"\xd6\xff\x00\x00\x00\x00")  # a timestamp extension
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x81\xa1v\x02")
def test_any_bytes_decode_or_raise_our_error(data: bytes) -> None:
    for read in [codec.decode_event, *(lambda d, m=m: codec.decode_as(m, d) for m in export.MODELS)]:
        with contextlib.suppress(codec.DecodeError):
            read(data)


@settings(max_examples=300)
@given(strategies.events, st.data())
def test_damaged_events_decode_or_raise_our_error(ev: event.Event, data: st.DataObject) -> None:
    raw = bytearray(codec.encode_event(ev))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        with contextlib.suppress(codec.DecodeError):
            codec.decode_event(damaged)


FULL = codec.EVENT_BYTES_MAX
HOSTILE = {
    "array of a million claimed": b"\xdd\x00\x0f\xff\xf0" * 1000 + b"\xc0" * (FULL - 5000),
    "arrays that each claim 4 G": b"\xdd\xff\xff\xff\xff" * (FULL // 5),
    "maps that each claim a lot": b"\xdf\x00\x07\xff\xff" * (FULL // 5),
    "a million empty maps": b"\xdd" + (FULL - 5).to_bytes(4) + b"\x80" * (FULL - 5),
    "a million empty lists": b"\xdd" + (FULL - 5).to_bytes(4) + b"\x90" * (FULL - 5),
    "deep lists": b"\x91" * (FULL - 1) + b"\xc0",
    "deep maps": b"\x81\xa1a" * (FULL // 3) + b"\xc0",
    "101 deep": b"\x91" * 101 + b"\xc0",
    "a string longer than the document": b"\xdb\xff\xff\xff\xff" + b"a" * 100,
    "two documents": b"\xc0\xc0",
    "one byte too many": b"\xc0" * (FULL + 1),
    "keys that are numbers": b"\x81\x01\xc0",
    "keys that are bytes, deep": b"\x81\xa1a\x91\x81\xc4\x01a\xc0",
    "an extension": b"\xc7\x01\x05a",
    "a timestamp, deep": b"\x91\xd6\xff\x00\x00\x00\x01",
    "not UTF-8": b"\xa2\xff\xfe",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused_in_bounded_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(codec.DecodeError):
            codec.unpack(HOSTILE[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 128 * FULL


@pytest.mark.parametrize(
    "value",
    [{"a": {1: 2}}, {"a": (1, 2)}, {"a": {1, 2}}, {"a": 1 << 64}, {"a": "\ud800"}, {"a": "x" * FULL}, {"a": object()}],
    ids=["key", "tuple", "set", "number", "surrogate", "size", "object"],
)
def test_what_has_no_bytes_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(codec.EncodeError):
        codec.pack(value)


def test_depth_is_the_same_limit_both_ways() -> None:
    deep: Any = None
    for _ in range(codec.DEPTH_MAX):
        deep = [deep]
    assert codec.unpack(codec.pack(deep)) == deep
    with pytest.raises(codec.EncodeError, match="nested deeper"):
        codec.pack([deep])


def test_a_field_of_nobody_is_refused() -> None:
    raw = msgpack.packb({"value": 1, "time": 1, "seq": 1, "boot": "b", "extra": 1})
    with pytest.raises(codec.DecodeError, match="not a Sample: extra"):
        codec.decode_as(telemetry.Sample, raw)
