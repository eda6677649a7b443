"""CEL rules of custom resources (``x-kubernetes-validations``): compiled when a definition is stored, asked at every write.

A rule sees ``self`` as its schema types it, and ``oldSelf`` on an update; a rule of ``oldSelf`` is skipped when there is
none.  Elements of lists have an old self only in lists with keys.  kube-apiserver bounds a rule by an estimate of its cost;
here the bound is the size of the value to the power of how deep the rule's macros are nested.
Source: Kubernetes "Extend the Kubernetes API with CustomResourceDefinitions", "Validation rules".
"""

from __future__ import annotations

import base64
import datetime
import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bus.kube import cel_library, cel_words, errors, times
from bus.kube.errors import Cause
from bus.kube.validity import ABSENT, NOWHERE, elders, same, shown

if TYPE_CHECKING:
    from cel import Program

Node = dict[str, Any]

RULE_CHARS_MAX = 5 << 10
STEPS_MAX = 1_000_000  # of one rule on one value: about a second at the worst
_MACRO = re.compile(r"\.(all|exists|exists_one|map|filter)\s*\Z")
_REASONS = {
    "FieldValueForbidden": "Forbidden: ",
    "FieldValueRequired": "Required value: ",
}


class RuleError(ValueError):
    """A rule that is none."""


@functools.lru_cache(maxsize=1024)
def compiled(rule: str) -> Program:
    """Raises RuleError."""
    import cel  # only who has rules pays for it

    if not rule.strip() or len(rule) > RULE_CHARS_MAX:
        raise RuleError(f"a rule has 1 to {RULE_CHARS_MAX} characters")
    try:
        return cel.compile(rule)
    except Exception as e:  # the library has no error of its own for a text that is no expression
        raise RuleError(f"compilation failed: {str(e)[:300]}") from e


@functools.lru_cache(maxsize=1024)
def nesting(rule: str) -> int:
    """How many macros are inside each other at most."""
    open_now: list[bool] = []
    deepest = 0
    for i, letter in enumerate(rule):
        if letter == "(":
            open_now.append(_MACRO.search(rule, 0, i) is not None)
            deepest = max(deepest, sum(open_now))
        elif letter == ")" and open_now:
            open_now.pop()
    return deepest


def problems(rules: Any, path: str) -> list[Cause]:
    """What is wrong with the rules of one node of a schema."""
    if not isinstance(rules, list):
        return [errors.bad_value(path, rules, "must be a list of rules")]
    out = []
    for i, rule in enumerate(rules):
        at = f"{path}[{i}].rule"
        if not isinstance(rule, dict) or not isinstance(rule.get("rule"), str) or not rule["rule"].strip():
            out.append(errors.required(at, "rule is not specified"))
            continue
        for field in ("rule", "messageExpression"):
            try:
                if rule.get(field):
                    compiled(str(rule[field]))
            except RuleError as e:
                out.append(errors.bad_value(f"{path}[{i}].{field}", rule[field], str(e)))
    return out


def check(value: Any, node: Node, path: str = "", old: Any = ABSENT) -> list[Cause]:
    """Every rule that ``value`` breaks; it is valid by its schema otherwise.  ``old``: the value before an update.  What is
    as it was breaks no rule but those that compare."""
    out: list[Cause] = []
    if has_rules(node):
        _walk(value, node, path, old, old is not ABSENT and same(value, old), out)
    return out


def has_rules(node: Any) -> bool:
    if isinstance(node, dict):
        return "x-kubernetes-validations" in node or any(has_rules(v) for v in node.values())
    return isinstance(node, list) and any(has_rules(v) for v in node)


def _walk(value: Any, node: Node, path: str, old: Any, kept: bool, out: list[Cause]) -> None:
    """``kept``: the value, or what it is in when there is no telling, is as it was."""
    if len(out) >= errors.CAUSES_SHOWN_MAX or value is None:
        return
    for rule in node.get("x-kubernetes-validations") or ():
        cause = _ask(rule, value, node, path, old)
        if cause is not None and not (kept and "oldSelf" not in compiled(rule["rule"]).variables()):
            out.append(cause)
    for branch in node.get("allOf") or ():
        _walk(value, branch, path, old, kept, out)
    if isinstance(value, dict):
        fields, more = node.get("properties", {}), node.get("additionalProperties")
        for name, item in value.items():
            inner = fields.get(name, more)
            if isinstance(inner, dict):
                before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
                at = (f"{path}.{name}" if path else name) if name in fields else f"{path}[{name}]"
                _walk(item, inner, at, before, kept if before is ABSENT else same(item, before), out)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for i, (item, before) in enumerate(zip(value, elders(value, node, old), strict=True)):
            _walk(item, node["items"], f"{path}[{i}]", before, kept if before is ABSENT else same(item, before), out)


def _ask(rule: Node, value: Any, node: Node, path: str, old: Any) -> Cause | None:
    text = rule["rule"]
    compared = "oldSelf" in compiled(text).variables()
    if compared and old is ABSENT and not rule.get("optionalOldSelf"):
        return None
    if size(value) ** nesting(text) > STEPS_MAX:
        return errors.bad_value(path, node.get("type", ""), "call cost limit exceeded: the value is too large for this rule")
    try:
        variables: dict[str, Any] = {"self": _typed(value, node)}
        if rule.get("optionalOldSelf"):
            variables["oldSelf"] = _maybe(old, node)
        elif compared and old is not ABSENT:
            variables["oldSelf"] = _typed(old, node)
        if _run(text, variables) is True:
            return None
        said = f"failed rule: {text}"
        if rule.get("message"):
            said = rule["message"].strip()
        if rule.get("messageExpression"):
            said = _composed(rule["messageExpression"], variables) or said
    except Exception as e:  # whatever a rule may raise on a value is that value's fault
        return errors.bad_value(
            path or NOWHERE, node.get("type", ""), f"{_said(e)} evaluating rule: {rule.get('message') or text}"
        )
    at = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").lstrip(".")
    reason, of = rule.get("reason") or "FieldValueInvalid", "" if isinstance(value, dict | list) else f": {shown(value)}"
    if reason == "FieldValueDuplicate":
        return Cause(at or NOWHERE, reason, f"Duplicate value{of}")
    if reason in _REASONS:
        return Cause(at or NOWHERE, reason, _REASONS[reason] + said)
    return Cause(at or NOWHERE, reason, f"Invalid value{of}: {said}")


def _maybe(old: Any, node: Node) -> Any:
    from cel import OptionalValue

    return OptionalValue.none() if old is ABSENT else OptionalValue.of(_typed(old, node))


def _composed(text: str, variables: dict[str, Any]) -> str:
    """What a messageExpression makes; empty for what is no message: the rule's other words are said then."""
    try:
        made = _run(text, variables)
    except Exception:  # as above
        return ""
    said = made.strip() if isinstance(made, str) else ""
    return "" if "\n" in said or len(said) > RULE_CHARS_MAX else said


def _run(text: str, variables: dict[str, Any]) -> Any:
    return compiled(text).execute(cel_library.context(variables))


def _said(e: Exception) -> str:
    """What a rule raised, as the real server's evaluator says it."""
    if isinstance(e, KeyError):
        return f"no such key: {str(e.args[0] if e.args else '').strip(chr(39))}"
    if isinstance(e, ZeroDivisionError):
        return "division by zero"
    if isinstance(e, TypeError):
        return "no such overload"
    return str(e)[:300]


def size(value: Any) -> int:
    """How many steps a macro takes at most."""
    if isinstance(value, dict):
        return 1 + sum(size(v) for v in value.values())
    return 1 + sum(size(v) for v in value) if isinstance(value, list) else 1


def _typed(value: Any, node: Node) -> Any:
    """As rules see it: numbers are doubles, times are timestamps, fields have names that CEL can spell."""
    if isinstance(value, dict):
        fields, more = node.get("properties", {}), node.get("additionalProperties")
        inner = more if isinstance(more, dict) else {}
        return {_spelt(k) if k in fields else k: _typed(v, fields.get(k, inner)) for k, v in value.items()}
    if isinstance(value, list):
        items = node.get("items")
        return [_typed(v, items if isinstance(items, dict) else {}) for v in value]
    if node.get("type") == "number" and not isinstance(value, bool) and isinstance(value, int):
        return float(value)
    if isinstance(value, str) and node.get("format") in _READ:
        return _READ[node["format"]](value)
    return value


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")


def _duration(text: str) -> datetime.timedelta:
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return datetime.timedelta(seconds=-seconds if text.startswith("-") else seconds)


_READ: dict[str, Callable[[str], Any]] = {
    "date-time": times.parse,
    "date": lambda text: times.parse(text + "T00:00:00Z"),
    "duration": _duration,
    "byte": lambda text: base64.b64decode(text),
}


@functools.lru_cache(maxsize=4096)
def _spelt(name: str) -> str:
    if name in cel_words.RESERVED:
        return f"__{name}__"
    name = name.replace("__", "__underscores__")
    return name.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
