"""What controllers look at: the API's own cache, and a few indexes over it.

``get`` and ``list`` read the cache itself, so a controller always sees its own writes.  The indexes (who owns whom, who runs
where) are folded from watches, and from the answers to writes before the watch tells of them.  What an index finds is read
from the cache again, so at worst it is a moment incomplete, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bus.kube.catalog import Catalog
from bus.kube.storage import Reader, Stored
from cloud.standalone.controllers import base, demand, place, resources, taints
from cloud.standalone.controllers.base import Kind, Object
from cloud.standalone.controllers.census import Census
from cloud.standalone.controllers.demand import Demand
from cloud.standalone.controllers.place import Place
from schemas.subjects import ObjectKey

Term = tuple[str, ...]  # one entry of an index: (which index, what)


class IndexedView:
    """Implements ``base.View``."""

    def __init__(self, reader: Reader, catalog: Catalog) -> None:
        self._reader, self._catalog = reader, catalog
        self._index: dict[Term, dict[ObjectKey, None]] = {}
        self._known: dict[ObjectKey, Stored] = {}
        self._nodes: dict[str, Stored] = {}
        self._bound: dict[ObjectKey, Demand] = {}  # pods on a node that are not finished
        self._places: dict[str, Place] = {}  # of nodes since whose last change somebody asked
        self._in_order: list[Place] | None = None
        self._census = Census(self._pods, self._labels)
        self._verdicts: dict[object, str] = {}

    # --- folding ---------------------------------------------------------------------------------------------------

    def fold(self, stored: Stored) -> Stored | None:
        """A state of an object; what was known before.  An older one than is known changes nothing."""
        old = self._known.get(stored.key)
        if old is not None and old.rev >= stored.rev:
            return old
        if old is not None:
            self._drop(old)
        self._known[stored.key] = stored
        for term in _terms(stored):
            self._index.setdefault(term, {})[stored.key] = None
            if term[0] in ("node", "nominated"):
                self._touch(term[1])
            if term[0] == "node":
                self._bound[stored.key] = demand.of(stored.object)
                self._census.add(term[1], self._bound[stored.key])
        if (stored.key.group, stored.key.resource) == base.NODES:
            self._nodes[stored.key.name] = stored
            self._touch(stored.key.name)
        self._judge(old, stored)
        return old

    def forget(self, key: ObjectKey, rev: int) -> Stored | None:
        """The object was deleted at ``rev``."""
        old = self._known.get(key)
        if old is None or old.rev > rev:
            return None  # made again meanwhile
        self._drop(self._known.pop(key))
        self._judge(old, None)
        return old

    def _drop(self, old: Stored) -> None:
        for term in _terms(old):
            keys = self._index[term]
            del keys[old.key]
            if not keys:
                del self._index[term]
            if term[0] in ("node", "nominated"):
                self._touch(term[1])
            if term[0] == "node":
                self._census.remove(term[1], self._bound.pop(old.key))
        if (old.key.group, old.key.resource) == base.NODES:
            del self._nodes[old.key.name]
            self._touch(old.key.name)

    def _touch(self, node: str) -> None:
        self._places.pop(node, None)
        self._in_order = None

    def _judge(self, old: Stored | None, new: Stored | None) -> None:
        """Verdicts stand while nothing gave room: a pod that came took some."""
        kind = ((old or new).key.group, (old or new).key.resource)  # type: ignore[union-attr]
        if kind == base.NAMESPACES:
            if (base.labels(old.object) if old else None) != (base.labels(new.object) if new else None):
                self._census.namespaces_changed()
            return
        face = _FACES.get(kind)
        if face is None or not self._verdicts:
            return
        before, now = face(old.object) if old is not None else None, face(new.object) if new is not None else None
        if before != now and not (kind == base.PODS and before is None):
            self._verdicts.clear()

    def replace(self, kind: Kind, listed: Sequence[Stored]) -> dict[ObjectKey, Stored]:
        """A whole list of a kind, whatever its revisions (a log that was restored begins at lower ones); what was known."""
        before = {k: s for k, s in self._known.items() if (k.group, k.resource) == kind}
        for key in before:
            self._drop(self._known.pop(key))
        for stored in listed:
            self.fold(stored)
        return before

    def _find(self, *term: str) -> Iterator[Stored]:
        for key in list(self._index.get(term, ())):
            stored = self._reader.get(key)
            if stored is not None and term in _terms(stored):
                yield stored

    # --- base.View -------------------------------------------------------------------------------------------------

    def get(self, key: ObjectKey) -> Stored | None:
        return self._reader.get(key)

    def list(self, kind: Kind, namespace: str | None = None) -> Sequence[Stored]:
        return self._reader.list(*kind, namespace)

    def owned(self, uid: str) -> Sequence[Stored]:
        return [s for s in self._find("owner", uid)] if uid else []

    def orphans(self, kind: Kind, namespace: str) -> Sequence[Stored]:
        return [*self._find("orphan", *kind, namespace)]

    def labelled(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Stored]:
        terms = [("label", *kind, namespace, k, v) for k, v in labels.items()]
        rarest = min(terms, key=lambda t: len(self._index.get(t, ())), default=None)
        found = self._find(*rarest) if rarest is not None else ()
        return [s for s in found if all(base.labels(s.object).get(k) == v for k, v in labels.items())]

    def pods_on(self, node: str) -> Sequence[Stored]:
        return [*self._find("node", node)]

    def place(self, node: str) -> Place:
        if node not in self._places:
            pods = [self._bound[k] for k in self._index.get(("node", node), ())]
            nominated = [demand.of(self._known[k].object) for k in self._index.get(("nominated", node), ())]
            self._places[node] = place.of(self._nodes[node].object, pods, nominated)
        return self._places[node]

    def places(self) -> Sequence[Place]:
        if self._in_order is None:
            self._in_order = [self.place(n) for n in sorted(self._nodes)]
        return self._in_order

    @property
    def census(self) -> Census:
        return self._census

    @property
    def verdicts(self) -> dict[object, str]:
        return self._verdicts

    def _pods(self) -> Iterator[tuple[str, Demand]]:
        yield from ((str(base.at(d.pod, "spec", "nodeName")), d) for d in self._bound.values())

    def _labels(self, namespace: str) -> Mapping[str, str] | None:
        found = self._reader.get(ObjectKey(*base.NAMESPACES, "", namespace))
        return base.labels(found.object) if found is not None else None

    def users(self, namespace: str, claim: str) -> Sequence[Stored]:
        return [*self._find("claim", namespace, claim)]

    def ended(self) -> Sequence[Stored]:
        return [*self._find("ended")]

    def unscheduled(self) -> Sequence[Stored]:
        return [*self._find("unscheduled")]

    def kinds(self) -> Sequence[Kind]:
        return [(r.group, r.resource) for r in self._catalog.all() if r.stored and r.home is None]

    def kind_of(self, api_version: str, kind: str) -> tuple[Kind, bool] | None:
        group = api_version.partition("/")[0] if "/" in api_version else ""
        found = self._catalog.find_kind(group, kind)
        return (found.place, found.namespaced) if found is not None else None


_CONTROLLED = frozenset({base.PODS, base.REPLICASETS, base.REVISIONS})


def _terms(stored: Stored) -> list[Term]:
    """Where an object is found."""
    obj, kind = stored.object, (stored.key.group, stored.key.resource)
    terms: list[Term] = [("owner", uid) for uid in dict.fromkeys(str(o.get("uid") or "") for o in base.owners(obj)) if uid]
    if kind in _CONTROLLED and base.controller_of(obj) is None:
        terms.append(("orphan", *kind, stored.key.namespace))
    if kind == base.PODS:
        terms += [("label", *kind, stored.key.namespace, k, v) for k, v in base.labels(obj).items()]
        node = str(base.at(obj, "spec", "nodeName") or "")
        if base.finished(obj):
            terms.append(("ended",))
        else:
            terms += [("claim", stored.key.namespace, name) for name in dict.fromkeys(base.claims(obj))]
        if not node:
            terms.append(("unscheduled",))
            if nominated := str(base.at(obj, "status", "nominatedNodeName") or ""):
                terms.append(("nominated", nominated))
        elif not base.finished(obj):
            terms.append(("node", node))
    return terms


def _node_face(node: Object) -> object:
    return base.labels(node), base.at(node, "spec"), resources.allocatable(node), taints.ready(node)


def _pod_face(pod: Object) -> object:
    """Where it takes room, or will."""
    node = base.at(pod, "spec", "nodeName") or base.at(pod, "status", "nominatedNodeName")
    return (node, base.labels(pod)) if node and not base.finished(pod) else None


# What of an object a pod that waits could wait for.
_FACES: dict[Kind, Callable[[Object], object]] = {
    base.NODES: _node_face,
    base.PODS: _pod_face,
    base.CLAIMS: lambda o: (base.at(o, "spec"), base.notes(o), base.at(o, "status", "phase")),
    base.VOLUMES: lambda o: (base.at(o, "spec"), base.at(o, "status", "phase")),
    base.CLASSES: lambda o: o,
}
