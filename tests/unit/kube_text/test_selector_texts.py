"""Selectors: what they match, and what is none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube import selectors

LABELS = {"app": "web", "tier": "1", "example.com/x": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=1", True),
        ("app!=web", False),
        ("other!=x", True),
        ("app in (web, db)", True),
        ("app notin (web)", False),
        ("other notin (web)", True),
        ("app", True),
        ("!app", False),
        ("! other", True),
        ("example.com/x=", True),
        ("example.com/x in (,a)", True),
        ("tier>0", True),
        ("tier<1", False),
        ("app>0", False),
        ("in in (in)", False),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    assert selectors.parse_labels(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "==bad",
        "a=b=c",
        "a in",
        "a in (",
        "a in (b",
        "a in b)",
        ",",
        "a,",
        "a,,b",
        "(a)",
        "a>b",
        "a b",
        "-a=b",
        "a=/",
        "!a=b",
    ],
)
def test_bad_label_selectors(text: str) -> None:
    with pytest.raises(selectors.SelectorError):
        selectors.parse_labels(text)


@given(st.text(alphabet="ab!=<>,() /.-in", max_size=24))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    with contextlib.suppress(selectors.SelectorError):
        selectors.parse_labels(text).matches(LABELS)


def test_too_long_is_refused() -> None:
    with pytest.raises(selectors.SelectorError):
        selectors.parse_labels("a," * 5000 + "a")


def test_field_selectors() -> None:
    obj = {"metadata": {"name": "x"}, "spec": {"nodeName": "n", "flag": True}}
    allowed = {"metadata.name", "spec.nodeName", "spec.flag", "spec.none"}
    for text, matches in (
        ("metadata.name=x", True),
        ("metadata.name==x,spec.nodeName!=m", True),
        ("spec.nodeName!=n", False),
        ("spec.flag=true", True),
        ("spec.none=", True),
        ("", True),
    ):
        assert selectors.parse_fields(text, allowed).matches(obj) is matches
    for text in ("data.a=1", "metadata.name", "=x", "metadata.name<x"):
        with pytest.raises(selectors.SelectorError):
            selectors.parse_fields(text, allowed)
    assert selectors.parse_fields("metadata.name=a\\,b", allowed).exact("metadata.name") == "a,b"


def test_selectors_of_specs() -> None:
    of = selectors.of_label_selector
    assert of({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}).matches(LABELS)
    assert not of({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}).matches(LABELS)
    for bad in (
        {"key": "a", "operator": "Like"},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
    ):
        with pytest.raises(selectors.SelectorError):
            of({"matchExpressions": [bad]})
