"""Canonical forms."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube import quantity, times


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        (0.5, "500m"),
        (2, "2"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1k"),
        ("0", "0"),
        ("100Ki", "100Ki"),
        ("0.5Ki", "512"),
        ("1e3", "1e3"),
        ("1E", "1E"),
        ("-1", "-1"),
        ("1.0000000001", "1000000001n"),
        ("12345", "12345"),
    ],
)
def test_canonical(text: str | float, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "1 Gi", "Gi", "1gi", "1.2.3", "--1", "0x1", "1e", "１", "1e999", "1" * 50, "NaN", "inf"]
)
def test_no_quantity(text: str) -> None:
    with pytest.raises(quantity.QuantityError):
        quantity.canonical(text)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi", "e3"]))
def test_canonical_keeps_the_value_and_is_stable(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    got = quantity.canonical(text)
    assert quantity.parse(got) == quantity.parse(text)
    assert quantity.canonical(got) == got


@given(st.fractions(0, 1000, max_denominator=10**6))
def test_fractions_round_up_at_a_nano(value: Fraction) -> None:
    text = f"{float(value):.12f}"
    got = quantity.parse(quantity.canonical(text))
    assert 0 <= got - quantity.parse(text) < Fraction(1, 10**9)


def test_times() -> None:
    assert times.plain("2026-01-02T03:04:05.9+01:00") == "2026-01-02T02:04:05Z"
    assert times.micro("2026-01-02T03:04:05.1234567Z") == "2026-01-02T03:04:05.123456Z"
    assert times.of_micros(times.micros("2026-01-02T03:04:05Z")) == "2026-01-02T03:04:05Z"
    for bad in (
        "",
        "2026-01-02",
        "2026-13-02T03:04:05Z",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "٢026-01-02T03:04:05Z",
    ):
        with pytest.raises(ValueError):
            times.parse(bad)
