"""Which of the nodes that fit is best: an order, not a sum of weights, so that it can be read off and doesn't surprise.

First what the pod and the node ask for (PreferNoSchedule taints, then preferred affinity), then replicas apart from each
other, then room, then fewest pods, then the name.  kube-scheduler weighs the same things against each other; with the
few and small nodes of a site, replicas on two machines are worth more than even use.
"""

from __future__ import annotations

from cloud.standalone.controllers import base, load, resources, selecting, taints
from cloud.standalone.controllers.base import Object, at
from cloud.standalone.controllers.load import Load
from cloud.standalone.controllers.resources import Amounts

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
Rank = tuple[int, int, int, float, int]


def rank(pod: Object, asked: Amounts, node: Object, on_it: Load, liking: int) -> Rank:
    """The least is the best.  ``liking`` is what the pod's company adds (``company.Company.liking``)."""
    tolerations = base.maps(at(pod, "spec", "tolerations"))
    disliked = sum(t.get("effect") == "PreferNoSchedule" and not taints.tolerated(t, tolerations) for t in taints.of(node))
    family = load.family(pod)
    siblings = on_it.siblings[family] if family is not None else 0
    return disliked, -(liking + _preferred(pod, node)), siblings, _used(asked, node, on_it), len(on_it.pods)


def _preferred(pod: Object, node: Object) -> int:
    wishes = base.maps(at(pod, "spec", "affinity", "nodeAffinity", _PREFERRED))
    return sum(int(w.get("weight") or 0) for w in wishes if selecting.term_matches(at(w, "preference") or {}, node))


def _used(asked: Amounts, node: Object, on_it: Load) -> float:
    """How much of CPU and memory would be asked for with the pod: the mean of both parts."""
    has = resources.allocatable(node)
    parts = [(asked.get(k, 0) + on_it.asked.get(k, 0)) / has[k] for k in ("cpu", "memory") if has.get(k)]
    return sum(parts) / len(parts) if parts else 0.0
