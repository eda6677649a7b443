"""Structural schemas of custom resources: prune, default, validate.

Source: Kubernetes "Extend the Kubernetes API with CustomResourceDefinitions" (structural schemas, pruning, defaulting).
CEL rules (``x-kubernetes-validations``) are asked afterwards: cel_rules.py.
"""

from __future__ import annotations

import base64
import binascii
import copy
import functools
import ipaddress
import json
import re
from typing import Any

from bus.kube import errors, times
from bus.kube.errors import Cause

Node = dict[str, Any]
PATTERN_CHARS_MAX = 1 << 16  # a pattern is tried on texts up to this length: backtracking is not linear


def prune(value: Any, node: Node, path: str = "", dropped: list[str] | None = None) -> None:
    """Remove what the schema doesn't specify, in place; paths of what went are added to ``dropped``."""
    if isinstance(value, dict):
        if node.get("x-kubernetes-embedded-resource"):
            node = {**node, "properties": {"apiVersion": {}, "kind": {}, "metadata": _ANY, **node.get("properties", {})}}
        fields = node.get("properties", {})
        more = node.get("additionalProperties")
        keep = node.get("x-kubernetes-preserve-unknown-fields") or more is True
        for name in list(value):
            at = f"{path}.{name}" if path else name
            if name in fields:
                prune(value[name], fields[name], at, dropped)
            elif isinstance(more, dict):
                prune(value[name], more, at, dropped)
            elif not keep:
                del value[name]
                if dropped is not None:
                    dropped.append(at)
    elif isinstance(value, list):
        items = node.get("items")
        if isinstance(items, dict):
            for i, item in enumerate(value):
                prune(item, items, f"{path}[{i}]", dropped)


_ANY: Node = {"x-kubernetes-preserve-unknown-fields": True}


def default(value: Any, node: Node) -> None:
    """Fill in defaults in place; a null where null is not allowed counts as absent."""
    if isinstance(value, dict):
        fields = node.get("properties", {})
        for name, field in fields.items():
            if name in value and value[name] is None and not field.get("nullable"):
                del value[name]
            if name not in value and "default" in field:
                value[name] = copy.deepcopy(field["default"])
            if name in value:
                default(value[name], field)
        more = node.get("additionalProperties")
        if isinstance(more, dict):
            for name, item in list(value.items()):
                if name not in fields:
                    if item is None and not more.get("nullable"):
                        del value[name]
                    default(item, more)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for item in value:
            default(item, node["items"])


def has_defaults(node: Any) -> bool:
    if isinstance(node, dict):
        return "default" in node or any(has_defaults(v) for v in node.values())
    return isinstance(node, list) and any(has_defaults(v) for v in node)


def validate(value: Any, node: Node, path: str) -> list[Cause]:
    """Everything that is wrong, at most some hundred of it."""
    out: list[Cause] = []
    _check(value, node, path, out)
    return out


def _check(value: Any, node: Node, path: str, out: list[Cause]) -> None:
    if len(out) >= 4 * errors.CAUSES_SHOWN_MAX:
        return
    if value is None:
        if not node.get("nullable") and ("type" in node or node.get("x-kubernetes-int-or-string")):
            out.append(_type_error(value, node.get("type", "integer,string"), path))
        return
    if not _has_type(value, node):
        wanted = "integer,string" if node.get("x-kubernetes-int-or-string") else node["type"]
        out.append(_type_error(value, wanted, path))
        return
    if "enum" in node and value not in node["enum"]:
        out.append(errors.not_supported(path, value, node["enum"]))
    if isinstance(value, str):
        _check_string(value, node, path, out)
    elif isinstance(value, dict):
        _check_object(value, node, path, out)
    elif isinstance(value, list):
        _check_array(value, node, path, out)
    elif not isinstance(value, bool):
        _check_number(value, node, path, out)
    _check_junctors(value, node, path, out)


def _type_error(value: Any, wanted: str, path: str) -> Cause:
    got = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}.get(
        type(value), "null"
    )
    return Cause(path, "FieldValueTypeInvalid", f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"')


def _has_type(value: Any, node: Node) -> bool:
    if node.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    wanted = node.get("type")
    if wanted is None:
        return True
    if wanted == "integer":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    python = {"object": dict, "array": list, "string": str, "boolean": bool}.get(wanted)
    return python is not None and isinstance(value, python)


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """Raises re.error; a definition with such a pattern is refused, so stored ones compile."""
    return re.compile(pattern.replace(r"\z", r"\Z"))


def _check_string(value: str, node: Node, path: str, out: list[Cause]) -> None:
    if len(value) > node.get("maxLength", 1 << 62):
        out.append(Cause(path, "FieldValueTooLong", f"Too long: may not be more than {node['maxLength']} bytes"))
    if len(value) < node.get("minLength", 0):
        out.append(errors.bad_value(path, value, f"{path} in body should be at least {node['minLength']} chars long"))
    pattern = node.get("pattern")
    if pattern and (len(value) > PATTERN_CHARS_MAX or not compiled(pattern).search(value)):
        out.append(errors.bad_value(path, value, f"{path} in body should match '{pattern}'"))
    form = node.get("format")
    if form in _FORMATS and not _FORMATS[form](value):
        out.append(errors.bad_value(path, value, f"{path} in body must be of type {form}: {errors.show(value)}"))


def _try(read: Any) -> Any:
    def good(text: str) -> bool:
        try:
            read(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return good


_FORMATS = {
    "date-time": _try(times.parse),
    "date": _try(lambda t: times.parse(t + "T00:00:00Z")),
    "byte": _try(lambda t: base64.b64decode(t, validate=True)),
    "ipv4": _try(ipaddress.IPv4Address),
    "ipv6": _try(ipaddress.IPv6Address),
    "cidr": _try(ipaddress.ip_network),
    "uuid": lambda t: bool(re.match(r"(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\Z", t)),
    "mac": lambda t: bool(re.match(r"(?i)([0-9a-f]{2}[:-]){5}[0-9a-f]{2}\Z", t)),
}
_RANGES = {"int32": (-(1 << 31), (1 << 31) - 1), "int64": (-(1 << 63), (1 << 63) - 1)}


def _check_number(value: float, node: Node, path: str, out: list[Cause]) -> None:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and (value < low or (node.get("exclusiveMinimum") and value == low)):
        word = "greater than" if node.get("exclusiveMinimum") else "greater than or equal to"
        out.append(errors.bad_value(path, value, f"{path} in body should be {word} {low}"))
    if high is not None and (value > high or (node.get("exclusiveMaximum") and value == high)):
        word = "less than" if node.get("exclusiveMaximum") else "less than or equal to"
        out.append(errors.bad_value(path, value, f"{path} in body should be {word} {high}"))
    step = node.get("multipleOf")
    if step and value % step:
        out.append(errors.bad_value(path, value, f"{path} in body should be a multiple of {step}"))
    limits = _RANGES.get(node.get("format", ""))
    if limits and not limits[0] <= value <= limits[1]:
        out.append(errors.bad_value(path, value, f"{path} in body must be of type {node['format']}"))


def _check_embedded(value: dict[str, Any], path: str, out: list[Cause]) -> None:
    for name in ("apiVersion", "kind"):
        if not isinstance(value.get(name), str) or not value[name]:
            out.append(errors.required(f"{path}.{name}", "must not be empty"))
    if "metadata" in value and not isinstance(value["metadata"], dict):
        out.append(_type_error(value["metadata"], "object", f"{path}.metadata"))


def _check_object(value: dict[str, Any], node: Node, path: str, out: list[Cause]) -> None:
    if node.get("x-kubernetes-embedded-resource"):
        _check_embedded(value, path, out)
    for name in node.get("required", ()):
        if name not in value:
            out.append(errors.required(f"{path}.{name}" if path else name))
    if len(value) > node.get("maxProperties", 1 << 62):
        out.append(errors.bad_value(path, len(value), f"must have at most {node['maxProperties']} properties"))
    if len(value) < node.get("minProperties", 0):
        out.append(
            errors.bad_value(path, len(value), f"{path} in body should have at least {node['minProperties']} properties")
        )
    fields, more = node.get("properties", {}), node.get("additionalProperties")
    for name, item in value.items():
        at = f"{path}.{name}" if path else name
        if name in fields:
            _check(item, fields[name], at, out)
        elif isinstance(more, dict):
            _check(item, more, at, out)


def _check_array(value: list[Any], node: Node, path: str, out: list[Cause]) -> None:
    if len(value) > node.get("maxItems", 1 << 62):
        out.append(Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {node['maxItems']} items"))
    if len(value) < node.get("minItems", 0):
        out.append(errors.bad_value(path, len(value), f"{path} in body should have at least {node['minItems']} items"))
    listing = node.get("x-kubernetes-list-type")
    if listing == "set" or node.get("uniqueItems"):
        _unique(value, lambda item: item, path, out)
    elif listing == "map":
        keys = node.get("x-kubernetes-list-map-keys", [])
        _unique(value, lambda item: {k: item.get(k) for k in keys} if isinstance(item, dict) else item, path, out)
    items = node.get("items")
    if isinstance(items, dict):
        for i, item in enumerate(value):
            _check(item, items, f"{path}[{i}]", out)


def _unique(value: list[Any], identity: Any, path: str, out: list[Cause]) -> None:
    seen = set()
    for i, item in enumerate(value):
        key = json.dumps(identity(item), sort_keys=True)
        if key in seen:
            out.append(errors.duplicate(f"{path}[{i}]", identity(item)))
        seen.add(key)


def _check_junctors(value: Any, node: Node, path: str, out: list[Cause]) -> None:
    for sub in node.get("allOf", ()):
        _check(value, sub, path, out)
    if "anyOf" in node and all(validate(value, sub, path) for sub in node["anyOf"]):
        out.append(errors.bad_value(path, "", f"{path} in body must validate at least one schema (anyOf)"))
    if "oneOf" in node and sum(not validate(value, sub, path) for sub in node["oneOf"]) != 1:
        out.append(errors.bad_value(path, "", f"{path} in body must validate one and only one schema (oneOf)"))
    if "not" in node and not validate(value, node["not"], path):
        out.append(errors.bad_value(path, "", f"{path} in body must not validate the schema (not)"))
