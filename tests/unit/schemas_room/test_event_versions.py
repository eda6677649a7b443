"""Old events are read for ever: recorded bytes of every version, the lifting itself, and events from the future."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, event
from tests.recorded import samples
from tests.unit.schemas_room import strategies

RECORDED = sorted(samples.HERE.glob("event-v*.msgpack"))


def test_every_sample_was_recorded() -> None:
    assert {p.stem for p in RECORDED} == set(samples.SAMPLES)
    assert {f"v{v}" for v in range(1, event.EVENT_VERSION + 1)} == {p.stem.split("-")[1] for p in RECORDED}


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
def test_recorded_bytes_decode_to_what_they_meant(path: Any) -> None:
    ev = codec.decode_event(path.read_bytes())
    assert ev == samples.SAMPLES[path.stem]
    model = samples.DATA.get(path.stem)
    if model is not None:
        assert codec.validate(model, ev.data).model_dump(exclude_defaults=True) == ev.data


@pytest.mark.parametrize("path", [p for p in RECORDED if f"-v{event.EVENT_VERSION}-" in p.name], ids=lambda p: p.stem)
def test_the_encoder_still_writes_the_recorded_bytes(path: Any) -> None:
    """State hashes and deduplication rest on it: other bytes are another version."""
    assert codec.encode_event(samples.SAMPLES[path.stem]) == path.read_bytes()


def test_there_is_an_upcaster_for_every_old_version() -> None:
    assert set(codec.UPCASTERS) == set(range(1, event.EVENT_VERSION))


LIFT = {
    1: lambda raw: {k: v for k, v in raw.items() if k != "node"} | {"scope": raw["node"].lower()},
    2: lambda raw: raw | {"actor": raw.get("actor") or "unknown"},
}


def test_old_versions_are_lifted_step_by_step() -> None:
    assert codec.upcast({"v": 1, "node": "Edge-1"}, LIFT, current=3) == {"v": 3, "scope": "edge-1", "actor": "unknown"}
    assert codec.upcast({"node": "A"}, LIFT, current=2) == {"v": 2, "scope": "a"}  # v left out is version 1
    assert codec.upcast({"v": 2, "actor": "me"}, LIFT, current=3) == {"v": 3, "actor": "me"}
    same = {"v": 3, "scope": "x"}
    assert codec.upcast(same, LIFT, current=3) is same


@given(st.dictionaries(st.sampled_from(["v", "node", "actor", "x"]), strategies.values, max_size=4))
def test_lifting_anything_gives_a_map_or_our_error(raw: dict[str, Any]) -> None:
    before = dict(raw)
    with contextlib.suppress(codec.DecodeError):
        assert codec.upcast(raw, LIFT, current=3)["v"] == 3
    assert raw == before


def test_an_event_from_the_future_is_told_apart() -> None:
    raw = samples.SAMPLES["event-v1-object-applied"].model_dump() | {"v": event.EVENT_VERSION + 1, "new": {"field": 1}}
    with pytest.raises(codec.UnknownVersion, match=f"version {event.EVENT_VERSION + 1}"):
        codec.decode_event(codec.pack(raw))
    for v in (0, -1, "2", True, 1.0, None):
        with pytest.raises(codec.DecodeError) as caught:
            codec.decode_event(codec.pack(raw | {"v": v}))
        assert not isinstance(caught.value, codec.UnknownVersion)


@given(st.integers(0, 1 << 57), st.binary(min_size=10, max_size=10), st.integers(1, 1 << 40))
def test_ids_are_uuid7_and_sort_by_time(time_us: int, random: bytes, later: int) -> None:
    first, second = event.uuid7(time_us, random), event.uuid7(time_us + later, random)
    assert event.Event(id=first, type="report", resource="x", name="", time=0, source="s", trace=first).id == first
    assert first <= second
    assert int(first.replace("-", "")[:12], 16) == time_us // 1000
