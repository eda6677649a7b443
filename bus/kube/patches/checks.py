"""What is applied, checked against the types before it is merged: only declared fields, each of its kind, no key twice.

The words are structured-merge-diff's, and the answer is its 500: it has no other for a configuration that isn't one.
"""

from __future__ import annotations

import json
from typing import Any

from bus.kube import errors, gotext
from bus.kube.patches import fieldsets
from bus.kube.storage import Object
from bus.kube.typed import Node

PROBLEMS_MAX = 64


def applied(sent: Any, group_version: str, kind: str, name: str, node: Node) -> Object:
    """The configuration that was sent to the address of an object.  Raises StatusError 400, 500."""
    config: Object = {} if sent is None else sent
    if not isinstance(config, dict):
        said = f"json: cannot unmarshal {gotext.go_kind(sent)} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {said}")
    version, named = (config.get(f) if isinstance(config.get(f), str) else "" for f in ("apiVersion", "kind"))
    if (version, named) != (group_version, kind):
        group, _, plain = str(version).rpartition("/")
        raise errors.bad_request(f"invalid object type: {group[:80]}/{plain[:80]}, Kind={str(named)[:80]}")
    meta = config.get("metadata")
    meta = {} if meta is None else meta
    if isinstance(meta, dict):
        if meta.get("managedFields"):
            raise errors.bad_request("metadata.managedFields must be nil")
        config = {**config, "metadata": {**meta, "name": meta.get("name") or name}}
    _fields(config, node)
    return config


def _fields(config: Object, node: Node) -> None:
    """Raises StatusError 500."""
    found = _problems(config, node)
    if not found:
        return
    meta = config["metadata"] if isinstance(config["metadata"], dict) else {}
    group, _, plain = config["apiVersion"].rpartition("/")
    address = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}; {group}/{plain}, Kind={config['kind']}"
    said = found[0] if len(found) == 1 else "errors:\n" + "\n".join(f"  {p}" for p in found[:PROBLEMS_MAX])
    raise errors.StatusError(500, "", f"failed to create typed patch object ({address}): {said}")


def _problems(value: Any, node: Node | None, path: str = "") -> list[str]:
    if value is None or node is None or (node.get("x-kubernetes-preserve-unknown-fields") and "properties" not in node):
        return []
    kind = node.get("type")
    if kind == "object" or "properties" in node or "additionalProperties" in node:
        return _of_map(value, node, path)
    if kind == "array":
        return _of_list(value, node, path)
    return _of_scalar(value, node, path)


def _of_map(value: Any, node: Node, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: expected map, got &{{{_go(value)}}}"]
    out = []
    open_to_all = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields")
    for name, item in value.items():
        if not open_to_all and not fieldsets.named(node, name):
            out.append(f"{path}.{name}: field not declared in schema")
        else:
            out += _problems(item, fieldsets.child(node, name), f"{path}.{name}")
    return out


def _of_list(value: Any, node: Node, path: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{path}: expected list, got &{{{_go(value)}}}"]
    out, seen = [], set[str]()
    listing, keys = node.get("x-kubernetes-list-type"), node.get("x-kubernetes-list-map-keys", ())
    for i, item in enumerate(value):
        at = f"[{i}]"
        if listing == "map":
            if not isinstance(item, dict):
                why = "a null" if item is None else "non-map"
                out.append(
                    f"{path}: element {i}: associative list with keys may not have {why} element{'s' * (item is not None)}"
                )
                continue
            step = fieldsets.key_step(item, node)
            if step == "k:{}":
                named = "[" + " ".join(json.dumps(k) for k in keys) + "]"
                why = f"associative list with keys has an element that omits all key fields {named}"
                out.append(f"{path}: element {i}: {why} (and doesn't have default values for any key fields)")
                continue
            at = fieldsets.said((step,))
        elif listing == "set":
            at = fieldsets.said(("v:" + fieldsets.text(item),))
        if listing in ("map", "set"):
            if at in seen:
                out.append(f"{path}: duplicate entries for key {at}")
                continue
            seen.add(at)
        out += _problems(item, fieldsets.element(node), path + at)
    return out


def _of_scalar(value: Any, node: Node, path: str) -> list[str]:
    kind, number = node.get("type"), isinstance(value, int | float) and not isinstance(value, bool)
    if node.get("x-kubernetes-int-or-string") or node.get("format") in ("quantity", "date-time", "micro-time"):
        if isinstance(value, dict | list):
            return [f"{path}: expected any scalar, got &{{{_go(value)}}}"]
    elif kind == "string" and not isinstance(value, str):
        return [f"{path}: expected string, got &value.valueUnstructured{{Value:{_go_literal(value)}}}"]
    elif kind in ("integer", "number") and not number:
        names = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
        return [f"{path}: expected numeric (int or float), got {names.get(type(value), '<nil>')}"]
    elif kind == "boolean" and not isinstance(value, bool):
        return [f"{path}: expected boolean, got &{{{_go(value)}}}"]
    return []


def _go(value: Any) -> str:
    """As Go's ``%v`` prints it."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{_go(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_go(v) for v in value) + "]"
    return value if isinstance(value, str) else "<nil>" if value is None else json.dumps(value)


def _go_literal(value: Any) -> str:
    """As Go's ``%#v`` prints it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)}:{_go_literal(v)}" for k, v in sorted(value.items()))
        return f"map[string]interface {{}}{{{inner}}}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(_go_literal(v) for v in value) + "}"
    return "interface {}(nil)" if value is None else json.dumps(value, ensure_ascii=False)
