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


# Key in a definition: its fields whose zero ("", 0, false) is the same as their absence (Go's ``omitempty`` of what is no
# pointer), so that no answer has it.
ZEROS = "x-zeros"


class DecodeError(ValueError):
    """A value of the wrong type, with its path."""


class Types:
    """The type definitions, loaded once, when first needed."""

    def __init__(self, definitions: dict[str, Node], kinds: dict[str, str]) -> None:
        self.definitions = definitions
        self.kinds = kinds
        self.names = {id(node): name for name, node in definitions.items()}  # of what a kind's type is
        self._resolved: dict[int, tuple[Node, Node]] = {}  # by identity; the nodes are kept, so that no other gets theirs
        self._zeros: dict[str, Node] = {}

    def of_kind(self, group: str, version: str, kind: str) -> Node | None:
        name = self.kinds.get(f"{group}/{version}/{kind}")
        return self.definitions[name] if name else None

    def resolve(self, node: Node) -> Node:
        """The node itself, or what it refers to (with the node's own merge rules on top)."""
        ref = node.get("$ref")
        if ref is None:
            return node
        if len(node) == 1:
            return self.definitions[ref]
        known = self._resolved.get(id(node))
        if known is None:
            own = {k: v for k, v in node.items() if k not in ("$ref", "default")}
            known = self._resolved[id(node)] = (node, {**self.definitions[ref], **own} if own else self.definitions[ref])
        return known[1]

    def zeros(self, name: str) -> Node:
        """What a definition's struct says of fields that nobody set: Go writes structs without a pointer, scalars without
        ``omitempty``, and times that are no pointers as null.  The types tell it by ``default``."""
        found = self._zeros.get(name)
        if found is None:
            found = self._zeros[name] = {}
            short, absent = name.rpartition(".")[2], self.definitions[name].get(ZEROS, ())
            for field, node in self.definitions[name].get("properties", {}).items():
                zero = node.get("default")
                if zero == {} and "$ref" in node:
                    found[field] = dict(self.zeros(node["$ref"]))
                elif zero is not None and zero in ("", 0, False) and field not in absent and (short, field) not in _OMITTED:
                    found[field] = zero
                elif node.get("format") in ("date-time", "micro-time") and field in _NULL_TIMES:
                    found[field] = None
        return found


@functools.cache
def types() -> Types:
    data = resources.files("bus.kube").joinpath("data")
    raw = json.loads(data.joinpath("builtin.json").read_text())
    for name, fields in json.loads(data.joinpath("zeros.json").read_text()).items():
        if name in raw["definitions"]:
            raw["definitions"][name][ZEROS] = frozenset(fields)
    return Types(raw["definitions"], raw["kinds"])


def decode(value: Any, node: Node, path: str = "", unknown: list[str] | None = None) -> Any:
    """``value`` as its type has it, a new one; unknown fields are dropped and their paths added to ``unknown``.

    Raises DecodeError for a wrong type, a bad quantity, time or base64 text."""
    known, dropped = types(), [] if unknown is None else unknown
    at: _Where | None = (None, _FIELD, path, "") if path else None
    owner = known.names.get(id(node), "")
    if owner and isinstance(value, dict):
        return _object(value, known.resolve(node), at, dropped, known, owner)
    return _value(value, node, at, dropped, known)


# Fields with a zero default that are pointers, or out of use.
_OMITTED = frozenset(
    {
        ("AzureDiskVolumeSource", "readOnly"),
        ("FileKeySelector", "optional"),
        ("GRPCAction", "service"),
        ("TokenRequestStatus", "token"),
    }
)
# Times that are no pointers: unset, they are null.
_NULL_TIMES = frozenset(
    {
        *("lastProbeTime", "lastTransitionTime", "lastHeartbeatTime", "lastUpdateTime", "startedAt", "finishedAt"),
        *("evictionTime", "firstTimestamp", "lastTimestamp", "eventTime", "lastObservedTime"),
        *("deprecatedFirstTimestamp", "deprecatedLastTimestamp"),
    }
)
# Numbers that are int64 in Go; the others are int32.
_LONG = frozenset(
    {
        *("generation", "observedGeneration", "deletionGracePeriodSeconds", "remainingItemCount", "revision", "seconds"),
        *("terminationGracePeriodSeconds", "activeDeadlineSeconds", "tolerationSeconds", "startingDeadlineSeconds"),
        *("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "expirationSeconds", "sizeBytes"),
        *("uid", "gid"),
    }
)
# Texts that have a Go type of their own.
_NAMED = {
    **{"restartPolicy": "v1.RestartPolicy", "dnsPolicy": "v1.DNSPolicy", "imagePullPolicy": "v1.PullPolicy"},
    **{"protocol": "v1.Protocol", "uid": "types.UID", "terminationMessagePolicy": "v1.TerminationMessagePolicy"},
    **{"phase": "v1.PodPhase", "clusterIPFamily": "v1.IPFamily", "sessionAffinity": "v1.ServiceAffinity"},
}
_GOT = {bool: "bool", int: "number", float: "number", str: "string", dict: "object", list: "array"}


# A place in an object, from the inside out: (the place it is in, how it is in it, its name or index, the Go struct whose
# field it is).  Read only when something is wrong, so that good objects don't pay for it.
_Where = tuple[Any, str, Any, str]
_FIELD, _ITEM, _KEY = "field", "item", "key"


def _steps(where: _Where | None) -> list[_Where]:
    out: list[_Where] = []
    while where is not None:
        out.append(where)
        where = where[0]
    return out[::-1]


def _path(where: _Where | None) -> str:
    """With indices and keys, as ``fieldValidation`` names it."""
    out = ""
    for _, how, name, _ in _steps(where):
        out += f"[{name}]" if how == _ITEM else f".{name}" if out else str(name)
    return out


def _last(where: _Where | None) -> str:
    """The name of the innermost field."""
    while where is not None and where[1] != _FIELD:
        where = where[0]
    return str(where[2]) if where is not None else ""


def _go_type(node: Node, where: _Where | None, known: Types) -> str:
    """Of the type in a definition's package, as Go writes it."""
    ref = node.get("$ref")
    if ref is not None:
        package, name = ref.rsplit(".", 2)[1:]
        return f"{package}.{name}"
    node = known.resolve(node)
    kind = node.get("type")
    if kind == "array":
        return "[]" + _go_type(node["items"], where, known)
    if kind == "object":
        return "map[string]" + (
            _go_type(node["additionalProperties"], where, known) if "additionalProperties" in node else "x"
        )
    if kind == "integer":
        return "int64" if _last(where) in _LONG else "int32"
    if kind == "string" and node.get("format") == "byte":
        return "[]uint8"
    return {"string": _NAMED.get(_last(where), "string"), "boolean": "bool", "number": "float64"}.get(str(kind), "string")


def _wrong(value: Any, where: _Where | None, wanted: str) -> DecodeError:
    got = _GOT.get(type(value), "null")
    if got == "number" and wanted.startswith("int"):
        got = f"number {json.dumps(value)[:40]}"
    fields = [step for step in _steps(where) if step[1] == _FIELD]
    if not fields:
        return DecodeError(f"json: cannot unmarshal {got} into Go value of type {wanted}")
    named = f"{fields[-1][3]}.{'.'.join(str(step[2]) for step in fields)}"
    return DecodeError(f"json: cannot unmarshal {got} into Go struct field {named} of type {wanted}")


def _value(value: Any, node: Node, where: _Where | None, unknown: list[str], known: Types) -> Any:
    spelt, node = node, known.resolve(node)
    kind = node.get("type")
    if value is None:
        return _zero(kind)
    if kind == "object":
        if not isinstance(value, dict):
            raise _wrong(value, where, _go_type(spelt, where, known))
        return _object(value, node, where, unknown, known, spelt.get("$ref", ""))
    if kind == "array":
        if not isinstance(value, list):
            raise _wrong(value, where, _go_type(spelt, where, known))
        return [_value(v, node["items"], (where, _ITEM, i, ""), unknown, known) for i, v in enumerate(value)]
    return _scalar(value, kind, node, where, known)


def _zero(kind: Any) -> Any:
    """What null becomes inside a list or map."""
    return {"object": {}, "array": [], "string": "", "integer": 0, "number": 0, "boolean": False}.get(kind)


def _object(value: Any, node: Node, where: _Where | None, unknown: list[str], known: Types, owner: str) -> Any:
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return value
    more = node.get("additionalProperties")
    if more is not None:
        return {k: _value(v, more, (where, _KEY, k, ""), unknown, known) for k, v in value.items()}
    fields, required, absent = node["properties"], node.get("required", ()), node.get(ZEROS, ())
    definition, owner = owner, owner.rpartition(".")[2]
    out = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            unknown.append(_path((where, _KEY, name, "")))
        elif item is not None:
            decoded = _value(item, field, (where, _FIELD, name, owner), unknown, known)
            if name in absent and not decoded:
                continue
            if name in required or not _is_empty(decoded, field):
                out[name] = decoded
    for name, zero in known.zeros(definition).items() if definition else ():
        if name not in out:
            out[name] = _copy(zero)
    return out


def _copy(zero: Any) -> Any:
    return {name: _copy(value) for name, value in zero.items()} if isinstance(zero, dict) else zero


def _is_empty(decoded: Any, field: Node) -> bool:
    """Lists and maps of Go have ``omitempty``; an empty struct behind a pointer (``emptyDir: {}``) means something."""
    return decoded == [] or (decoded == {} and "additionalProperties" in field)


def _scalar(value: Any, kind: Any, node: Node, where: _Where | None, known: Types) -> Any:
    if node.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DecodeError(f"json: cannot unmarshal {_GOT.get(type(value), 'null')} into Go value of type int32")
        return value
    if kind == "string":
        return _string(value, node, where, known)
    if kind == "integer":
        wide = 64 if _last(where) in _LONG else 32
        if isinstance(value, bool) or not isinstance(value, int) or not -(1 << (wide - 1)) <= value < 1 << (wide - 1):
            raise _wrong(value, where, f"int{wide}")
        return value
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(value, where, "float64")
        return value
    if kind == "boolean" and not isinstance(value, bool):
        raise _wrong(value, where, "bool")
    return value


def _string(value: Any, node: Node, where: _Where | None, known: Types) -> str:
    form = node.get("format")
    if form == "quantity":
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise DecodeError(quantity.RULE)
        try:
            return quantity.canonical(value)
        except quantity.QuantityError as e:
            raise DecodeError(str(e)) from e
    if not isinstance(value, str):
        raise _wrong(value, where, "string" if form in ("date-time", "micro-time") else _go_type(node, where, known))
    try:
        if form == "date-time":
            return times.plain(value)
        if form == "micro-time":
            return times.micro(value)
        if form == "byte":
            return base64.b64encode(base64.b64decode("".join(value.split()), validate=True)).decode()
    except binascii.Error as e:
        raise DecodeError(f"illegal base64 data at input byte {_bad_byte(value)}") from e
    except ValueError as e:
        raise DecodeError(str(e)) from e
    return value


def _bad_byte(text: str) -> int:
    """Where Go's decoder gives up."""
    good = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\r\n"
    for i, letter in enumerate(text):
        if letter not in good:
            return i
    return len(text) - len(text) % 4
