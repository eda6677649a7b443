"""Who manages which fields of an object: ``metadata.managedFields``, and what a write other than an apply does to it.

Who creates an object over HTTP owns what it said ("Update"), and who changes it owns what it changed; both take it from
everybody else.  What our own components create carries no ownership (it would double its size in the log): the first apply
finds one manager, "before-first-apply", that owns all.
Source: API concepts, "Server-Side Apply"; apimachinery's managedfields.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bus.kube import typed
from bus.kube.catalog import Resource, Version
from bus.kube.patches import fieldsets
from bus.kube.patches.fieldsets import Comparison, FieldSet, Path
from bus.kube.storage import Object
from bus.kube.typed import Node

FIRST = "before-first-apply"
UPDATERS_MAX = 10  # more are folded into one, so that ownership can't outgrow the object
ANCIENT = "ancient-changes"


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
    def who(self) -> tuple[str, str, str, str]:
        """An updater is another one in another version; an applier isn't."""
        version = self.api_version if self.operation == "Update" else ""
        return self.manager, self.operation, self.subresource, version

    def named(self, version: str = "") -> str:
        """As conflicts name it; in another ``version`` than its own, if wanted."""
        said = f'"{self.manager}"'
        if self.subresource:
            said += f' with subresource "{self.subresource}"'
        return said + (f" using {version or self.api_version}" if self.operation == "Update" else "")


@dataclass(frozen=True, slots=True)
class Kind:
    """What ownership needs to know of a resource: the type to walk an object by, and which part a write is about."""

    node: Node
    custom: bool
    has_status: bool

    def whole(self, obj: Any) -> Any:
        return obj if self.custom else fieldsets.whole(obj, self.node)

    def may_own(self, path: Path, subresource: str) -> bool:
        if subresource == "status":
            return path[0] == "f:status" if self.custom else path[0] != "f:spec"
        return not (self.has_status and path[0] == "f:status")


def kind_of(resource: Resource, version: Version) -> Kind:
    """Of one served version."""
    has_status = "status" in version.subresources
    if not resource.custom:
        return Kind(version.schema, False, has_status)
    text = {"type": "string"}
    fields = {"apiVersion": text, "kind": text, "metadata": {"$ref": typed.META + "ObjectMeta"}}
    fields = {**version.schema.get("properties", {}), **fields}
    return Kind({**version.schema, "properties": fields}, True, has_status)


def valid(meta: Object) -> bool:
    """Whether ``managedFields`` can be read at all; what a client sends is not used otherwise."""
    return all(
        raw.get("operation") in ("Apply", "Update") and raw.get("apiVersion") and raw.get("fieldsType") == "FieldsV1"
        for raw in meta.get("managedFields", [])
    )


def read(meta: Object) -> list[Entry]:
    out = []
    for raw in meta.get("managedFields", []):
        fields = fieldsets.read(raw.get("fieldsV1"))
        who = (raw.get("manager", ""), raw.get("operation", "Update"), raw.get("subresource", ""))
        out.append(Entry(*who, raw.get("apiVersion", ""), raw.get("time", ""), fields))
    return out


def write(entries: list[Entry]) -> list[Object]:
    kept = [e for e in entries if e.fields]
    kept.sort(key=lambda e: (e.operation, e.time, e.manager, e.api_version, e.subresource))
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


def compare(old: Object, new: Object, kind: Kind, subresource: str) -> Comparison:
    """What a write changes that somebody may own."""
    if _plain(old) == _plain(new):
        return Comparison()
    found = fieldsets.compare(kind.whole(old), kind.whole(new), kind.node)
    return found.keep(lambda path: path not in fieldsets.STRIPPED and kind.may_own(path, subresource))


def _plain(obj: Object) -> Object:
    """Without what every write changes."""
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**obj, "metadata": meta}


def _nothing(obj: Object) -> Object:
    """What there is before an object is made."""
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {}}


def _all(obj: Object, kind: Kind, subresource: str) -> FieldSet:
    empty = _nothing(obj)
    if kind.custom:
        del empty["metadata"]
    found = fieldsets.compare(kind.whole(empty), kind.whole(obj), kind.node)
    found.keep(lambda path: path not in fieldsets.STRIPPED and kind.may_own(path, subresource))
    return frozenset(found.added | found.modified)


def before_first_apply(live: Object, kind: Kind, me: Entry) -> list[Entry]:
    """Who owns an object that nobody is known to have written."""
    return [Entry(FIRST, "Update", me.subresource, me.api_version, me.time, _all(live, kind, me.subresource))]


def created(new: Object, kind: Kind, me: Entry) -> None:
    """Who makes an object without applying it owns all that it said, in place."""
    new["metadata"]["managedFields"] = write([replace(me, fields=_all(new, kind, ""))])
    if not new["metadata"]["managedFields"]:
        del new["metadata"]["managedFields"]


def updated(new: Object, old: Object, kind: Kind, me: Entry) -> None:
    """After any other write: what it changed is its writer's now, in place.  Nothing to do where nobody owns anything."""
    given = new["metadata"].get("managedFields") == [{}]  # how to give it all up
    entries = read(old["metadata"] if me.subresource or not valid(new["metadata"]) else new["metadata"])
    if not entries or (given and not me.subresource):
        new["metadata"].pop("managedFields", None)
        return
    changed = compare(old, new, kind, me.subresource)
    mine = frozenset(changed.added | changed.modified)
    entries = [replace(e, fields=e.fields - mine - changed.removed) for e in entries]
    if mine:
        before = next((e.fields for e in entries if e.who == me.who), frozenset[Path]())
        entries = [*(e for e in entries if e.who != me.who), replace(me, fields=mine | before)]
    new["metadata"]["managedFields"] = write(_capped([e for e in entries if e.fields]))
    if not new["metadata"]["managedFields"]:
        del new["metadata"]["managedFields"]


def _capped(entries: list[Entry]) -> list[Entry]:
    """The oldest updaters of a version as one, until there are few enough."""
    updaters = sorted((e for e in entries if e.operation == "Update"), key=lambda e: (e.time, e.who))
    over = len(updaters) - UPDATERS_MAX
    folded: dict[str, list[Entry]] = {}
    for entry in updaters:
        group = folded.setdefault(entry.api_version, [])
        if over <= 0:
            break
        over -= bool(group)
        group.append(entry)
    out = list(entries)
    for version, group in folded.items():
        if len(group) > 1:
            fields = frozenset[Path]().union(*(e.fields for e in group))
            out = [e for e in out if e not in group]
            out.append(Entry(ANCIENT, "Update", "", version, group[-1].time, fields))
    return out
