"""Taint eviction: pods leave a node whose NoExecute taints they don't tolerate, or not for longer.

Disruption budgets have no say here (documentation, "Disruptions": involuntary).  The pod is told why by its condition
``DisruptionTarget``, then deleted with its own grace.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import base, events, taints
from cloud.standalone.controllers.base import NODES, PODS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    if seen is None:
        return
    if seen.key.resource == "nodes":
        if taints.driving(seen.object) and (old is None or taints.driving(seen.object) != taints.driving(old.object)):
            yield from (p.key for p in view.pods_on(seen.key.name))
    elif old is None or _face(seen.object) != _face(old.object):
        node = _node(view, seen.object)
        if node is not None and taints.driving(node.object):
            yield seen.key


def _face(pod: Object) -> tuple[object, ...]:
    return base.uid(pod), at(pod, "spec", "nodeName"), at(pod, "spec", "tolerations")


def _node(view: View, pod: Object) -> Seen | None:
    name = at(pod, "spec", "nodeName")
    return view.get(ObjectKey(*NODES, "", str(name))) if name else None


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    pod = view.get(key)
    node = _node(view, pod.object) if pod is not None else None
    if pod is None or node is None or base.deleting(pod.object) or base.finished(pod.object):
        return Plan()
    leaves = taints.leaves_us(pod.object, node.object, now_us)
    if leaves is None:
        return Plan()
    if leaves > now_us:
        return Plan([], leaves - now_us)
    message = f"Marking for deletion Pod {key.namespace}/{key.name}"
    said = events.tell(view, pod, "TaintManagerEviction", message, now_us, "taint-eviction-controller", kind="Normal")
    return Plan(
        [*said, *disrupt(pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now_us, node)]
    )


def disrupt(pod: Seen, reason: str, message: str, now_us: int, because: Seen) -> list[Write]:
    """Deletes a pod that is in the way, and says in its status why (documentation, "Pod disruption conditions")."""
    others = [c for c in base.maps(at(pod.object, "status", "conditions")) if c.get("type") != "DisruptionTarget"]
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": times.rfc3339(now_us),
    }
    status = {**(pod.object.get("status") or {}), "conditions": [*others, condition]}
    return [base.status(pod, {**pod.object, "status": status}, because), base.delete(pod, because)]


CONTROLLER = Controller("tainteviction", (PODS, NODES), concerns, reconcile)
