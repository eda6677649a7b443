"""Which resources are served: the built-in kinds, and those that CustomResourceDefinitions add.

There is no state to keep in step: the definitions are read from the storage at every look, and only what changed since the
last look is built again.  So several servers over one log agree, and a node's API serves whatever its replica knows.
KubeEdge's kinds are definitions too, shipped as data; a stored definition of the same name wins.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from bus.kube import typed
from bus.kube.storage import Object, Reader
from schemas import kinds

CRD_GROUP, CRD_RESOURCE = "apiextensions.k8s.io", "customresourcedefinitions"
GROUP_ORDER = ("", "apps", "events.k8s.io", "batch", "coordination.k8s.io", "discovery.k8s.io", "apiextensions.k8s.io")


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of a definition; ``path`` is its JSONPath."""

    name: str
    type: str
    path: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """One served version.  ``schema`` is a structural schema (custom) or a type node (built in)."""

    name: str
    schema: dict[str, Any]
    subresources: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    scale: dict[str, str] | None = None
    selectable: tuple[str, ...] = ()
    deprecated: str = ""  # what who still uses it is told


@dataclass(frozen=True)
class Resource:
    group: str
    resource: str
    kind: str
    list_kind: str
    singular: str
    namespaced: bool
    short: tuple[str, ...]
    categories: tuple[str, ...]
    versions: dict[str, Version]
    storage_version: str
    custom: bool
    preferred: list[str] = field(default_factory=list)
    read_only: bool = False  # made when it is asked for: it can be read and listed, not watched
    stored: bool = True  # False: asked by create and answered, never kept (reviews)
    conversion: dict[str, Any] | None = None  # the webhook that converts between its versions; None: only the name differs
    home: tuple[str, str] | None = None  # (group, resource) whose objects these are, under another name

    @property
    def place(self) -> tuple[str, str]:
        """The (group, resource) under which the objects are stored."""
        return self.home or (self.group, self.resource)

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    def has(self, subresource: str) -> bool:
        """Whether the storage version has a subresource."""
        return subresource in self.versions[self.storage_version].subresources


def _of_kind(kind: kinds.Kind) -> Resource:
    versions = {}
    for name in kind.versions:
        node = typed.types().of_kind(kind.group, name, kind.kind)
        assert node is not None, f"no type data for {kind.kind} {name}: run python -m ops.kube_data types"
        versions[name] = Version(name, node, kind.subresources)
    return Resource(
        kind.group,
        kind.resource,
        kind.kind,
        kind.kind + "List",
        kind.singular or kind.kind.lower(),
        kind.namespaced,
        kind.short,
        kind.categories,
        versions,
        kind.version,
        False,
        sorted(versions, key=version_rank),
        stored=kind.stored,
        home=kind.home,
    )


@functools.cache
def builtin() -> dict[tuple[str, str], Resource]:
    custom = {(c["spec"]["group"], c["spec"]["names"]["plural"]) for c in shipped_definitions()}
    return {(k.group, k.resource): _of_kind(k) for k in kinds.BUILTIN if (k.group, k.resource) not in custom}


@functools.cache
def _groups() -> frozenset[str]:
    return frozenset(group for group, _ in builtin())


def is_builtin(group: str) -> bool:
    """Whether a group is served without any definition."""
    return group in _groups()


@functools.cache
def shipped_definitions() -> list[Object]:
    """KubeEdge's resources (devices, node groups, rules, jobs ...) as CustomResourceDefinition objects.  Shared: copy before
    use."""
    raw: list[Object] = json.loads(resources.files("schemas").joinpath("data/kubeedge.json").read_text())
    return raw


@functools.cache
def _shipped() -> dict[tuple[str, str], Resource]:
    found = [of_definition(d) for d in shipped_definitions()]
    return {(r.group, r.resource): r for r in found}


def _established(crd: Object) -> bool:
    """Whether it is served: a definition whose names are another's is kept, and waits."""
    listed = (crd.get("status") or {}).get("conditions") or []
    return all(c.get("status") == "True" for c in listed if c.get("type") == "Established")


def version_rank(name: str) -> tuple[int, int, int, str]:
    """Order of preference: GA before beta before alpha, newer first (Kubernetes "Versions in CustomResourceDefinitions")."""
    m = re.fullmatch(r"v([0-9]{1,9})(?:(alpha|beta)([0-9]{1,9}))?", name)
    if m is None:
        return (3, 0, 0, name)
    stage = {None: 0, "beta": 1, "alpha": 2}[m[2]]
    return (stage, -int(m[1]), -int(m[3] or 0), name)


def _deprecation(spec: Object, version: Object) -> str:
    said: str = (
        version.get("deprecationWarning") or f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"
    )
    return said


def of_definition(crd: Object) -> Resource:
    """The resource that a (valid) CustomResourceDefinition describes."""
    spec = crd["spec"]
    names = spec["names"]
    versions, storage = {}, ""
    for v in spec["versions"]:
        if v.get("storage"):
            storage = v["name"]
        subs = v.get("subresources") or {}
        columns = tuple(
            Column(c["name"], c["type"], c["jsonPath"], c.get("format", ""), c.get("description", ""), c.get("priority", 0))
            for c in v.get("additionalPrinterColumns") or ()
        )
        versions[v["name"]] = Version(
            v["name"],
            (v.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"},
            tuple(s for s in ("status", "scale") if s in subs),
            columns,
            subs.get("scale"),
            tuple(f["jsonPath"].lstrip(".") for f in v.get("selectableFields") or ()),
            _deprecation(spec, v) if v.get("deprecated") else "",
        )
    served = [v["name"] for v in spec["versions"] if v.get("served")]
    return Resource(
        spec["group"],
        names["plural"],
        names["kind"],
        names.get("listKind") or names["kind"] + "List",
        names.get("singular") or names["kind"].lower(),
        spec["scope"] == "Namespaced",
        tuple(names.get("shortNames") or ()),
        tuple(names.get("categories") or ()),
        versions,
        storage,
        True,
        sorted(served, key=version_rank),
        conversion=(spec.get("conversion") or {}).get("webhook"),
    )


class Catalog:
    """What a reader's content says is served."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: tuple[tuple[str, int], ...] | None = None
        self._built: dict[str, tuple[int, Resource]] = {}
        self._table: dict[tuple[str, str], Resource] = {}

    def _refresh(self) -> dict[tuple[str, str], Resource]:
        stored = self._reader.list(CRD_GROUP, CRD_RESOURCE)
        now = tuple((s.key.name, s.rev) for s in stored)
        if now != self._seen:
            built = {}
            for s in stored:
                known = self._built.get(s.key.name)
                built[s.key.name] = known if known and known[0] == s.rev else (s.rev, of_definition(s.object))
            waiting = {s.key.name for s in stored if not _established(s.object)}
            custom = {(r.group, r.resource): r for name, (_, r) in built.items() if name not in waiting}
            self._built, self._seen = built, now
            self._table = {**_shipped(), **custom, **builtin()}
        return self._table

    def find(self, group: str, resource: str) -> Resource | None:
        return self._refresh().get((group, resource))

    def find_kind(self, group: str, kind: str) -> Resource | None:
        return next((r for r in self._refresh().values() if (r.group, r.kind) == (group, kind)), None)

    def all(self) -> list[Resource]:
        """In the order of discovery: groups by importance, then resources by name."""
        rank = {g: i for i, g in enumerate(GROUP_ORDER)}
        return sorted(self._refresh().values(), key=lambda r: (rank.get(r.group, len(rank)), r.group, r.resource))

    def state(self) -> object:
        """Compares unequal when anything served has changed, for those who cache what they made of it."""
        self._refresh()
        return self._seen
