"""Server-side apply: merge what a manager wants into what is there, by who owns which field.

A field that another manager owns and that would change is a conflict (409), unless forced.  A field that this manager
applied before and leaves out now goes, unless another manager owns it too.  The merge is here, the bookkeeping of other
writes in managers.py.  Source: API concepts, "Server-Side Apply".
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

from bus.kube import errors
from bus.kube.catalog import Resource
from bus.kube.decoding import clone
from bus.kube.patches import fieldsets, managers
from bus.kube.patches.fieldsets import FieldSet
from bus.kube.patches.managers import Entry, Kind
from bus.kube.storage import Object
from bus.kube.typed import Node

CLIENT_SIDE = "kubectl"  # the manager of kubectl apply --server-side
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # as Go writes JSON


def wanted(config: Object, resource: Resource, subresource: str) -> Object:
    """The part of what was applied that this (sub)resource may change."""
    out: Object = {k: v for k, v in config.items() if k != "status"}
    if subresource == "status":
        meta = {k: v for k, v in config["metadata"].items() if k in ("name", "namespace", "resourceVersion", "uid")}
        out = {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": meta}
    if "status" in config and (subresource == "status" or not resource.has("status")):
        out["status"] = config["status"]
    return out


def first(said: Object, kind: Kind, me: Entry) -> list[Object]:
    """The ``managedFields`` of an object that is made by applying it."""
    return managers.write([replace(me, fields=_said(said, kind, me))])


def apply(live: Object, config: Object, said: Object, kind: Kind, me: Entry, *, force: bool, told_in: str = "") -> Object:
    """The next object, with its ``managedFields`` (an empty list where nobody owns anything any more).

    ``config`` is what is applied in the form of its kind, ``said`` the same as it was sent; ``me`` says who applies (its
    fields are filled in).  ``told_in``: in which conflicts are told.  Raises StatusError 409 with every conflict."""
    node = kind.node
    entries = managers.read(live["metadata"]) or managers.before_first_apply(live, kind, me)
    before = next((e for e in entries if e.who == me.who), None)
    others = [e for e in entries if e.who != me.who]
    mine = _said(said, kind, me)
    out = _merge(live, config, node)
    if before is not None and before.fields:
        owned = fieldsets.with_parents(fieldsets.of(said, node).union(mine, *(e.fields for e in others)), node)
        out = _pruned(out, fieldsets.with_parents(before.fields, node), owned, kind)
    changed = managers.compare(live, out, kind, me.subresource)
    taken = changed.added | changed.modified
    conflicts = [(e, e.fields & taken) for e in others if e.fields & taken]
    if me.manager == CLIENT_SIDE and conflicts:  # it was kubectl's own before, applied by itself
        noted = _noted(live, kind)
        conflicts = [] if all(paths <= noted for _, paths in conflicts) else _without(conflicts, noted)
    if conflicts and not force:
        raise errors.apply_conflict(
            [(e.named(told_in), [*map(fieldsets.said, fieldsets.ordered(paths))]) for e, paths in conflicts]
        )
    others = [replace(e, fields=e.fields - taken - changed.removed) for e in others]
    same = not (taken or changed.removed)
    now = replace(me, fields=mine, time=(before.time if before else "") if same else me.time)
    meta = {**out["metadata"], "managedFields": managers.write([*others, now])}
    note = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if me.manager == CLIENT_SIDE and note:  # kept up, for who goes back to applying by itself
        meta["annotations"] = {**meta["annotations"], LAST_APPLIED: _note(said)}
    return {**out, "metadata": meta}


def _said(said: Object, kind: Kind, me: Entry) -> FieldSet:
    fields = fieldsets.of(said, kind.node) - fieldsets.STRIPPED
    return frozenset(p for p in fields if kind.may_own(p, me.subresource))


def _pruned(merged: Object, last: FieldSet, owned: FieldSet, kind: Kind) -> Object:
    """Without what was applied last time, but what somebody still owns, and what nobody applied stays."""
    node = kind.node
    everything = fieldsets.with_parents(fieldsets.of(merged, node), node)
    out = fieldsets.without(merged, last, node)
    left = fieldsets.with_parents(fieldsets.of(out, node), node)
    out = fieldsets.without(merged, everything - (left | owned), node)
    left = fieldsets.with_parents(fieldsets.of(out, node), node)
    found: Object = fieldsets.without(merged, (everything - left) & last, node)
    return found


def _without(conflicts: list[tuple[Entry, FieldSet]], noted: FieldSet) -> list[tuple[Entry, FieldSet]]:
    return [(e, paths - noted) for e, paths in conflicts if paths - noted]


def _noted(live: Object, kind: Kind) -> FieldSet:
    """What ``kubectl apply`` applied by itself and is still so: it left a note."""
    note = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if note is not None:
        with contextlib.suppress(ValueError, RecursionError):
            noted = json.loads(note)
            if isinstance(noted, dict) and noted.get("apiVersion") == live["apiVersion"]:
                differing = fieldsets.compare(noted, kind.whole(live), kind.node)
                return fieldsets.of(noted, kind.node) - differing.added - differing.modified - differing.removed
    return frozenset()


def _note(said: Object) -> str:
    """What is applied, as ``kubectl apply`` would have noted it."""
    meta = said["metadata"]
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
    said = {**said, "metadata": {**meta, "annotations": annotations}} if "annotations" in meta else said
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_ESCAPED) + "\n"


def _merge(old: Any, new: Any, node: Node | None) -> Any:
    """``new`` laid over ``old``, list by list as the types say.  A copy."""
    kind = fieldsets.shape(new, node)
    if kind == "map" and isinstance(old, dict):
        out = clone(old)
        for name, value in new.items():
            out[name] = _merge(old.get(name), value, fieldsets.child(node, name))
        return out
    if kind == "keyed" and isinstance(old, list) and fieldsets.shape(old, node) == "keyed":
        assert node is not None
        left, right = [fieldsets.key_step(o, node) for o in old], {fieldsets.key_step(n, node): n for n in new}
        found = {step: item for step, item in reversed([*zip(left, old, strict=True)])}
        inner = fieldsets.element(node)
        items = {s: _merge(found.get(s), item, inner) for s, item in right.items()}
        return [clone(old[i]) if step not in right else items[step] for step, i in _interleaved(left, [*right])]
    if kind == "set" and isinstance(old, list):
        left, right = [fieldsets.text(o) for o in old], {fieldsets.text(n): n for n in new}
        return [clone(old[i]) if step not in right else right[step] for step, i in _interleaved(left, [*right])]
    return clone(new)


def _interleaved(left: list[str], right: list[str]) -> list[tuple[str, int]]:
    """Two lists of names as one, each name of ``right`` once: in the order of ``right``, and what only ``left`` has where
    it stood before what follows it.  With each its place in ``left``, -1 for one of ``right``."""
    had, wanted = set(left), set(right)
    shared = [name for name in right if name in had]
    out: list[tuple[str, int]] = []
    done: set[str] = set()
    i = j = k = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                out.append((right[j], -1))
                done.add(right[j])
                i, j, k = i + 1, j + 1, k + 1
                continue
            if left[i] in wanted and k < len(shared) and shared[k] != left[i]:
                i += 1
                continue
        if i < len(left):
            if left[i] not in wanted:
                out.append((left[i], i))
                i += 1
                continue
            if left[i] in done:
                i += 1
        if j < len(right):
            out.append((right[j], -1))
            done.add(right[j])
            k += k < len(shared) and shared[k] == right[j]
            j += 1
    return out
