"""Whether a value is valid by a structural schema, and what is said if it isn't.

The order of the checks, their wording and which fields they name follow the validator of custom resources (kube-openapi's
pkg/validation/validate, and apiextensions' pkg/apiserver/validation), because clients read them.  On an update it ratchets:
what is as it was stays valid, and elements of lists have an old self only in lists with keys (Kubernetes "Validation
ratcheting").
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from bus.kube import errors, formats
from bus.kube.errors import Cause

Node = dict[str, Any]
ABSENT: Any = object()
NOWHERE = "<nil>"  # how the real server names no field
PATTERN_CHARS_MAX = 1 << 16  # a pattern is tried on texts up to this length: backtracking is not linear
CAUSES_MAX = 4 * errors.CAUSES_SHOWN_MAX
INT64 = (-(1 << 63), (1 << 63) - 1)
_INT32 = (-(1 << 31), (1 << 31) - 1)
EXPONENT_MIN = 6  # from which on Go prints one
_SAFE = (1 << 53) - 1  # integers that a double holds exactly


@dataclass(slots=True)
class Verdict:
    """What is wrong, as (path, or None for no field; reason; message), and how many checks ran: of the branches of an anyOf
    the one with the most is blamed."""

    wrong: list[tuple[str | None, str, str]] = field(default_factory=list)
    count: int = 0

    def take(self, other: Verdict) -> None:
        self.wrong += other.wrong
        self.count += other.count

    def say(self, path: str | None, reason: str, message: str) -> None:
        self.wrong.append((path, reason, message))

    def invalid(self, path: str, value: Any, message: str) -> None:
        self.say(path, "FieldValueInvalid", f"Invalid value: {shown(value)}: {message}")


def validate(value: Any, node: Node, path: str, old: Any = ABSENT) -> list[Cause]:
    """Everything that is wrong, at most some hundred of it.  ``path`` is where the value is; ``old`` what was there."""
    out = []
    for where, reason, message in _check(value, node, "", old).wrong[:CAUSES_MAX]:
        named = (where or "").removeprefix(".")
        out.append(Cause(f"{path}.{named}" if path and named else named or path or NOWHERE, reason, message))
    return out


def shown(value: Any) -> str:
    """A value in a message, as Go prints it."""
    number = isinstance(value, int | float) and kind_of(value)[0] == "number"
    return go_float(float(value)) if number else errors.show(value)


def go_float(value: float) -> str:
    """As ``%v`` prints a double: the shortest digits that mean it, 1e+06 from a million on."""
    if not value:
        return "0"
    mantissa, exponent = format(Decimal(repr(value)), "e").split("e")
    head = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    power = int(exponent)
    if -4 <= power < EXPONENT_MIN:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return f"{head}e{'-' if power < 0 else '+'}{abs(power):02d}"


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """Raises re.error; a definition with such a pattern is refused, so stored ones compile."""
    return re.compile(pattern.replace(r"\z", r"\Z"))


def kind_of(value: Any) -> tuple[str, str]:
    """(type, format) that a value has by itself; whole numbers beyond 64 bits are doubles."""
    if isinstance(value, bool):
        return "boolean", ""
    if isinstance(value, int) and INT64[0] <= value <= INT64[1]:
        return "integer", "int64"
    if isinstance(value, int | float):
        return "number", "float64"
    if value is None:
        return "null", ""
    return "string" if isinstance(value, str) else "object" if isinstance(value, dict) else "array", ""


def types_of(node: Node) -> tuple[str, ...]:
    if node.get("x-kubernetes-int-or-string"):
        return "integer", "string"
    return (node["type"],) if node.get("type") else ()


def _check(value: Any, node: Node, path: str, old: Any) -> Verdict:
    out = _whole(value, node, path, old)
    if out.wrong and old is not ABSENT and same(value, old):
        out.wrong = []
    return out


def same(one: Any, other: Any) -> bool:
    """Equality that tells true from 1, at any depth."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(v, w) for v, w in zip(one, other, strict=True))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _whole(value: Any, node: Node, path: str, old: Any) -> Verdict:
    out, types, form = Verdict(), types_of(node), formats.known(node)
    if value is None:
        if types and not node.get("nullable"):
            _type_error(out, path, ",".join(types), "null")
        _enum(value, node, path, out)
        return out
    kind = kind_of(value)[0]
    parts = [_type(value, types, form, path)] if types or form else []
    parts.append(_junctors(value, node, path, old))
    if kind == "string":
        parts.append(_string(value, node, path))
        if (check := formats.check(form)) is not None:
            parts.append(_format(value, form, check, path))
    elif kind in ("integer", "number"):
        parts.append(_number(value, node, form, path))
    elif kind == "array":
        parts.append(_array(value, node, path, old))
    common = Verdict()
    _enum(value, node, path, common)
    parts.append(common)
    if kind == "object":
        parts.append(_object(value, node, path, old))
    for part in parts:
        out.take(part)
        out.count += 1
    out.count += 1
    return out


def _type_error(out: Verdict, path: str, wanted: str, got: str) -> None:
    message = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    out.say(path, "FieldValueTypeInvalid", message)


def _type(value: Any, types: tuple[str, ...], form: str, path: str) -> Verdict:
    out = Verdict()
    kind, own = kind_of(value)
    whole = kind == "number" and "integer" in types and float(value).is_integer() and abs(value) <= _SAFE
    good = kind in types or whole or (kind == "integer" and "number" in types)
    text = kind in ("string", "array")
    if not text and form and not (good or own == form):
        _type_error(out, path, form, own)
    elif text and form and not {"number", "integer"} & {*types}:
        out.count += 1
    elif not good:
        _type_error(out, path, ",".join(types), kind)
    else:
        out.count += 1
    return out


def _enum(value: Any, node: Node, path: str, out: Verdict) -> None:
    listed = node.get("enum")
    if listed and not any(_counts_as(value, one) for one in listed):
        texts = [one if isinstance(one, str) else errors.show(one) for one in listed]
        options = ", ".join(errors.show(t) for t in texts)
        out.say(path, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {options}")


def _counts_as(value: Any, one: Any) -> bool:
    """The real server compares a number as one of the kind that is listed: 1.5 counts as 1."""
    if kind_of(value)[0] == "number" and kind_of(one)[0] == "integer":
        return bool(int(value) == one)
    return same(value, one)


def _string(value: str, node: Node, path: str) -> Verdict:
    out, pattern = Verdict(), node.get("pattern")
    if len(value) > node.get("maxLength", 1 << 62):
        out.say(path, "FieldValueTooLong", f"Too long: may not be more than {node['maxLength']} bytes")
    elif len(value) < node.get("minLength", 0):
        out.invalid(path, value, f"{path} in body should be at least {node['minLength']} chars long")
    elif pattern and (len(value) > PATTERN_CHARS_MAX or not compiled(pattern).search(value)):
        out.invalid(path, value, f"{path} in body should match '{pattern}'")
    return out


def _format(value: str, form: str, check: formats.Check, path: str) -> Verdict:
    out = Verdict()
    if not check(value):
        message = f"{path} in body must be of type {form}: {errors.show(value)}"
        out.say(path, "FieldValueTypeInvalid", f"Invalid value: {errors.show(value)}: {message}")
    return out


def _number(value: float, node: Node, form: str, path: str) -> Verdict:
    out = Verdict(count=1)
    whole = node.get("type") == "integer"
    if whole:
        low, high = _INT32 if form == "int32" else INT64
        fits = float(value).is_integer() and low <= value <= high
        if not fits:
            named = f"with format {form}" if form else "(default format)"
            message = f"Checked value must be of type integer {named} in {path}"
            out.say(None, "FieldValueInvalid", f'Invalid value: "": {message}')
    step, low_at, high_at = node.get("multipleOf"), node.get("minimum"), node.get("maximum")
    if step is not None:
        _multiple(value, step, path, out)
    if low_at is not None and (value < low_at or (node.get("exclusiveMinimum") and value == low_at)):
        word = "greater than" if node.get("exclusiveMinimum") else "greater than or equal to"
        out.invalid(path, value, f"{path} in body should be {word} {_bound(low_at, value)}")
    if high_at is not None and (value > high_at or (node.get("exclusiveMaximum") and value == high_at)):
        word = "less than" if node.get("exclusiveMaximum") else "less than or equal to"
        out.invalid(path, value, f"{path} in body should be {word} {_bound(high_at, value)}")
    return out


def _multiple(value: float, step: float, path: str, out: Verdict) -> None:
    """A step is a number of the value's kind, too: half a step is none for whole numbers."""
    factor = int(step) if kind_of(value)[0] == "integer" else float(step)
    if factor <= 0:
        out.invalid(path, factor, f"factor MultipleOf declared for {path} must be positive: {shown(factor)}")
        return
    times = float(value) / factor
    if value % factor if isinstance(factor, int) else not times.is_integer() or abs(times) > _SAFE:
        out.invalid(path, value, f"{path} in body should be a multiple of {_bound(step, value)}")


def _bound(bound: float, value: float) -> str:
    """A bound is compared, and printed, as a number of the value's kind."""
    return str(int(bound)) if kind_of(value)[0] == "integer" else go_float(float(bound))


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"


def _array(value: list[Any], node: Node, path: str, old: Any) -> Verdict:
    out, items = Verdict(count=1), node.get("items")
    if isinstance(items, dict):
        before = elders(value, node, old)
        for i, item in enumerate(value):
            out.take(_check(item, items, f"{path}[{i}]", before[i]))
            if len(out.wrong) > CAUSES_MAX:
                break
    if len(value) < node.get("minItems", 0):
        out.invalid(path, len(value), f"{path} in body should have at least {node['minItems']} items")
    if len(value) > node.get("maxItems", 1 << 62):
        out.say(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {_items(node['maxItems'])}")
    return out


def elders(value: list[Any], node: Node, old: Any) -> list[Any]:
    """What each element was before, ABSENT where there is no telling."""
    keys = node.get("x-kubernetes-list-map-keys") if node.get("x-kubernetes-list-type") == "map" else None
    if not keys or not isinstance(old, list):
        return [ABSENT] * len(value)
    known = {identity(o, keys): o for o in reversed(old)}
    return [known.get(identity(item, keys), ABSENT) for item in value]


def identity(item: Any, keys: list[str]) -> str:
    return json.dumps([item.get(k) for k in keys] if isinstance(item, dict) else item, sort_keys=True)


def _object(value: dict[str, Any], node: Node, path: str, old: Any) -> Verdict:
    out = Verdict()
    if len(value) < node.get("minProperties", 0):
        message = f"{path} in body should have at least {node['minProperties']} properties"
        out.invalid(path, len(value), message)
    if len(value) > node.get("maxProperties", 1 << 62):
        out.say(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {_items(node['maxProperties'])}")
    fields, more = node.get("properties") or {}, node.get("additionalProperties")
    before = old if isinstance(old, dict) else {}
    if isinstance(more, dict):
        for name, item in value.items():
            if name not in fields:
                out.take(_check(item, more, f"{path}.{name}", before.get(name, ABSENT)))
                if len(out.wrong) > CAUSES_MAX:
                    return out
    for name, inner in fields.items():
        if name in value:
            out.take(_check(value[name], inner, f"{path}.{name}" if path else name, before.get(name, ABSENT)))
    for name in node.get("required") or ():
        if name not in value:
            out.say(f"{path}.{name}", "FieldValueRequired", "Required value")
    return out


def _junctors(value: Any, node: Node, path: str, old: Any) -> Verdict:
    out, quoted = Verdict(count=1), errors.show(path)
    if node.get("anyOf"):
        found = [_check(value, sub, path, old) for sub in node["anyOf"]]
        if good := next((one for one in found if not one.wrong), None):
            out.take(good)
        else:
            _nowhere(out, f"{quoted} must validate at least one schema (anyOf)")
            out.take(_closest(found))
    if node.get("oneOf"):
        found = [_check(value, sub, path, old) for sub in node["oneOf"]]
        fit = [one for one in found if not one.wrong]
        if len(fit) == 1:
            out.take(fit[0])
        else:
            how = f"Found {len(fit)} valid alternatives" if fit else "Found none valid"
            _nowhere(out, f"{quoted} must validate one and only one schema (oneOf). {how}")
            if not fit:
                out.take(_closest(found))
    if node.get("allOf"):
        found = [_check(value, sub, path, old) for sub in node["allOf"]]
        for one in found:
            out.take(one)
        if any(one.wrong for one in found):
            none = "" if any(not one.wrong for one in found) else ". None validated"
            _nowhere(out, f"{quoted} must validate all the schemas (allOf){none}")
    if "not" in node and not _check(value, node["not"], path, old).wrong:
        _nowhere(out, f"{quoted} must not validate the schema (not)")
    return out


def _closest(found: list[Verdict]) -> Verdict:
    """The branch that went furthest, the first of several."""
    return max(found, key=lambda one: one.count)


def _nowhere(out: Verdict, message: str) -> None:
    out.say(None, "FieldValueInvalid", f'Invalid value: "": {message}')
