"""Which pods a pod wants near it, and which it doesn't: required pod affinity and anti-affinity, and what is preferred.

Looked at only for pods that have such terms, and for pods on nodes that guard themselves (anti-affinity holds both ways).
Source: Kubernetes documentation, "Inter-pod affinity and anti-affinity"; kube-scheduler's InterPodAffinity for the first
pod of a group, which may go anywhere.  Not looked at: what running pods would *prefer* about the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cloud.standalone.controllers import base, load, selecting
from cloud.standalone.controllers.base import NAMESPACES, Object, Seen, View, at
from cloud.standalone.controllers.load import Load
from schemas.subjects import ObjectKey

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Domain = tuple[int, str]  # (which term, value of its topology label)


class Company:
    """What one pod's terms find on the nodes as they are now."""

    def __init__(self, view: View, pod: Object, nodes: Sequence[Seen], loads: Mapping[str, Load]) -> None:
        self._near = _terms(pod, "podAffinity")
        self._apart = load.anti_affinity(pod)
        self._wishes = _wishes(pod)
        self._found: Counter[Domain] = Counter()
        self._hindered: Counter[Domain] = Counter()
        self._wished: Counter[Domain] = Counter()
        self._barred: dict[tuple[str, str], None] = {}
        for node in nodes:
            on_it, where = loads[node.key.name], base.labels(node.object)
            for other in on_it.guarded:
                for term in load.anti_affinity(other):
                    key = str(term.get("topologyKey"))
                    if key in where and _picks(view, term, other, pod):
                        self._barred[key, where[key]] = None
            if self._near or self._apart or self._wishes:
                self._count(view, pod, on_it, where)
        # Nobody of the group is there yet: the first one may go where it likes, if it belongs to the group itself.
        self._first = not self._found and all(_picks(view, t, pod, pod) for t in self._near)

    def _count(self, view: View, pod: Object, on_it: Load, where: Mapping[str, str]) -> None:
        for other in on_it.pods:
            if self._near and all(_picks(view, t, pod, other) for t in self._near):
                self._found.update(_domains(self._near, where))
            self._hindered.update(_domains(self._apart, where, [_picks(view, t, pod, other) for t in self._apart]))
            wishes = [term for _, term in self._wishes]
            self._wished.update(_domains(wishes, where, [_picks(view, t, pod, other) for t in wishes]))

    def refusals(self, node: Object) -> list[str]:
        """As ``fit.refusals``."""
        where = base.labels(node)
        domains = _domains(self._near, where)
        if len(domains) < len(self._near) or not (self._first or all(d in self._found for d in domains)):
            return ["node(s) didn't match pod affinity rules"]
        if any(d in self._hindered for d in _domains(self._apart, where)):
            return ["node(s) didn't match pod anti-affinity rules"]
        if any(where.get(key) == value for key, value in self._barred):
            return ["node(s) didn't satisfy existing pods anti-affinity rules"]
        return []

    def liking(self, node: Object) -> int:
        """Weights of what is preferred, once for every pod that is found; negative for what is not wanted near."""
        where = base.labels(node)
        domains = _domains([term for _, term in self._wishes], where)
        return sum(self._wishes[d[0]][0] * self._wished[d] for d in domains)


def picky(pod: Object) -> bool:
    """Whether other pods decide if this one finds a node."""
    return bool(_terms(pod, "podAffinity") or load.anti_affinity(pod))


def _terms(pod: Object, kind: str) -> list[Object]:
    return base.maps(at(pod, "spec", "affinity", kind, _REQUIRED))


def _wishes(pod: Object) -> list[tuple[int, Object]]:
    """(weight, term); what shall be apart weighs negative."""
    out: list[tuple[int, Object]] = []
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for w in base.maps(at(pod, "spec", "affinity", kind, _PREFERRED)):
            out.append((sign * int(w.get("weight") or 0), at(w, "podAffinityTerm") or {}))
    return out


def _domains(terms: Sequence[Object], where: Mapping[str, str], wanted: Sequence[bool] | None = None) -> list[Domain]:
    """The topology domains of a node, for each term (that is ``wanted``) whose label it has."""
    keys = [str(t.get("topologyKey")) for t in terms]
    return [(i, where[k]) for i, k in enumerate(keys) if k in where and (wanted is None or wanted[i])]


def _picks(view: View, term: Object, of: Object, other: Object) -> bool:
    """Whether a term of one pod means another pod."""
    mine, theirs = base.labels(of), base.labels(other)
    if not selecting.selects(term.get("labelSelector"), theirs) or not _in_reach(view, term, of, other):
        return False
    same = [k for k in term.get("matchLabelKeys") or [] if k in mine]
    differ = [k for k in term.get("mismatchLabelKeys") or [] if k in mine]
    return all(theirs.get(k) == mine[k] for k in same) and all(theirs.get(k) != mine[k] for k in differ)


def _in_reach(view: View, term: Object, of: Object, other: Object) -> bool:
    """Namespaces by name, by label, or by default the pod's own."""
    named, selector = term.get("namespaces") or [], term.get("namespaceSelector")
    space = base.meta(other).get("namespace")
    if not named and selector is None:
        return bool(space == base.meta(of).get("namespace"))
    if space in named:
        return True
    found = view.get(ObjectKey(*NAMESPACES, "", str(space))) if selector is not None else None
    return found is not None and selecting.selects(selector, base.labels(found.object))
