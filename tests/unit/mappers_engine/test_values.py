"""Conversion, ranges, deadbands, schedules, backoff and lists: the pure parts of the engine."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers import plan
from mappers.driver import BadValue, ConfigError, Reading
from mappers.schedule import Backoff, Schedule
from mappers.values import Measured, convert, measure, moved, parse_desired, same
from mappers.virtual.driver import VirtualDriver
from schemas.devices import CYCLE_MS_DEFAULT, DeviceConfig, Property, cycle_ms


def prop(kind: str, **more: Any) -> Property:
    return Property(**{"name": "p", "type": kind, "writable": True, **more})


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("INT", 5, 5),
        ("INT", 5.4, 5),
        ("INT", True, 1),
        ("INT", "-7", -7),
        ("INT", "7.0", 7),
        ("DOUBLE", 5, 5.0),
        ("FLOAT", "1e3", 1000.0),
        ("BOOLEAN", 1, True),
        ("BOOLEAN", 0.0, False),
        ("BOOLEAN", "Off", False),
        ("STRING", 5, "5"),
        ("STRING", True, "true"),
        ("STRING", b"abc\0\0", "abc"),
        ("BYTES", [1, 2, 255], b"\x01\x02\xff"),
        ("BYTES", "ä", b"\xc3\xa4"),
    ],
)
def test_raw_values_become_the_models_type(kind: str, raw: Any, value: Any) -> None:
    found = convert(raw, prop(kind))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("INT", "five"),
        ("INT", "7.5"),
        ("INT", 1 << 63),
        ("INT", 1e30),
        ("INT", "9" * 5000),
        ("DOUBLE", math.nan),
        ("DOUBLE", math.inf),
        ("DOUBLE", "x" * 1000),
        ("DOUBLE", [1]),
        ("BOOLEAN", 2),
        ("BOOLEAN", "perhaps"),
        ("STRING", b"\xff\xfe"),
        ("STRING", "x" * 5000),
        ("BYTES", [256]),
        ("BYTES", 3.5),
        ("STREAM", b""),
    ],
)
def test_what_can_not_be_converted_is_bad_with_a_reason(kind: str, raw: Any) -> None:
    with pytest.raises(BadValue):
        convert(raw, prop(kind))
    measured = measure(Reading(raw), prop(kind))
    assert (measured.value, measured.quality) == (None, "bad") and 0 < len(measured.reason) < 200


@given(
    kind=st.sampled_from(["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"]),
    raw=st.one_of(st.integers(), st.floats(), st.text(), st.binary(), st.booleans(), st.lists(st.integers())),
)
def test_any_reading_at_all_is_measured(kind: str, raw: Any) -> None:
    measured = measure(Reading(raw), prop(kind, minimum="-10", maximum="10"))
    assert (measured.value is None) == (measured.quality == "bad")
    assert bool(measured.reason) == (measured.quality != "good")


def test_ranges_make_a_value_uncertain_and_keep_it() -> None:
    ranged = prop("DOUBLE", minimum="0", maximum="80", unit="C")
    assert measure(Reading(80.0), ranged) == Measured(80.0)
    assert measure(Reading(-1), ranged) == Measured(-1.0, "uncertain", "-1 C is below the minimum of 0 C")
    assert measure(Reading(5.0, "uncertain", "warming up"), ranged) == Measured(5.0, "uncertain", "warming up")
    assert measure(Reading(5.0, "bad"), ranged).value is None
    with pytest.raises(BadValue, match="above the maximum"):
        parse_desired("81", ranged)


def test_deadbands() -> None:
    assert moved(None, Measured(1.0), 0)
    assert moved(Measured(1.0), Measured(1.1), 0) and not moved(Measured(1.0), Measured(1.1), 0.2)
    assert not moved(Measured(1.0), Measured(1.0), 0)
    assert moved(Measured(1.0), Measured(1.0, "uncertain", "x"), 5)
    assert moved(Measured(None, "bad", "x"), Measured(None, "bad", "y"), 5)
    assert moved(Measured("a"), Measured("b"), 5)
    assert moved(Measured(1), Measured(True), 0)


def test_same_is_as_exact_as_a_float32() -> None:
    assert same(0.1, 0.10000000149011612) and not same(0.1, 0.1001)
    assert same(3, 3.0) and not same(1, True) and same("a", "a") and not same(None, 1.0)


# --- schedules and backoff -------------------------------------------------------------------------------------------


@given(
    cycles=st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
    steps=st.lists(st.floats(0.0, 30.0), min_size=1, max_size=30),
)
def test_a_schedule_never_gives_a_slot_twice_and_always_moves_on(cycles: list[int], steps: list[float]) -> None:
    schedule = Schedule({str(i): ms for i, ms in enumerate(cycles)}, 1000.0)
    now = 1000.0
    for step in steps:
        due = schedule.due(now)
        schedule.done(due, now)
        assert not schedule.due(now) and schedule.next_at() > now
        assert schedule.next_at() - now <= min(cycles) / 1000 + 1e-6
        now += step


def test_an_empty_schedule_is_never_due() -> None:
    assert Schedule({}, 0.0).next_at() == math.inf


def test_backoff_is_capped_jittered_and_never_overflows() -> None:
    backoff = Backoff(1.0, 60.0, random=lambda: 0.0)
    assert [backoff.next_s() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    backoff.failures = 10**6
    assert backoff.next_s() == 30.0
    backoff.reset()
    assert backoff.next_s() == 0.5


@pytest.mark.parametrize(
    ("written", "ms", "word"),
    [
        (None, CYCLE_MS_DEFAULT, ""),
        (0, CYCLE_MS_DEFAULT, ""),
        (2000, 2000, ""),
        (9_999_999, 9_999_999, ""),
        (10_000_000, 10, "10 ms"),
        (10_000_000_000, 10_000, "10 s"),
        (3_600_000_000_000, 3_600_000, "1 h"),
        (90_000_000_000, 90_000, "90 s"),
        (120_000_000_000, 120_000, "2 min"),
        (1, 10, "10 ms"),
        (-5, CYCLE_MS_DEFAULT, "negative"),
    ],
)
def test_cycles_are_milliseconds_unless_nobody_can_mean_it(written: int | None, ms: int, word: str) -> None:
    found, warning = cycle_ms(written, "collectCycle")
    assert found == ms and bool(warning) == bool(word) and word in warning


# --- plans and lists -------------------------------------------------------------------------------------------------


def config(name: str = "one", uid: str = "u", **more: Any) -> DeviceConfig:
    fields: dict[str, Any] = {"namespace": "ns", "name": name, "uid": uid, "model": "m", "protocol": "virtual", "rev": 1}
    return DeviceConfig(**{**fields, "properties": [], **more})


def test_a_bad_property_costs_itself_and_is_named() -> None:
    good, bad = prop("DOUBLE", visitor={"value": 1}), prop("DOUBLE", visitor={"vlaue": 1}).model_copy(update={"name": "q"})
    banded = prop("DOUBLE", visitor={"deadband": -1}).model_copy(update={"name": "r"})
    ranged = prop("DOUBLE", minimum="low").model_copy(update={"name": "s"})
    made = plan.make(config(properties=[good, bad, banded, ranged]), VirtualDriver())
    assert list(made.points) == ["p"]
    assert made.refused["q"] == "device ns/one, property q: visitors.configData.vlaue: Extra inputs are not permitted"
    assert made.refused["r"].startswith("device ns/one, property r: visitors.configData.deadband")
    assert made.refused["s"] == "device ns/one, property s: the model's minimum 'low' is not a number"


def test_a_bad_device_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^device ns/one: configData\.connect\.refuse: "):
        plan.make(config(config={"connect": {"refuse": "often"}}), VirtualDriver())


def test_differences_of_lists() -> None:
    before = {("ns", n): config(n) for n in ("same", "told", "anew", "gone")}
    now = [config("same"), config("told", rev=2), config("anew", uid="v"), config("new")]
    found = plan.difference(before, now)
    assert [c.name for c in found.again] == ["anew", "new"]
    assert [c.name for c in found.changed] == ["told"]
    assert found.gone == [("ns", "gone")]
