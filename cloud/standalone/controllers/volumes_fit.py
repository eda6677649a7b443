"""Whether a pod's persistent volumes can be on a node, and what has to be said so that they will be.

Source: Kubernetes documentation, "Storage Classes" (volume binding mode), "Persistent Volumes" (node affinity);
kube-scheduler's VolumeBinding for the order and the words.
"""

from __future__ import annotations

from cloud.core.writes import Write
from cloud.standalone.controllers import base, binding
from cloud.standalone.controllers.base import CLAIMS, Object, Seen, View, at
from cloud.standalone.controllers.demand import Demand
from cloud.standalone.controllers.fit import Refusal
from cloud.standalone.controllers.place import Place
from schemas.subjects import ObjectKey

ELSEWHERE = Refusal(("node(s) had volume node affinity conflict",), final=True)
NONE_THERE = Refusal(("node(s) didn't find available persistent volumes to bind",), final=True)
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


class Storage:
    """A pod's claims as they are now.  ``missing``: what keeps it from every node."""

    def __init__(self, view: View, want: Demand) -> None:
        self.missing = ""
        self._volumes: list[Object] = []  # of claims that are bound
        self._open: list[tuple[Seen, list[Object] | None]] = []  # with volumes to choose from, None: one will be made
        for name in want.claims:
            claim = view.get(ObjectKey(*CLAIMS, want.namespace, name))
            if claim is None:
                self.missing = self.missing or f'persistentvolumeclaim "{name}" not found'
            elif base.deleting(claim.object):
                self.missing = self.missing or f'persistentvolumeclaim "{name}" is being deleted'
            else:
                self._look(view, claim)
        self.any = bool(want.claims)

    def _look(self, view: View, claim: Seen) -> None:
        volume = binding.bound_to(view, claim.object)
        if volume is not None:
            self._volumes.append(volume.object)
        elif at(claim.object, "spec", "volumeName") or not binding.waits_for_pod(view, claim.object):
            self.missing = self.missing or UNBOUND
        else:
            made = bool(binding.provisioner_of(view, claim.object))
            self._open.append((claim, None if made else [v.object for v in binding.candidates(view, claim.object)]))

    def refused(self, place: Place) -> Refusal | None:
        """As ``fit.refused``."""
        if not all(binding.on(v, place.node) for v in self._volumes):
            return ELSEWHERE
        for _, choice in self._open:
            if choice is not None and not any(binding.on(v, place.node) for v in choice):
                return NONE_THERE
        return None

    @property
    def chosen(self) -> str:
        """The node that was chosen before, while its volumes are on the way; "" when there is none, or several."""
        said = {base.notes(c.object).get(binding.SELECTED, "") for c, _ in self._open}
        return next(iter(said)) if len(said) == 1 else ""

    def choose(self, node: str, pod: Seen) -> list[Write]:
        """What tells the claims where they will be."""
        return [
            base.update(
                claim, base.with_meta(claim.object, annotations={**base.notes(claim.object), binding.SELECTED: node}), pod
            )
            for claim, _ in self._open
            if base.notes(claim.object).get(binding.SELECTED) != node
        ]

    @property
    def open(self) -> bool:
        """Whether a volume is still to be bound."""
        return bool(self._open)
