"""Taints and tolerations: what keeps pods away from a node (NoSchedule), and what drives them off (NoExecute), and when.

Source: Kubernetes documentation, "Taints and Tolerations", "Well-Known Labels, Annotations and Taints".
"""

from __future__ import annotations

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Object, at
from schemas import times

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

# What the API adds to every pod that says nothing itself (admission DefaultTolerationSeconds).  It is applied here too: a
# pod that came in another way must not be evicted the second its node says NotReady.
DEFAULT_STAY_US = 300 * times.US_PER_S
_DEFAULTED = (NOT_READY, UNREACHABLE)


def ready(node: Object) -> bool:
    return (base.condition(node, "Ready") or {}).get("status") == "True"


def of(node: Object) -> list[Object]:
    return base.maps(at(node, "spec", "taints"))


def driving(node: Object) -> list[Object]:
    """Its NoExecute taints."""
    return [t for t in of(node) if t.get("effect") == "NoExecute"]


def matches(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration.get("effect") != taint.get("effect"):
        return False
    if toleration.get("operator") == "Exists":
        return not toleration.get("key") or toleration.get("key") == taint.get("key")
    same = toleration.get("key") == taint.get("key")
    return same and (toleration.get("value") or "") == (taint.get("value") or "")


def tolerated(taint: Object, tolerations: list[Object]) -> bool:
    return any(matches(t, taint) for t in tolerations)


def leaves_us(pod: Object, node: Object, now_us: int) -> int | None:
    """When the node's NoExecute taints drive the pod off, microseconds since 1970; None: never, as they are.

    A taint counts from its ``timeAdded``; one without it from now (its stamp is on the way: node_lifecycle)."""
    tolerations = base.maps(at(pod, "spec", "tolerations"))
    found: list[int] = []
    for taint in driving(node):
        since = times.micros(taint.get("timeAdded"))
        stays = _stays_us(taint, tolerations)
        if stays is not None:
            found.append((now_us if since is None else since) + stays)
    return min(found, default=None)


def _stays_us(taint: Object, tolerations: list[Object]) -> int | None:
    """How long a pod may stay under a taint, None for ever."""
    used = next((t for t in tolerations if matches(t, taint)), None)
    if used is None:
        return DEFAULT_STAY_US if taint.get("key") in _DEFAULTED else 0
    seconds = used.get("tolerationSeconds")
    return None if seconds is None else max(0, int(seconds)) * times.US_PER_S
