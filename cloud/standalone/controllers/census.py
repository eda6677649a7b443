"""How many pods of each kind are on each node, counted as pods come and go, not anew for every pod that looks for a node.

"Each kind" is what some pod's affinity or spread constraint picks.  Without this, a thousand replicas that keep apart from
each other would cost a million comparisons.
Pods on a node count until they are finished (they may be on their way out: documentation, "Inter-pod affinity").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from cloud.standalone.controllers.base import Object
from cloud.standalone.controllers.demand import Demand, Term
from cloud.standalone.controllers.selecting import Picker

PICKERS_MAX = 512  # counted at once; who was asked for longest ago is counted anew when it is asked for again

Labels = Callable[[str], Mapping[str, str] | None]  # of a namespace
Bound = Callable[[], Iterable[tuple[str, Demand]]]  # all pods that are on a node, with its name
NONE: Mapping[str, int] = {}


class Census:
    """``guards``: required anti-affinity of pods that are there; ``likes``: what they prefer; each with the nodes where
    such pods are, and how many."""

    def __init__(self, bound: Bound, labels: Labels) -> None:
        self._bound, self._labels = bound, labels
        self._counts: OrderedDict[Picker, dict[str, int]] = OrderedDict()
        self.guards: dict[Term, dict[str, int]] = {}
        self.likes: dict[Term, dict[str, int]] = {}

    def add(self, node: str, pod: Demand) -> None:
        self._move(node, pod, 1)

    def remove(self, node: str, pod: Demand) -> None:
        self._move(node, pod, -1)

    def _move(self, node: str, pod: Demand, by: int) -> None:
        for picker, counts in self._counts.items():
            if picker.picks(pod.pod, self._labels):
                _step(counts, node, by)
        for table, terms in ((self.guards, pod.apart), (self.likes, (*pod.likes, *pod.near))):
            for term in terms:
                counts = table.setdefault(term, {})
                _step(counts, node, by)
                if not counts:
                    del table[term]

    def count(self, picker: Picker) -> Mapping[str, int]:
        """node -> how many pods there."""
        counts = self._counts.get(picker)
        if counts is None:
            counts = self._counts[picker] = {}
            for node, pod in self._bound():
                if picker.picks(pod.pod, self._labels):
                    _step(counts, node, 1)
            if len(self._counts) > PICKERS_MAX:
                self._counts.popitem(last=False)
        self._counts.move_to_end(picker)
        return counts

    def namespaces_changed(self) -> None:
        """What is picked by labels of namespaces is counted anew."""
        for picker in [p for p in self._counts if p.by_namespace_labels]:
            del self._counts[picker]

    def picks(self, picker: Picker, pod: Object) -> bool:
        return picker.picks(pod, self._labels)


def _step(counts: dict[str, int], node: str, by: int) -> None:
    left = counts.get(node, 0) + by
    if left:
        counts[node] = left
    else:
        counts.pop(node, None)


class Without:
    """A census as it would be without some of the pods of one node."""

    def __init__(self, whole: Census, node: str, pods: Iterable[Demand]) -> None:
        self._whole, self._node, self._gone = whole, node, list(pods)

    def picks(self, picker: Picker, pod: Object) -> bool:
        return self._whole.picks(picker, pod)

    def count(self, picker: Picker) -> Mapping[str, int]:
        counts = dict(self._whole.count(picker))
        for pod in self._gone:
            if self._whole.picks(picker, pod.pod):
                _step(counts, self._node, -1)
        return counts

    @property
    def guards(self) -> dict[Term, dict[str, int]]:
        out = dict(self._whole.guards)
        for pod in self._gone:
            for term in pod.apart:
                counts = out[term] = dict(out.get(term, NONE))
                _step(counts, self._node, -1)
        return out

    @property
    def likes(self) -> dict[Term, dict[str, int]]:
        return self._whole.likes


Counted = Census | Without
