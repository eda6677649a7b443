"""Who owns which field: sets of field paths, as ``metadata.managedFields`` keeps them (FieldsV1).

A path is a tuple of steps: ``f:name`` a field, ``k:{"name":"x"}`` an element of a list with keys, ``v:"x"`` a member of a
set.  What is in a set itself, beside something in it, has a ``.`` in FieldsV1.  Which lists and maps are one value (atomic)
and which are taken apart is in the types.  Source: sigs.k8s.io/structured-merge-diff, the API concept "Server-Side Apply".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bus.kube import typed
from bus.kube.storage import Object
from bus.kube.typed import Node

Path = tuple[str, ...]
FieldSet = frozenset[Path]

# Never owned: the server's own, and the address.
STRIPPED = {("f:apiVersion",), ("f:kind",), ("f:metadata",)} | {
    ("f:metadata", f"f:{name}")
    for name in (
        *("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields"),
        "resourceVersion",
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


def named(node: Node | None, name: str) -> bool:
    """Whether a type says that it has a field; the keys of maps are not said."""
    return node is not None and name in node.get("properties", {})


def of(obj: Any, node: Node | None) -> FieldSet:
    """Every field that somebody who says ``obj`` owns: leaves, elements, keys of maps; not the structs on the way."""
    out: set[Path] = set()
    _collect(obj, node, (), out)
    return frozenset(out)


def _collect(value: Any, node: Node | None, path: Path, out: set[Path]) -> None:
    kind = shape(value, node)
    if kind == "map":
        for name, item in value.items():
            at = (*path, f"f:{name}")
            _collect(item, child(node, name), at, out)
            if item is None or item == {} or not named(node, name):
                out.add(at)
    elif kind == "keyed":
        for step, items in _by_key(value, node or {}).items():
            at = (*path, step)
            out.add(at)
            if len(items) == 1:
                _collect(items[0], element(node), at, out)
    elif kind == "set":
        out.update((*path, "v:" + text(item)) for item in value)
    elif path:
        out.add(path)


def _by_key(items: list[Any], node: Node) -> dict[str, list[Any]]:
    """The elements of a keyed list under their steps; of equal ones there are several."""
    out: dict[str, list[Any]] = {}
    for item in items:
        out.setdefault(key_step(item, node), []).append(item)
    return out


class Comparison:
    """What differs between two objects."""

    def __init__(self) -> None:
        self.added: set[Path] = set()
        self.modified: set[Path] = set()
        self.removed: set[Path] = set()

    def keep(self, wanted: Callable[[Path], bool]) -> Comparison:
        """Only the paths that ``wanted`` takes."""
        for paths in (self.added, self.modified, self.removed):
            paths.intersection_update([p for p in paths if wanted(p)])
        return self


def compare(old: Any, new: Any, node: Node | None) -> Comparison:
    """From one object to the next.  A struct, map or list that comes or goes is a member itself, beside what is in it;
    what is empty on both sides counts as one value."""
    out = Comparison()
    _compare(old, new, node, (), out)
    return out


def _compare(old: Any, new: Any, node: Node | None, path: Path, out: Comparison) -> None:
    kinds = {shape(v, node) for v in (old, new) if v is not ABSENT and v is not None}
    kind = kinds.pop() if len(kinds) == 1 else "atom"
    empty: tuple[Any, ...] = (ABSENT, None, {}, [])
    if kind == "atom" or (old in empty and new in empty):
        if old is ABSENT:
            out.added.add(path)
        elif new is ABSENT:
            out.removed.add(path)
        elif old != new:
            out.modified.add(path)
        return
    left = old if old is not ABSENT and old is not None else type(new)()
    right = new if new is not ABSENT and new is not None else type(old)()
    if kind == "map":
        for name in {**left, **right}:
            pair = left.get(name, ABSENT), right.get(name, ABSENT)
            _compare(*pair, child(node, name), (*path, f"f:{name}"), out)
    elif kind == "keyed":
        _compare_elements(_by_key(left, node or {}), _by_key(right, node or {}), element(node), path, out)
    else:
        before, after = {"v:" + text(v) for v in left}, {"v:" + text(v) for v in right}
        out.added.update((*path, step) for step in after - before)
        out.removed.update((*path, step) for step in before - after)
    if path and old is ABSENT:
        out.added.add(path)
    elif path and new is ABSENT:
        out.removed.add(path)


def _compare_elements(
    old: dict[str, list[Any]], new: dict[str, list[Any]], node: Node | None, path: Path, out: Comparison
) -> None:
    """Elements that have the same key as another are one value together."""
    for step in {**old, **new}:
        left, right, at = old.get(step, []), new.get(step, []), (*path, step)
        if len(left) <= 1 and len(right) <= 1:
            _compare(left[0] if left else ABSENT, right[0] if right else ABSENT, node, at, out)
        elif len(left) > 1 and len(right) > 1:
            if left != right:
                out.modified.add(at)
        elif len(left) > 1:
            if right:
                _compare(ABSENT, right[0], node, at, out)
            out.removed.add(at)
        else:
            if left:
                _compare(left[0], ABSENT, node, at, out)
            out.added.add(at)


def whole(value: Any, node: Node | None) -> Any:
    """A built-in object with what the real server's types always say, where an older one of ours doesn't: structs that are
    there though nobody set them, zero values that are written, and null for lists that must be there."""
    known = typed.types()
    if node is None:
        return value
    spelt, node = node, known.resolve(node)
    if isinstance(value, list) and "items" in node:
        return [whole(v, node["items"]) for v in value]
    if not isinstance(value, dict):
        return value
    fields, others = node.get("properties", {}), node.get("additionalProperties")
    name = spelt.get("$ref") or known.names.get(id(spelt), "")
    zeros, needed = known.zeros(name) if name else {}, node.get("required", ())
    out = {field: whole(item, fields.get(field, others)) for field, item in value.items()}
    for field, inner in fields.items():
        if field not in out and field in zeros:
            out[field] = whole(zeros[field], inner)
        elif field not in out and field in needed:
            out[field] = None
    return out


def with_parents(fields: FieldSet, node: Node | None) -> FieldSet:
    """And every struct's field on the way to one."""
    out = set(fields)
    for path in fields:
        at = node
        for i, step in enumerate(path[:-1]):
            if step.startswith("f:"):
                if named(at, step[2:]):
                    out.add(path[: i + 1])
                at = child(at, step[2:])
            else:
                at = element(at)
    return frozenset(out)


def without(value: Any, fields: FieldSet, node: Node | None) -> Any:
    """``value`` without what is in ``fields``.  A copy; what gets empty stays."""
    inner: dict[str, set[Path]] = {}
    for path in fields:
        inner.setdefault(path[0], set()).add(path[1:])
    kind = shape(value, node)
    if kind == "map":
        out = {}
        for name, item in value.items():
            below = inner.get(f"f:{name}", set())
            if () not in below:
                out[name] = without(item, frozenset(below), child(node, name)) if below else item
        return out
    if kind == "keyed":
        items = []
        for item in value:
            below = inner.get(key_step(item, node or {}), set())
            if () not in below:
                items.append(without(item, frozenset(below), element(node)) if below else item)
        return items
    if kind == "set":
        return [item for item in value if () not in inner.get("v:" + text(item), ())]
    return value


def write(fields: FieldSet) -> Object:
    """FieldsV1."""
    root: Object = {}
    inner = {path[:i] for path in fields for i in range(1, len(path))}
    for path in sorted(fields):
        at = root
        for step in path:
            at = at.setdefault(step, {})
        if path in inner:
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


def ordered(paths: FieldSet) -> list[Path]:
    """As the real server goes through a set: at each level first its members, then what is deeper."""
    return sorted(paths, key=lambda path: tuple((i < len(path) - 1, step) for i, step in enumerate(path)))


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
