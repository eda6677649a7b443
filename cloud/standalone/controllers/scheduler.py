"""Scheduler: gives every pod that has no node one that may and can take it, and says why when there is none.

Filters: readiness, ``unschedulable``, taints, ``nodeSelector`` and required node affinity, host ports, resources.  Among
what is left: no PreferNoSchedule taint, fewest pods of the same owner, fewest pods.  What pods prefer, pod affinity and
topology spread are not looked at.  Source: Kubernetes documentation, "Assigning Pods to Nodes", "Taints and Tolerations";
the wording of reasons is kube-scheduler's, because people search for it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import base, resources, selecting
from cloud.standalone.controllers.base import EVENTS, NODES, PODS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

NAME = "default-scheduler"
NOT_READY = "node.kubernetes.io/not-ready"


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """A pod that waits; and all that wait, when a node changed or a pod made room."""
    s = seen or old
    assert s is not None
    if s.key.resource == "pods" and seen is not None and not base.finished(seen.object):
        if _waits(seen.object):
            yield seen.key
        return
    if s.key.resource == "nodes" and seen is not None and old is not None and _face(seen.object) == _face(old.object):
        return
    yield from (p.key for p in view.unscheduled() if _waits(p.object))


def _face(node: Object) -> tuple[object, ...]:
    """What of a node a pod could wait for."""
    allocatable = at(node, "status", "allocatable") or at(node, "status", "capacity")
    return base.labels(node), at(node, "spec"), allocatable, _ready(node)


def _waits(pod: Object) -> bool:
    spec = at(pod, "spec") or {}
    mine = (spec.get("schedulerName") or NAME) == NAME and not spec.get("schedulingGates")
    return mine and not spec.get("nodeName") and not base.deleting(pod) and not base.finished(pod)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    pod = view.get(key)
    if pod is None or not _waits(pod.object):
        return Plan()
    nodes = view.list(NODES)
    reasons: Counter[str] = Counter()
    fits: list[tuple[tuple[object, ...], str]] = []
    for node in nodes:
        on_it = [p.object for p in view.pods_on(node.key.name)]
        why = list(dict.fromkeys(refusals(pod.object, node.object, on_it)))
        if why:
            reasons.update(why)
        else:
            fits.append((_rank(pod.object, node.object, on_it), node.key.name))
    if fits:
        return Plan([_bind(pod, min(fits)[1])])
    return Plan(_say(view, pod, _message(len(nodes), reasons), now_us))


CONTROLLER = Controller("scheduler", (PODS, NODES), concerns, reconcile)


# --- filters ---------------------------------------------------------------------------------------------------------


def refusals(pod: Object, node: Object, on_it: list[Object]) -> Iterable[str]:
    """Why a node can't take a pod; nothing when it can.  As kube-scheduler does, the first kind of reason is told."""
    tolerations = base.maps(at(pod, "spec", "tolerations"))
    if at(node, "spec", "unschedulable") and not _tolerated(
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, tolerations
    ):
        return ["node(s) were unschedulable"]
    for taint in _taints(node):
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, tolerations):
            return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value') or ''}}}"]
    if not selecting.node_matches(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    taken = {p for other in on_it for p in _host_ports(other)}
    if any(_collides(p, q) for p in _host_ports(pod) for q in taken):
        return ["node(s) didn't have free ports for the requested pod ports"]
    return _too_little(pod, node, on_it)


def _too_little(pod: Object, node: Object, on_it: list[Object]) -> list[str]:
    left = resources.free(node, on_it)
    why = ["Too many pods"] if left.get("pods", 1) < 1 else []
    asked = resources.requested(pod)
    return why + [f"Insufficient {name}" for name, n in sorted(asked.items()) if n and n > left.get(name, 0)]


def _taints(node: Object) -> list[Object]:
    """A node that isn't ready counts as tainted even before its taint is written."""
    taints = base.maps(at(node, "spec", "taints"))
    marked = any(str(t.get("key")).startswith("node.kubernetes.io/") for t in taints)
    return taints if _ready(node) or marked else [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]


def _ready(node: Object) -> bool:
    return (base.condition(node, "Ready") or {}).get("status") == "True"


def _tolerated(taint: Object, tolerations: list[Object]) -> bool:
    for t in tolerations:
        if t.get("effect") and t.get("effect") != taint.get("effect"):
            continue
        if t.get("operator") == "Exists":
            if not t.get("key") or t.get("key") == taint.get("key"):
                return True
        elif t.get("key") == taint.get("key") and (t.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def _host_ports(pod: Object) -> list[tuple[int, str, str]]:
    out = []
    for c in base.maps(at(pod, "spec", "containers")):
        for p in base.maps(c.get("ports")):
            if p.get("hostPort"):
                out.append((int(p["hostPort"]), str(p.get("protocol") or "TCP"), str(p.get("hostIP") or "0.0.0.0")))
    return out


def _collides(a: tuple[int, str, str], b: tuple[int, str, str]) -> bool:
    return a[:2] == b[:2] and (a[2] == b[2] or "0.0.0.0" in (a[2], b[2]))


def _rank(pod: Object, node: Object, on_it: list[Object]) -> tuple[object, ...]:
    tolerations = base.maps(at(pod, "spec", "tolerations"))
    disliked = sum(t.get("effect") == "PreferNoSchedule" and not _tolerated(t, tolerations) for t in _taints(node))
    owner = base.controller_of(pod)
    siblings = 0
    if owner is not None:
        siblings = sum((base.controller_of(p) or {}).get("uid") == owner.get("uid") for p in on_it)
    return disliked, siblings, len(on_it)


# --- writes ----------------------------------------------------------------------------------------------------------


def _bind(pod: Seen, node: str) -> Write:
    meta = {"name": pod.key.name, "namespace": pod.key.namespace, "uid": base.uid(pod.object)}
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": meta,
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    return Write("bind", pod.key, binding, 0, "", pod.event_id or None, pod.trace or None)


def _message(nodes: int, reasons: Counter[str]) -> str:
    if not nodes:
        return "no nodes available to schedule pods"
    why = sorted(f"{n} {reason}" for reason, n in reasons.items())
    return f"0/{nodes} nodes are available: {', '.join(why)}."


def _say(view: View, pod: Seen, message: str, now_us: int) -> list[Write]:
    """Once for each new reason: the condition, and an Event that counts."""
    before = base.condition(pod.object, "PodScheduled") or {}
    if before.get("status") == "False" and before.get("message") == message:
        return []
    now = times.rfc3339(now_us)
    since = before.get("lastTransitionTime", now) if before.get("status") == "False" else now
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": since,
    }
    others = [c for c in base.maps(at(pod.object, "status", "conditions")) if c.get("type") != "PodScheduled"]
    status = {**(pod.object.get("status") or {}), "conditions": [*others, condition]}
    return [base.status(pod, {**pod.object, "status": status}), _event(view, pod, message, now)]


def _event(view: View, pod: Seen, message: str, now: str) -> Write:
    tail = hashlib.blake2b(f"{base.uid(pod.object)}\0{message}".encode(), digest_size=8).hexdigest()
    key = ObjectKey(*EVENTS, pod.key.namespace, f"{pod.key.name[:236]}.{tail}")
    known = view.get(key)
    if known is not None:
        count = int(known.object.get("count") or 1) + 1
        return base.update(known, {**known.object, "count": count, "lastTimestamp": now}, pod)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.key.name,
            "namespace": pod.key.namespace,
            "uid": base.uid(pod.object),
        },
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": NAME},
        "reportingComponent": NAME,
        "reportingInstance": NAME,
    }
    return base.create(EVENTS, key.namespace, event, pod)
