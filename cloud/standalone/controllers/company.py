"""Which pods a pod wants near it, and which it doesn't: required pod affinity and anti-affinity, and what is preferred.

Anti-affinity holds both ways: pods that are there keep away those they name.  What is preferred counts both ways too, and
so does the affinity of pods that are there (with the least weight).
Source: Kubernetes documentation, "Inter-pod affinity and anti-affinity"; kube-scheduler's InterPodAffinity, for the first
pod of a group, which may go anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cloud.standalone.controllers.census import Counted
from cloud.standalone.controllers.demand import Demand, Term
from cloud.standalone.controllers.fit import Refusal
from cloud.standalone.controllers.place import Place

NEAR = Refusal(("node(s) didn't match pod affinity rules",), final=True)
APART = Refusal(("node(s) didn't match pod anti-affinity rules",))
BARRED = Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",))
HARD_WEIGHT = 1  # of a pod that is there and requires the new one near it (kube-scheduler, hardPodAffinityWeight)

Domains = dict[str, int]  # value of a topology label -> pods


class Company:
    """What one pod's terms find on the nodes as they are now."""

    def __init__(self, census: Counted, want: Demand, places: Sequence[Place]) -> None:
        self._want = want
        labels = {p.name: p.labels for p in places} if (want.near or want.apart or want.likes) else {}
        barring = [(t.key, nodes) for t, nodes in census.guards.items() if census.picks(t.picker, want.pod)]
        liking = [(t, nodes) for t, nodes in census.likes.items() if census.picks(t.picker, want.pod)]
        if (barring or liking) and not labels:
            labels = {p.name: p.labels for p in places}
        self._near = [(t.key, _domains(t.key, census.count(t.picker), labels)) for t in want.near]
        if len(want.near) > 1:  # all terms have to mean the same pod
            self._near = self._all_near(census, want, labels)
        self._apart = [(t.key, _domains(t.key, census.count(t.picker), labels)) for t in want.apart]
        self._barred = [(key, _domains(key, nodes, labels)) for key, nodes in barring]
        self._likes = self._liked(census, want, liking, labels)
        # Nobody of the group is there yet: the first one may go where it likes, if it belongs to the group itself.
        self._first = not any(d for _, d in self._near) and all(census.picks(t.picker, want.pod) for t in want.near)
        self.any = bool(want.near or want.apart or self._barred or self._likes)

    @staticmethod
    def _all_near(census: Counted, want: Demand, labels: Mapping[str, Mapping[str, str]]) -> list[tuple[str, Domains]]:
        joint = want.near[0].picker.joined([t.picker for t in want.near[1:]])
        counts = census.count(joint)
        return [(t.key, _domains(t.key, counts, labels)) for t in want.near]

    @staticmethod
    def _liked(
        census: Counted,
        want: Demand,
        theirs: Sequence[tuple[Term, Mapping[str, int]]],
        labels: Mapping[str, Mapping[str, str]],
    ) -> list[tuple[str, Domains]]:
        """(topology label, value -> sum of weights)."""
        found: dict[str, Counter[str]] = {}
        mine = [(t, census.count(t.picker)) for t in want.likes]
        for term, nodes in [*mine, *theirs]:
            for value, n in _domains(term.key, nodes, labels).items():
                found.setdefault(term.key, Counter())[value] += n * (term.weight or HARD_WEIGHT)
        return [*found.items()]

    def refused(self, place: Place) -> Refusal | None:
        """As ``fit.refused``."""
        where = place.labels
        for key, domains in self._near:
            if key not in where or not (self._first or where[key] in domains):
                return NEAR
        if any(where.get(key) in domains for key, domains in self._apart):
            return APART
        if any(where.get(key) in domains for key, domains in self._barred):
            return BARRED
        return None

    def liking(self, place: Place) -> int:
        """Weights of what is preferred, once for every pod that is found; negative for what is not wanted near."""
        if not self._likes:
            return 0
        return sum(weights.get(place.labels.get(key, ""), 0) for key, weights in self._likes)


def _domains(key: str, nodes: Mapping[str, int], labels: Mapping[str, Mapping[str, str]]) -> Domains:
    """The pods of a count by topology domain; nodes without the label are in none."""
    out: Domains = {}
    for node, n in nodes.items():
        value = labels.get(node, {}).get(key)
        if value is not None:
            out[value] = out.get(value, 0) + n
    return out
