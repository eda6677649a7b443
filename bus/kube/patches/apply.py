"""Server-side apply: merge what a manager wants into what is there, by who owns which field.

A field that another manager owns and that would change is a conflict (409), unless forced.  A field that this manager
applied before and leaves out now goes, unless another manager owns it too.  Who creates an object over HTTP owns what it
said ("Update"); what our own components create carries no ownership (it would double its size in the log): the first apply
finds one manager, "before-first-apply", that owns all.
Source: API concepts, "Server-Side Apply".
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import Any

from bus.kube import errors, typed
from bus.kube.catalog import Resource, Version
from bus.kube.decoding import clone
from bus.kube.patches import fieldsets
from bus.kube.patches.fieldsets import ABSENT, FieldSet
from bus.kube.storage import Object
from bus.kube.typed import Node

FIRST = "before-first-apply"
MANAGERS_MAX = 50  # more are folded into one, so that ownership can't outgrow the object
ANCIENT = "ancient-changes"
CLIENT_SIDE = "kubectl"  # the manager of kubectl apply --server-side
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Entry:
    """One manager's line in ``managedFields``."""

    manager: str
    operation: str
    subresource: str
    api_version: str
    time: str
    fields: FieldSet

    @property
    def who(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


def type_of(resource: Resource, version: Version) -> Node:
    """The type to walk an object by."""
    if not resource.custom:
        return version.schema
    fields = {**version.schema.get("properties", {}), "metadata": {"$ref": typed.META + "ObjectMeta"}}
    return {**version.schema, "properties": fields}


def read(meta: Object) -> list[Entry]:
    out = []
    for raw in meta.get("managedFields", []):
        fields = fieldsets.read(raw.get("fieldsV1"))
        who = (raw.get("manager", ""), raw.get("operation", "Update"), raw.get("subresource", ""))
        out.append(Entry(*who, raw.get("apiVersion", ""), raw.get("time", ""), fields))
    return out


def write(entries: list[Entry]) -> list[Object]:
    kept = sorted((e for e in entries if e.fields), key=lambda e: (e.operation, e.time, e.manager, e.subresource))
    updates = [e for e in kept if e.operation == "Update"]
    if len(updates) > MANAGERS_MAX:
        old = updates[: len(updates) - MANAGERS_MAX + 1]
        merged = replace(old[-1], manager=ANCIENT, fields=frozenset().union(*(e.fields for e in old)))
        kept = [merged, *(e for e in kept if e not in old)]
    return [
        {
            "manager": e.manager,
            "operation": e.operation,
            "apiVersion": e.api_version,
            **({"time": e.time} if e.time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": fieldsets.write(e.fields),
            **({"subresource": e.subresource} if e.subresource else {}),
        }
        for e in kept
    ]


def wanted(config: Object, resource: Resource, subresource: str) -> Object:
    """The part of what was applied that this (sub)resource may change.  Raises StatusError 400."""
    if config["metadata"].get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    out: Object = {k: v for k, v in config.items() if k != "status"}
    if subresource == "status":
        meta = {k: v for k, v in config["metadata"].items() if k in ("name", "namespace", "resourceVersion", "uid")}
        out = {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": meta}
    if "status" in config and (subresource == "status" or not resource.has("status")):
        out["status"] = config["status"]
    return out


def apply(live: Object, config: Object, node: Node, me: Entry, *, force: bool) -> Object:
    """The next object, with its ``managedFields``.  ``me`` says who applies (its fields are filled in).

    Raises StatusError 409 with every conflict."""
    mine = fieldsets.of(config, node)
    entries = read(live["metadata"])
    if not entries:
        entries = _first(live, node, me)
    before = next((e for e in entries if e.who == me.who), None)
    others = [e for e in entries if e.who != me.who]
    out = _merge(live, config, node)
    differing = {p for p in mine if _differs(live, out, p, node)}
    conflicts = [(e, p) for e in others for p in sorted(e.fields & differing)]
    if me.manager == CLIENT_SIDE and {p for _, p in conflicts} <= _noted(live, node):
        conflicts = []  # it was kubectl's own before, applied by itself
    if conflicts and not force:
        raise errors.apply_conflict([_cause(e, fieldsets.said(p)) for e, p in conflicts])
    others = [replace(e, fields=e.fields - differing) for e in others]
    if before is not None:
        owned = mine.union(*(e.fields for e in others))
        gone = before.fields - owned
        for path in sorted(gone, key=len):  # an element before its key fields, by which it is found
            if not any(o[: len(path)] == path for o in owned):
                fieldsets.remove(out, path, node)
    now = replace(me, fields=mine)
    if before is not None and before.fields == mine and before.api_version == me.api_version:
        now = before  # the same again: not even its time changes, so that nothing is written
    meta = {**out["metadata"], "managedFields": write([*others, now])}
    return {**out, "metadata": meta}


def _first(live: Object, node: Node, me: Entry) -> list[Entry]:
    """Who owns an object that nobody applied by the server.  What kubectl applied by itself (it left a note) is its own, so
    that it can change over; kube-apiserver reads the same note, for the same manager only."""
    everything, mine = fieldsets.of(live, node), frozenset[fieldsets.Path]()
    if me.manager == CLIENT_SIDE and not me.subresource:
        mine = _noted(live, node) & everything
    born = live["metadata"].get("creationTimestamp", "")
    found = [Entry(FIRST, "Update", "", live["apiVersion"], born, everything - mine)]
    return [*found, replace(me, fields=mine)] if mine else found


def _noted(live: Object, node: Node) -> fieldsets.FieldSet:
    """What ``kubectl apply`` applied by itself: it left a note."""
    note = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if note is not None:
        with contextlib.suppress(ValueError, RecursionError):
            noted = json.loads(note)
            if isinstance(noted, dict):
                return fieldsets.of(noted, node)
    return frozenset()


def created(new: Object, node: Node, me: Entry) -> None:
    """Who makes an object without applying it owns all that it said, in place."""
    new["metadata"]["managedFields"] = write([replace(me, fields=fieldsets.of(new, node))])
    if not new["metadata"]["managedFields"]:
        del new["metadata"]["managedFields"]


def _differs(live: Object, out: Object, path: fieldsets.Path, node: Node) -> bool:
    old = fieldsets.find(live, path, node)
    if path[-1].startswith("f:"):
        return bool(old is ABSENT or old != fieldsets.find(out, path, node))
    return old is ABSENT  # an element with keys is there or not; its fields are compared one by one


def _cause(entry: Entry, field: str) -> errors.Cause:
    who = f'conflict with "{entry.manager}"'
    if entry.subresource:
        who += f' with subresource "{entry.subresource}"'
    if entry.operation == "Update":
        who += f" using {entry.api_version}" + (f" at {entry.time}" if entry.time else "")
    return errors.Cause(field, "FieldManagerConflict", who)


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
        items = {fieldsets.key_step(o, node): clone(o) for o in old}
        for item in new:
            step = fieldsets.key_step(item, node)
            items[step] = _merge(items.get(step), item, fieldsets.element(node))
        return list(items.values())
    if kind == "set" and isinstance(old, list):
        have = {fieldsets.text(o) for o in old}
        return clone(old) + [v for v in new if fieldsets.text(v) not in have]
    return clone(new)


def updated(new: Object, old: Object, node: Node, me: Entry) -> None:
    """After any other write: what it changed is its writer's now, in place.  Nothing to do where nobody applies."""
    entries = read(new["metadata"])
    if not entries:
        new["metadata"].pop("managedFields", None)
        return
    touched, removed = fieldsets.changed(old, new, node)
    if not touched and not removed:
        return
    before = next((e for e in entries if e.who == me.who), None)
    others = [replace(e, fields=e.fields - touched - removed) for e in entries if e.who != me.who]
    mine = ((before.fields if before else frozenset()) | touched) - removed
    now = before if before is not None and before.fields == mine else replace(me, fields=mine)
    new["metadata"]["managedFields"] = write([*others, now])
