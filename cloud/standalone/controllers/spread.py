"""Topology spread constraints: as many here as there, within a skew.

Source: Kubernetes documentation, "Pod Topology Spread Constraints" (definition, nodeAffinityPolicy, nodeTaintsPolicy,
minDomains); kube-scheduler's PodTopologySpread.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.standalone.controllers import taints
from cloud.standalone.controllers.census import Counted
from cloud.standalone.controllers.demand import Demand, Spread
from cloud.standalone.controllers.fit import Refusal
from cloud.standalone.controllers.place import Place

SKEWED = Refusal(("node(s) didn't match pod topology spread constraints",))
UNLABELLED = Refusal(("node(s) didn't match pod topology spread constraints (missing required label)",), final=True)


class Spreading:
    """How many pods each constraint finds in each domain, as the nodes are now."""

    def __init__(self, census: Counted, want: Demand, places: Sequence[Place]) -> None:
        self._rules = [(s, _counts(s, census, want, places)) for s in want.spreads]
        self.any = bool(self._rules)

    def refused(self, place: Place) -> Refusal | None:
        """As ``fit.refused``."""
        for rule, counts in self._rules:
            if not rule.required:
                continue
            value = place.labels.get(rule.key)
            if value is None:
                return UNLABELLED
            least = 0 if len(counts) < rule.domains_min else min(counts.values(), default=0)
            if counts.get(value, 0) + rule.own - least > rule.skew_max:
                return SKEWED
        return None

    def crowd(self, place: Place) -> int:
        """Pods in the domains that the pod would rather keep even; one without the label is the last choice."""
        if not self._rules:
            return 0
        soft = [(r, c) for r, c in self._rules if not r.required]
        most = 1 + sum(max(c.values(), default=0) for _, c in soft)
        return sum(counts.get(place.labels.get(rule.key, ""), most) for rule, counts in soft)


def _counts(rule: Spread, census: Counted, want: Demand, places: Sequence[Place]) -> dict[str, int]:
    """Domain -> pods, on nodes that the pod could be on at all."""
    keys = [s.key for s in want.spreads if s.required == rule.required]
    found = census.count(rule.picker)
    out: dict[str, int] = {}
    for p in places:
        if any(k not in p.labels for k in keys):
            continue
        if rule.honours_affinity and not want.matches(p.node):
            continue
        if rule.honours_taints and not all(taints.tolerated(t, want.tolerations) for t in p.keeping):
            continue
        value = p.labels[rule.key]
        out[value] = out.get(value, 0) + found.get(p.name, 0)
    return out
