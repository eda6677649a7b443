"""Who owns which field: sets of field paths, as ``metadata.managedFields`` keeps them (FieldsV1).

A path is a tuple of steps: ``f:name`` a field, ``k:{"name":"x"}`` an element of a list with keys, ``v:"x"`` a member of a
set.  An element with keys is in a set itself too (``.`` in FieldsV1).  Which lists and maps are one value (atomic) and
which are taken apart is in the types.  Source: sigs.k8s.io/structured-merge-diff and the API concept "Server-Side Apply".
"""

from __future__ import annotations

import json
from typing import Any

from bus.kube import typed
from bus.kube.storage import Object
from bus.kube.typed import Node

Path = tuple[str, ...]
FieldSet = frozenset[Path]

# Never owned: the server's own, and the address.
_STRIPPED = {("f:apiVersion",), ("f:kind",), ("f:metadata",)} | {
    ("f:metadata", f"f:{name}")
    for name in (
        *("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"),
        *("deletionTimestamp", "deletionGracePeriodSeconds", "generateName"),
    )
}
ABSENT = object()


def text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def child(node: Node | None, name: str) -> Node | None:
    """The type of a field; None when nothing is known."""
    if node is None:
        return None
    field = node.get("properties", {}).get(name, node.get("additionalProperties"))
    return typed.types().resolve(field) if isinstance(field, dict) else None


def element(node: Node | None) -> Node | None:
    items = (node or {}).get("items")
    return typed.types().resolve(items) if isinstance(items, dict) else None


def shape(value: Any, node: Node | None) -> str:
    """``map``, ``keyed`` and ``set`` are taken apart; ``atom`` is one value."""
    node = node or {}
    if isinstance(value, dict):
        return "atom" if node.get("x-kubernetes-map-type") == "atomic" else "map"
    if isinstance(value, list):
        listing = node.get("x-kubernetes-list-type")
        if listing == "map" and all(isinstance(v, dict) for v in value):
            return "keyed"
        if listing == "set":
            return "set"
    return "atom"


def key_step(item: Object, node: Node) -> str:
    """The step of an element of a keyed list; an absent key has its default (a port's protocol is TCP)."""
    key = {}
    for name in node.get("x-kubernetes-list-map-keys", ()):
        fallback = (child(element(node), name) or {}).get("default", "TCP" if name == "protocol" else None)
        value = item.get(name, fallback)
        if value is not None:
            key[name] = value
    return "k:" + text(key)


def of(obj: Any, node: Node | None) -> FieldSet:
    """Every field that an object holds."""
    out: set[Path] = set()
    _collect(obj, node, (), out)
    return frozenset(out - _STRIPPED)


def _collect(value: Any, node: Node | None, path: Path, out: set[Path]) -> None:
    kind = shape(value, node)
    if kind == "map" and value:
        for name, item in value.items():
            _collect(item, child(node, name), (*path, f"f:{name}"), out)
    elif kind == "keyed" and value:
        assert node is not None
        for item in value:
            at = (*path, key_step(item, node))
            out.add(at)
            for name, field in item.items():
                _collect(field, child(element(node), name), (*at, f"f:{name}"), out)
    elif kind == "set" and value:
        out.update((*path, "v:" + text(item)) for item in value)
    elif path:
        out.add(path)


def find(obj: Any, path: Path, node: Node | None) -> Any:
    """The value at a path, ABSENT when there is none."""
    value = obj
    for step in path:
        if step.startswith("f:"):
            if not isinstance(value, dict) or step[2:] not in value:
                return ABSENT
            value, node = value[step[2:]], child(node, step[2:])
        elif not isinstance(value, list):
            return ABSENT
        elif step.startswith("k:"):
            parent = node or {}
            value = next((v for v in value if isinstance(v, dict) and key_step(v, parent) == step), ABSENT)
            node = element(node)
        else:
            value = next((v for v in value if "v:" + text(v) == step), ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


def changed(old: Any, new: Any, node: Node | None) -> tuple[FieldSet, FieldSet]:
    """(added or modified, removed) from one object to the next."""
    before, after = of(old, node), of(new, node)
    differs = set()
    for path in after:
        if path not in before or (path[-1].startswith("f:") and find(old, path, node) != find(new, path, node)):
            differs.add(path)
    return frozenset(differs), before - after


def remove(obj: Any, path: Path, node: Node | None) -> None:
    """Take a field away, in place; what is absent already is fine."""
    parent = find(obj, path[:-1], node)
    last = path[-1]
    if last.startswith("f:") and isinstance(parent, dict):
        parent.pop(last[2:], None)
    elif isinstance(parent, list):
        at = node
        for step in path[:-1]:
            at = child(at, step[2:]) if step.startswith("f:") else element(at)
        if last.startswith("k:"):
            parent[:] = [v for v in parent if not (isinstance(v, dict) and key_step(v, at or {}) == last)]
        else:
            parent[:] = [v for v in parent if "v:" + text(v) != last]


def write(fields: FieldSet) -> Object:
    """FieldsV1."""
    root: Object = {}
    inner = {path[:i] for path in fields for i in range(1, len(path))}
    for path in sorted(fields):
        at = root
        for step in path:
            at = at.setdefault(step, {})
        if path in inner or path[-1].startswith("k:"):
            at["."] = {}
    return root


def read(fields: Any) -> FieldSet:
    """From FieldsV1; what makes no sense in it is left out, as it may come from a client."""
    out: set[Path] = set()
    todo: list[tuple[Path, Any]] = [((), fields)]
    while todo:
        path, node = todo.pop()
        if not isinstance(node, dict):
            continue
        if path and (not node or "." in node):
            out.add(path)
        todo += [((*path, step), inner) for step, inner in node.items() if step[:2] in ("f:", "k:", "v:")]
    return frozenset(out)


def said(path: Path) -> str:
    """``.spec.containers[name="a"].image``, as conflicts are reported."""
    out = ""
    for step in path:
        if step.startswith("f:"):
            out += "." + step[2:]
        elif step.startswith("k:"):
            out += "[" + ",".join(f"{k}={text(v)}" for k, v in json.loads(step[2:]).items()) + "]"
        else:
            out += f"[={step[2:]}]"
    return out
