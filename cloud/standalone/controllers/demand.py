"""What a pod wants of a node and of its neighbours, read out of its specification once.

A scheduler looks at a pod once for every node there is; what doesn't depend on the node is here.
Source: Kubernetes API reference, PodSpec; documentation, "Assigning Pods to Nodes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloud.standalone.controllers import base, resources, selecting
from cloud.standalone.controllers.base import Object, at
from cloud.standalone.controllers.resources import Amounts
from cloud.standalone.controllers.selecting import Picker

Port = tuple[int, str, str]  # (number, protocol, address of the host)
ANY_ADDRESS = ("0.0.0.0", "::")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Term:
    """Other pods, and within what: ``key`` is the topology label.  ``weight`` 0: required; negative: better apart."""

    picker: Picker
    key: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """A topology spread constraint.  ``own``: the pod itself counts, wherever it goes."""

    picker: Picker
    key: str
    skew_max: int
    required: bool
    own: bool
    domains_min: int
    honours_affinity: bool
    honours_taints: bool


@dataclass(frozen=True, slots=True)
class Demand:
    pod: Object
    namespace: str
    name: str
    labels: Mapping[str, str]
    asked: Amounts
    short: tuple[tuple[str, int], ...]  # of ``asked`` what is more than nothing, by name
    ports: tuple[Port, ...]
    tolerations: list[Object]
    selector: Mapping[str, str]
    terms: list[Object] | None  # of required node affinity, None when there is none
    wishes: tuple[tuple[int, Object], ...]  # (weight, NodeSelectorTerm)
    near: tuple[Term, ...]
    apart: tuple[Term, ...]
    likes: tuple[Term, ...]
    spreads: tuple[Spread, ...]
    family: object
    priority: int
    claims: tuple[str, ...]  # persistent volume claims, by name

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def picky(self) -> bool:
        """Whether other pods decide if this one finds a node."""
        return bool(self.near or self.apart or any(s.required for s in self.spreads))

    def matches(self, node: Object) -> bool:
        """``selecting.node_matches`` for what was read already."""
        if self.selector:
            have = base.labels(node)
            if any(have.get(k) != v for k, v in self.selector.items()):
                return False
        return self.terms is None or any(selecting.term_matches(t, node) for t in self.terms)


def of(pod: Object) -> Demand:
    spec, meta = at(pod, "spec") or {}, base.meta(pod)
    affinity = spec.get("affinity") or {}
    asked = resources.requested(pod)
    required = at(affinity, "nodeAffinity", _REQUIRED)
    wishes = base.maps(at(affinity, "nodeAffinity", _PREFERRED))
    return Demand(
        pod=pod,
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        labels=base.labels(pod),
        asked=asked,
        short=tuple((name, n) for name, n in sorted(asked.items()) if n),
        ports=tuple(_host_ports(spec)),
        tolerations=base.maps(spec.get("tolerations")),
        selector=spec.get("nodeSelector") or {},
        terms=None if required is None else base.maps(at(required, "nodeSelectorTerms")),
        wishes=tuple((int(w.get("weight") or 0), at(w, "preference") or {}) for w in wishes),
        near=_required(pod, "podAffinity"),
        apart=_required(pod, "podAntiAffinity"),
        likes=(*_preferred(pod, "podAffinity", 1), *_preferred(pod, "podAntiAffinity", -1)),
        spreads=tuple(_spread(pod, c) for c in base.maps(spec.get("topologySpreadConstraints"))),
        family=_family(pod),
        priority=int(spec.get("priority") or 0),
        claims=tuple(base.claims(pod)),
    )


def _family(pod: Object) -> object:
    """What makes two pods replicas of one thing: the same controller; without one, the same labels in one namespace."""
    owner = base.controller_of(pod)
    if owner is not None:
        return owner.get("uid")
    labels = base.labels(pod)
    return (base.meta(pod).get("namespace"), tuple(sorted(labels.items()))) if labels else None


def _host_ports(spec: Object) -> list[Port]:
    """Init containers count only when they stay (sidecars)."""
    stay = [c for c in base.maps(spec.get("initContainers")) if c.get("restartPolicy") == "Always"]
    return [
        (int(p["hostPort"]), str(p.get("protocol") or "TCP"), str(p.get("hostIP") or ANY_ADDRESS[0]))
        for c in [*base.maps(spec.get("containers")), *stay]
        for p in base.maps(c.get("ports"))
        if p.get("hostPort")
    ]


def _required(pod: Object, kind: str) -> tuple[Term, ...]:
    found = base.maps(at(pod, "spec", "affinity", kind, _REQUIRED))
    return tuple(Term(selecting.picker(t, pod), str(t.get("topologyKey"))) for t in found)


def _preferred(pod: Object, kind: str, sign: int) -> tuple[Term, ...]:
    found = [
        (int(w.get("weight") or 0), at(w, "podAffinityTerm") or {})
        for w in base.maps(at(pod, "spec", "affinity", kind, _PREFERRED))
    ]
    return tuple(Term(selecting.picker(t, pod), str(t.get("topologyKey")), sign * weight) for weight, t in found)


def _spread(pod: Object, constraint: Object) -> Spread:
    """Pods that are going count no more here (kube-scheduler's countPodsMatchSelector), those of other namespaces never."""
    about = {k: constraint.get(k) for k in ("labelSelector", "matchLabelKeys")}
    picker = selecting.picker(about, pod, leaving=False)
    return Spread(
        picker,
        str(constraint.get("topologyKey")),
        int(constraint.get("maxSkew") or 1),
        constraint.get("whenUnsatisfiable") != "ScheduleAnyway",
        selecting.selects(constraint.get("labelSelector"), base.labels(pod)),
        int(constraint.get("minDomains") or 1),
        constraint.get("nodeAffinityPolicy") != "Ignore",
        constraint.get("nodeTaintsPolicy") == "Honor",
    )
