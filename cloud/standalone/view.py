"""What controllers look at: the API's own cache, and a few indexes over it.

``get`` and ``list`` read the cache itself, so a controller always sees its own writes.  The indexes (who owns whom, who runs
where) are folded from watches, and from the answers to writes before the watch tells of them.  What an index finds is read
from the cache again, so at worst it is a moment incomplete, never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bus.kube.catalog import Catalog
from bus.kube.storage import Reader, Stored
from cloud.standalone.controllers import base
from cloud.standalone.controllers import load as loads
from cloud.standalone.controllers.base import Kind
from schemas.subjects import ObjectKey

Term = tuple[str, ...]  # one entry of an index: (which index, what)


class IndexedView:
    """Implements ``base.View``."""

    def __init__(self, reader: Reader, catalog: Catalog) -> None:
        self._reader, self._catalog = reader, catalog
        self._index: dict[Term, dict[ObjectKey, None]] = {}
        self._known: dict[ObjectKey, Stored] = {}
        self._loads: dict[str, loads.Load] = {}  # of nodes since whose last change somebody asked

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
            self._touch(term)
        return old

    def forget(self, key: ObjectKey, rev: int) -> Stored | None:
        """The object was deleted at ``rev``."""
        old = self._known.get(key)
        if old is None or old.rev > rev:
            return None  # made again meanwhile
        self._drop(self._known.pop(key))
        return old

    def _drop(self, old: Stored) -> None:
        for term in _terms(old):
            keys = self._index[term]
            del keys[old.key]
            if not keys:
                del self._index[term]
            self._touch(term)

    def _touch(self, term: Term) -> None:
        if term[0] == "node":
            self._loads.pop(term[1], None)

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

    def load(self, node: str) -> loads.Load:
        if node not in self._loads:
            self._loads[node] = loads.of(p.object for p in self.pods_on(node))
        return self._loads[node]

    def unscheduled(self) -> Sequence[Stored]:
        return [*self._find("unscheduled")]

    def kinds(self) -> Sequence[Kind]:
        return [(r.group, r.resource) for r in self._catalog.all()]

    def kind_of(self, api_version: str, kind: str) -> tuple[Kind, bool] | None:
        group = api_version.partition("/")[0] if "/" in api_version else ""
        found = self._catalog.find_kind(group, kind)
        return ((found.group, found.resource), found.namespaced) if found is not None else None


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
        if not node:
            terms.append(("unscheduled",))
        elif not base.finished(obj):
            terms.append(("node", node))
    return terms
