"""What a pod on an edge node must say so that the cluster lets it live through a cut link.  Pure.

A cluster's kube-controller-manager taints a node ``unreachable:NoExecute`` when its Lease has run out or its Ready condition
is Unknown, and evicts each pod when the tolerationSeconds of its first matching toleration are over; an admission plugin
writes 300 there.  A node at the edge that is silent has most likely lost its link and not its life, so its pods must stay
for as long as its annotation ``skerry.io/autonomy`` says (none: for ever).  There are three ways to have that:

* *Renewing the Lease on behalf and leaving Ready True.*  It is a lie that ``kubectl get nodes`` repeats, and it lasts only
  while a bridge lives: an outage of the bridge for six minutes would evict every pod of every edge at once.
* *Taking the taint away again and again.*  A race with the controller, lost in the same outage.
* *Tolerations.*  The API server lets a bound pod's tolerationSeconds change, and tolerations be added.  They are in the pod:
  the protection outlives us, everybody can read it, and the cluster's controllers stay in charge of everything, honest
  conditions and finite autonomy included.  So it is done this way; the price is the right to patch pods.

The seconds that a pod came with count after the autonomy, as in the standalone API, and are kept in an annotation.
Source: kubernetes, pkg/controller/nodelifecycle, pkg/controller/tainteviction (GetMatchingTolerations: the first counts),
pkg/apis/core/validation (validateOnlyAddedTolerations).
"""

from __future__ import annotations

from typing import Any

from cloud.standalone.controllers import taints
from schemas import times

OWN = "skerry.io/own-toleration-seconds"  # annotation of a pod: what it had before
TAINT = {"key": taints.UNREACHABLE, "effect": "NoExecute"}
_NONE = "none"  # it tolerated nothing: out at once when its node's autonomy is over

Object = dict[str, Any]


def patch(pod: Object, autonomy_us: int | None) -> Object | None:
    """The JSON merge patch that a pod needs for its node's autonomy (None: for ever); None when it is as it should be."""
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    phase = (pod.get("status") or {}).get("phase")
    if meta.get("deletionTimestamp") or phase in ("Succeeded", "Failed"):
        return None
    found = spec.get("tolerations")
    tolerations = [t for t in found if isinstance(t, dict)] if isinstance(found, list) else []
    at = next((i for i, t in enumerate(tolerations) if taints.matches(t, TAINT)), None)
    known = (meta.get("annotations") or {}).get(OWN)
    had: Object | None = tolerations[at] if at is not None else None
    own = known or (_NONE if had is None else _seconds(had))
    if own is None:
        return None  # for ever by its own will: a daemon set's
    stays = None if autonomy_us is None else autonomy_us // times.US_PER_S + (int(own) if own.isdigit() else 0)
    now = {**(had or {**TAINT, "operator": "Exists"})}
    now.pop("tolerationSeconds", None)
    if stays is not None:
        now["tolerationSeconds"] = stays
    if now == had:
        return None
    changed = [*tolerations, now] if at is None else [*tolerations[:at], now, *tolerations[at + 1 :]]
    return {"metadata": {"annotations": {OWN: own}}, "spec": {"tolerations": changed}}


def _seconds(toleration: Object) -> str | None:
    seconds = toleration.get("tolerationSeconds")
    return None if seconds is None else str(max(0, int(seconds)))
