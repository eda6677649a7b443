"""Objects of built-in kinds: reading them the way the real server's decoder does.

The real server decodes JSON into Go structs.  What follows from that, and what clients notice: a wrong type is a 400 (not a
422), an unknown field is dropped (and said, when ``fieldValidation`` asks), null and empty lists and maps vanish, quantities
and times come back in canonical form.  The types are data (``data/builtin.json``, made by ``ops/kube_data.py``).
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from importlib import resources
from typing import Any

from bus.kube import quantity, times

Node = dict[str, Any]

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
INT_MAX = (1 << 63) - 1


class DecodeError(ValueError):
    """A value of the wrong type, with its path."""


class Types:
    """The type definitions, loaded once, when first needed."""

    def __init__(self, definitions: dict[str, Node], kinds: dict[str, str]) -> None:
        self.definitions = definitions
        self.kinds = kinds

    def of_kind(self, group: str, version: str, kind: str) -> Node | None:
        name = self.kinds.get(f"{group}/{version}/{kind}")
        return self.definitions[name] if name else None

    def resolve(self, node: Node) -> Node:
        """The node itself, or what it refers to (with the node's own merge rules on top)."""
        ref = node.get("$ref")
        if ref is None:
            return node
        own = {k: v for k, v in node.items() if k != "$ref"}
        target = self.definitions[ref]
        return {**target, **own} if own else target


@functools.cache
def types() -> Types:
    raw = json.loads(resources.files("bus.kube").joinpath("data/builtin.json").read_text())
    return Types(raw["definitions"], raw["kinds"])


def decode(value: Any, node: Node, path: str = "", unknown: list[str] | None = None) -> Any:
    """``value`` as its type has it, a new one; unknown fields are dropped and their paths added to ``unknown``.

    Raises DecodeError for a wrong type, a bad quantity, time or base64 text."""
    return _value(value, node, path, [] if unknown is None else unknown, types())


def _wrong(value: Any, path: str, wanted: str) -> DecodeError:
    names = {bool: "bool", int: "number", float: "number", str: "string", dict: "object", list: "array"}
    got = names.get(type(value), "null")
    return DecodeError(f"json: cannot unmarshal {got} into Go struct field {path or '.'} of type {wanted}")


def _value(value: Any, node: Node, path: str, unknown: list[str], known: Types) -> Any:
    node = known.resolve(node)
    kind = node.get("type")
    if value is None:
        return _zero(kind)
    if kind == "object":
        return _object(value, node, path, unknown, known)
    if kind == "array":
        if not isinstance(value, list):
            raise _wrong(value, path, "array")
        return [_value(v, node["items"], f"{path}[{i}]", unknown, known) for i, v in enumerate(value)]
    return _scalar(value, kind, node, path)


def _zero(kind: Any) -> Any:
    """What null becomes inside a list or map."""
    return {"object": {}, "array": [], "string": "", "integer": 0, "number": 0, "boolean": False}.get(kind)


def _object(value: Any, node: Node, path: str, unknown: list[str], known: Types) -> Any:
    if not isinstance(value, dict):
        raise _wrong(value, path, "object")
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return value
    more = node.get("additionalProperties")
    if more is not None:
        return {k: _value(v, more, f"{path}.{k}" if path else k, unknown, known) for k, v in value.items()}
    fields, required = node["properties"], node.get("required", ())
    out = {}
    for name, item in value.items():
        at = f"{path}.{name}" if path else name
        field = fields.get(name)
        if field is None:
            unknown.append(at)
        elif item is not None:
            decoded = _value(item, field, at, unknown, known)
            if name in required or not _is_empty(decoded, field):
                out[name] = decoded
    return out


def _is_empty(decoded: Any, field: Node) -> bool:
    """Lists and maps of Go have ``omitempty``; an empty struct behind a pointer (``emptyDir: {}``) means something."""
    return decoded == [] or (decoded == {} and "additionalProperties" in field)


def _scalar(value: Any, kind: Any, node: Node, path: str) -> Any:
    if node.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise _wrong(value, path, "intstr.IntOrString")
        return value
    if kind == "string":
        return _string(value, node.get("format"), path)
    if kind == "integer":
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INT_MAX:
            raise _wrong(value, path, "int64")
        return value
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(value, path, "float64")
        return value
    if kind == "boolean" and not isinstance(value, bool):
        raise _wrong(value, path, "bool")
    return value


def _string(value: Any, form: Any, path: str) -> str:
    try:
        if form == "quantity" and not isinstance(value, bool) and isinstance(value, int | float | str):
            return quantity.canonical(value)
        if not isinstance(value, str):
            raise _wrong(value, path, "string")
        if form == "date-time":
            return times.plain(value)
        if form == "micro-time":
            return times.micro(value)
        if form == "byte":
            return base64.b64encode(base64.b64decode("".join(value.split()), validate=True)).decode()
    except (quantity.QuantityError, binascii.Error, ValueError) as e:
        if isinstance(e, DecodeError):
            raise
        raise DecodeError(f"{path}: {e}") from e
    return value
