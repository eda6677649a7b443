"""What the pods on a node take of it together: summed once after a change, not once for every pod that looks for a node.

A view keeps one of these a node.  With 1,000 nodes of 20 pods each, a pod that waits then costs 1,000 looks and not 20,000
sums over containers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cloud.standalone.controllers import base, resources
from cloud.standalone.controllers.base import Object, at
from cloud.standalone.controllers.resources import Amounts

Port = tuple[int, str, str]  # (number, protocol, address of the host)
ANY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Load:
    """``siblings``: how many pods of each family (see ``family``); ``guarded``: the pods with required anti-affinity."""

    pods: tuple[Object, ...] = ()
    asked: Amounts = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    siblings: Counter[object] = field(default_factory=Counter)
    guarded: tuple[Object, ...] = ()


def of(pods: Iterable[Object]) -> Load:
    """``pods``: those that use the node, none that is finished."""
    there = tuple(pods)
    return Load(
        there,
        resources.total(resources.requested(p) for p in there),
        tuple(port for p in there for port in host_ports(p)),
        Counter(f for p in there if (f := family(p)) is not None),
        tuple(p for p in there if anti_affinity(p)),
    )


def family(pod: Object) -> object:
    """What makes two pods replicas of one thing: the same controller; without one, the same labels in one namespace."""
    owner = base.controller_of(pod)
    if owner is not None:
        return owner.get("uid")
    labels = base.labels(pod)
    return (base.meta(pod).get("namespace"), tuple(sorted(labels.items()))) if labels else None


def host_ports(pod: Object) -> list[Port]:
    """Init containers count only when they stay (sidecars)."""
    spec = at(pod, "spec") or {}
    stay = [c for c in base.maps(spec.get("initContainers")) if c.get("restartPolicy") == "Always"]
    return [
        (int(p["hostPort"]), str(p.get("protocol") or "TCP"), str(p.get("hostIP") or ANY_ADDRESS[0]))
        for c in [*base.maps(spec.get("containers")), *stay]
        for p in base.maps(c.get("ports"))
        if p.get("hostPort")
    ]


def anti_affinity(pod: Object) -> list[Object]:
    return base.maps(at(pod, "spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"))
