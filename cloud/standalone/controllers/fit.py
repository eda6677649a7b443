"""Whether a node may and can take a pod; when not, why, in kube-scheduler's words, because people search for them.

Source: Kubernetes documentation, "Assigning Pods to Nodes", "Taints and Tolerations", "Node-pressure and Resources"; the
order of the filters is kube-scheduler's: the first that refuses is the one that is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloud.standalone.controllers import taints
from cloud.standalone.controllers.demand import ANY_ADDRESS, Demand, Port
from cloud.standalone.controllers.place import Place

_CORDON = {"key": taints.UNSCHEDULABLE, "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """``final``: taking other pods away would not help."""

    why: tuple[str, ...]
    final: bool = False


def refused(want: Demand, place: Place) -> Refusal | None:
    """None: the node can take the pod, as far as only the two are concerned."""
    if place.unschedulable and not taints.tolerated(_CORDON, want.tolerations):
        return Refusal(("node(s) were unschedulable",), final=True)
    for taint in place.keeping:
        if not taints.tolerated(taint, want.tolerations):
            told = f"{{{taint.get('key')}: {taint.get('value') or ''}}}"
            return Refusal((f"node(s) had untolerated taint {told}",), final=True)
    if (want.selector or want.terms is not None) and not want.matches(place.node):
        return Refusal(("node(s) didn't match Pod's node affinity/selector",), final=True)
    expected = _expected(want, place) if place.nominated else ()
    if want.ports and any(_collide(p, q) for p in want.ports for q in _ports(place, expected)):
        return Refusal(("node(s) didn't have free ports for the requested pod ports",))
    return _too_little(want, place, expected)


def _expected(want: Demand, place: Place) -> list[Demand]:
    """Pods for which room is being made here, and that go first."""
    return [n for n in place.nominated if n.priority >= want.priority and n.key != want.key]


def _ports(place: Place, expected: Sequence[Demand]) -> Iterable[Port]:
    yield from place.ports
    for other in expected:
        yield from other.ports


def _too_little(want: Demand, place: Place, expected: Sequence[Demand]) -> Refusal | None:
    has, taken = place.has, place.asked
    pods_max = has.get("pods")
    full = pods_max is not None and 1000 * (len(place.pods) + len(expected) + 1) > pods_max
    short = []
    for name, n in want.short:
        free = has.get(name, 0) - taken.get(name, 0) - sum(o.asked.get(name, 0) for o in expected)
        if n > free:
            short.append(name)
    if not short and not full:
        return None
    why = (["Too many pods"] if full else []) + [f"Insufficient {name}" for name in short]
    return Refusal(tuple(why), final=any(n > has.get(name, 0) for name, n in want.short) or pods_max == 0)


def _collide(a: Port, b: Port) -> bool:
    return a[:2] == b[:2] and (a[2] == b[2] or a[2] in ANY_ADDRESS or b[2] in ANY_ADDRESS)
