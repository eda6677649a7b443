"""Rules of definitions, asked of values."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube import cel_rules

SCHEMA: dict[str, Any] = {
    "type": "object",
    "x-kubernetes-validations": [{"rule": "self.low <= self.high", "message": "low is above high", "fieldPath": ".low"}],
    "properties": {
        "low": {"type": "integer"},
        "high": {"type": "integer"},
        "ratio": {"type": "number", "x-kubernetes-validations": [{"rule": "self > 0.5"}]},
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
        "a-b": {"type": "string"},
        "names": {
            "type": "array",
            "items": {"type": "string"},
            "x-kubernetes-validations": [
                {"rule": "self.all(x, self.exists_one(y, x == y))", "messageExpression": "'twice in ' + string(size(self))"}
            ],
        },
        "until": {"type": "string", "format": "date-time"},
    },
}


def said(value: dict[str, Any], old: Any = cel_rules.ABSENT, schema: dict[str, Any] = SCHEMA) -> list[str]:
    return [str(c) for c in cel_rules.check({"low": 1, "high": 2, **value}, schema, "spec", old)]


def test_messages_and_paths() -> None:
    assert said({}) == []
    assert said({"low": 3}) == ["spec.low: Invalid value: low is above high"]
    assert said({"ratio": 1}) == [] and said({"ratio": 0}) == ["spec.ratio: Invalid value: 0: failed rule: self > 0.5"]
    assert said({"names": ["a", "b"]}) == []
    assert said({"names": ["a", "a"]}) == ["spec.names: Invalid value: twice in 2"]


def test_what_may_not_change() -> None:
    assert said({"fixed": "a"}) == [] and said({"fixed": "a"}, {"fixed": "a"}) == []
    assert said({"fixed": "b"}, {"fixed": "a"}) == ['spec.fixed: Invalid value: "b": is immutable']
    assert said({"fixed": "b"}, {}) == []  # it was not there before


@pytest.mark.parametrize(
    ("rule", "value", "good"),
    [
        ("self.a__dash__b == 'x'", {"a-b": "x"}, True),
        ("!has(self.fixed)", {}, True),
        ("self.until < timestamp('2030-01-01T00:00:00Z')", {"until": "2026-01-01T00:00:00Z"}, True),
        ("self.fixed.matches('^a+$')", {"fixed": "aab"}, False),
        ("self.fixed.lowerAscii().split(',').size() == 2", {"fixed": "A,b"}, True),
        ("self.missing == 1", {}, False),
    ],
)
def test_language(rule: str, value: dict[str, Any], good: bool) -> None:
    schema = {**SCHEMA, "x-kubernetes-validations": [{"rule": rule}]}
    assert (said(value, schema=schema) == []) is good


def test_lists_with_keys_have_an_old_self() -> None:
    item = {"type": "object", "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}]}
    item["properties"] = {"k": {"type": "string"}, "v": {"type": "integer"}}
    schema = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    old = [{"k": "a", "v": 2}, {"k": "b", "v": 2}]
    assert not cel_rules.check([{"k": "b", "v": 2}, {"k": "c", "v": 0}], schema, "l", old)
    assert [c.field for c in cel_rules.check([{"k": "b", "v": 1}], schema, "l", old)] == ["l[0]"]


def test_a_rule_on_too_large_a_value_is_not_asked() -> None:
    rule = "self.all(a, self.all(b, self.all(c, a + b + c > 0)))"
    assert cel_rules.nesting(rule) == 3 and cel_rules.nesting("self.all(a, a) && self.all(b, b)") == 1
    schema = {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": rule}]}
    assert not cel_rules.check([1] * 10, schema)
    assert "cost limit exceeded" in str(cel_rules.check([1] * 1000, schema)[0])


@pytest.mark.parametrize("rule", ["self.", "", "1 +", "((", "self.all(x", 'x"'])
def test_what_is_no_rule_is_refused_with_the_definition(rule: str) -> None:
    assert cel_rules.problems([{"rule": rule}], "p") and not cel_rules.problems([{"rule": "self == 1"}], "p")
