"""Kubernetes' strategic merge patch: a merge patch that knows which lists are maps in disguise.

Which list merges by which key is in the types (``x-kubernetes-patch-merge-key``, ``x-kubernetes-patch-strategy``).
Directives: ``$patch`` (merge, replace, delete), ``$retainKeys``, ``$setElementOrder/<list>``,
``$deleteFromPrimitiveList/<list>``.
Source: sig-api-machinery's "Strategic Merge Patch" and "Preserve Order in Strategic Merge Patch".
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from bus.kube import errors
from bus.kube.storage import Object
from bus.kube.typed import Node, Types

_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def apply(target: Object, patch: Any, node: Node, types: Types) -> Object:
    """The result; neither argument is changed, parts may be shared.  Raises StatusError 400."""
    if not isinstance(patch, dict):
        raise errors.bad_request("a strategic merge patch is an object")
    return _map(target, patch, node, types)


def _child(node: Node | None, name: str, types: Types) -> Node | None:
    """The type of a field, if known."""
    if node is None:
        return None
    field = node.get("properties", {}).get(name) or node.get("additionalProperties")
    return types.resolve(field) if isinstance(field, dict) else None


def _map(target: Object, patch: Object, node: Node | None, types: Types) -> Object:
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    if directive not in (None, "merge"):
        raise errors.bad_request(f"invalid patch format: unknown $patch directive {errors.show(directive)}")
    out = dict(target)
    retained = patch.get("$retainKeys")
    if retained is not None:
        if not isinstance(retained, list):
            raise errors.bad_request("invalid patch format of retainKeys")
        out = {k: v for k, v in out.items() if k in retained}
    for name, value in patch.items():
        if name in ("$patch", "$retainKeys") or name.startswith((_ORDER, _DELETE)):
            continue
        if value is None:
            out.pop(name, None)
        else:
            out[name] = _value(out.get(name), value, _child(node, name, types), types)
    for name, value in patch.items():
        if name.startswith((_ORDER, _DELETE)):
            _list_directive(name, value, target, out, _child(node, name.split("/", 1)[1], types))
    return out


def _list_directive(name: str, value: Any, target: Object, out: Object, node: Node | None) -> None:
    field = name.split("/", 1)[1]
    if not isinstance(value, list):
        raise errors.bad_request(f"invalid patch format of {name}: a list is needed")
    if not isinstance(out.get(field), list):
        return
    if name.startswith(_DELETE):
        out[field] = [v for v in out[field] if v not in value]
    else:
        before = target.get(field)
        out[field] = _ordered(out[field], value, before if isinstance(before, list) else [], (node or {}).get(_KEY))


_KEY, _STRATEGY = "x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy"


def _value(old: Any, new: Any, node: Node | None, types: Types) -> Any:
    merges = "replace" not in (node or {}).get(_STRATEGY, "").split(",")
    if isinstance(new, dict):
        base = old if isinstance(old, dict) and merges else {}
        return _map(base, new, node, types)
    if isinstance(new, list):
        if node is not None and "merge" in node.get(_STRATEGY, "").split(","):
            return _list(old if isinstance(old, list) else [], new, node, types)
        return new
    return new


def _list(old: list[Any], patch: list[Any], node: Node, types: Types) -> list[Any]:
    key = node.get(_KEY)
    if key is None:  # a set of primitives
        have = {_text(v) for v in old}
        return _ordered(old + list({_text(v): v for v in patch if _text(v) not in have}.values()), patch, old, None)
    items = types.resolve(node["items"])
    for item in patch:
        if not isinstance(item, dict):
            raise errors.bad_request(f"invalid patch format: an element of a list merged by {key} must be an object")
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    out: dict[str, Any] = {}
    for i, have in enumerate(old):  # the first of equal keys is the one that is merged into
        out.setdefault(_text(have.get(key)) if isinstance(have, dict) else f"#{i}", have)
    for item in patch:
        if item.get(key) is None:
            raise errors.bad_request(f"map: {errors.show(item)} does not contain declared merge key: {key}")
        at = _text(item[key])
        if item.get("$patch") == "delete":
            out.pop(at, None)
        else:
            out[at] = _map(out.get(at, {}), item, items, types)
    return _ordered(list(out.values()), patch, old, key)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _ordered(merged: list[Any], wanted: list[Any], before: list[Any], key: str | None) -> list[Any]:
    """``merged`` in the order the client wants; what only the server has keeps its place among its old neighbours."""

    def identity(item: Any) -> str:
        return _text(item.get(key) if key is not None and isinstance(item, dict) else item)

    order = {identity(w): i for i, w in enumerate(wanted)}
    old = {identity(b): i for i, b in enumerate(before)}
    named = deque(sorted((m for m in merged if identity(m) in order), key=lambda m: order[identity(m)]))
    others = deque(m for m in merged if identity(m) not in order)
    out = []
    while named and others:
        left, right = old.get(identity(others[0])), old.get(identity(named[0]))
        server_first = left is not None and right is not None and left < right
        out.append(others.popleft() if server_first else named.popleft())
    return [*out, *named, *others]
