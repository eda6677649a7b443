"""Which of the nodes that fit is best: an order, not a sum of weights, so that it can be read off and doesn't surprise.

First what the pod and the node ask for (PreferNoSchedule taints, then preferred affinity, then spread), then replicas apart
from each other, then room, then fewest pods, then the name.  kube-scheduler weighs the same things against each other; with
the few and small nodes of a site, replicas on two machines are worth more than even use.
"""

from __future__ import annotations

from cloud.standalone.controllers import selecting, taints
from cloud.standalone.controllers.demand import Demand
from cloud.standalone.controllers.place import Place

Rank = tuple[int, int, int, int, float, int, str]


def rank(want: Demand, place: Place, liking: int, crowd: int) -> Rank:
    """The least is best.  ``liking``: what the pod's company adds; ``crowd``: how many it should spread from."""
    disliked = sum(not taints.tolerated(t, want.tolerations) for t in place.disliked) if place.disliked else 0
    preferred = sum(w for w, term in want.wishes if selecting.term_matches(term, place.node)) if want.wishes else 0
    siblings = place.siblings.get(want.family, 0) if want.family is not None else 0
    return disliked, -(liking + preferred), crowd, siblings, _used(want, place), len(place.pods), place.name


def _used(want: Demand, place: Place) -> float:
    """How much of CPU and memory would be asked for with the pod: the mean of both parts."""
    total, parts = 0.0, 0
    for name in ("cpu", "memory"):
        has = place.has.get(name)
        if has:
            total += (want.asked.get(name, 0) + place.asked.get(name, 0)) / has
            parts += 1
    return total / parts if parts else 0.0
