"""Scheduler: gives every pod that has no node one that may and can take it, and says why when there is none.

What may take it: ``fit``; which other pods decide: ``company``; which is best: ``score``.  Every bind is seen by the next
look (the view is never older than its own writes), so a batch of pods spreads like pods that come one by one.
Not looked at: topology spread constraints, priority and preemption, volumes (a node has none that another lacks).
Source: Kubernetes documentation, "Kubernetes Scheduler", "Assigning Pods to Nodes".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import base, events, fit, resources, score
from cloud.standalone.controllers.base import NODES, PODS, Controller, Object, Plan, Seen, View, at
from cloud.standalone.controllers.company import Company, picky
from schemas import times
from schemas.subjects import ObjectKey

NAME = "default-scheduler"
SAY_US = 10 * times.US_PER_S  # at most one new reason a pod in this time: flapping links must not fill the log


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """A pod that waits; all that wait, when a node changed or a pod made room; the picky, when a pod came or changed."""
    s = seen or old
    assert s is not None
    if s.key.resource == "nodes":
        if seen is None or old is None or _face(seen.object) != _face(old.object):
            yield from (p.key for p in view.unscheduled() if _waits(p.object))
        return
    if seen is not None and _waits(seen.object):
        yield seen.key
    if old is None:
        return
    before, now = _place(old.object), _place(seen.object) if seen is not None else None
    if before is not None and now is None:
        yield from (p.key for p in view.unscheduled() if _waits(p.object))
    elif before != now:
        yield from (p.key for p in view.unscheduled() if _waits(p.object) and picky(p.object))


def _face(node: Object) -> tuple[object, ...]:
    """What of a node a pod could wait for."""
    return base.labels(node), at(node, "spec"), resources.allocatable(node), fit.ready(node)


def _place(pod: Object) -> tuple[object, ...] | None:
    """Where a pod takes room, and as what others see it there."""
    node = at(pod, "spec", "nodeName")
    return (node, base.labels(pod)) if node and not base.finished(pod) else None


def _waits(pod: Object) -> bool:
    spec = at(pod, "spec") or {}
    mine = (spec.get("schedulerName") or NAME) == NAME and not spec.get("schedulingGates")
    return mine and not spec.get("nodeName") and not base.deleting(pod) and not base.finished(pod)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    pod = view.get(key)
    if pod is None or not _waits(pod.object):
        return Plan()
    nodes = view.list(NODES)
    loads = {n.key.name: view.load(n.key.name) for n in nodes}
    asked = resources.requested(pod.object)
    company = Company(view, pod.object, nodes, loads)
    reasons: Counter[str] = Counter()
    fits: list[tuple[score.Rank, str]] = []
    for node in nodes:
        on_it = loads[node.key.name]
        why = fit.refusals(pod.object, asked, node.object, on_it) or company.refusals(node.object)
        if why:
            reasons.update(why)
        else:
            liking = company.liking(node.object)
            fits.append((score.rank(pod.object, asked, node.object, on_it, liking), node.key.name))
    if fits:
        return Plan([_bind(pod, min(fits)[1])])
    return _say(view, pod, _message(len(nodes), reasons), now_us)


CONTROLLER = Controller("scheduler", (PODS, NODES), concerns, reconcile)


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


def _say(view: View, pod: Seen, message: str, now_us: int) -> Plan:
    """Once for each new reason: the condition, and an Event that counts."""
    before = base.condition(pod.object, "PodScheduled") or {}
    if before.get("status") == "False" and before.get("message") == message:
        return Plan()
    said_us = times.micros(before.get("lastProbeTime"))
    if said_us is not None and 0 <= now_us - said_us < SAY_US:
        return Plan([], SAY_US - (now_us - said_us))
    now = times.rfc3339(now_us)
    since = before.get("lastTransitionTime", now) if before.get("status") == "False" else now
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": since,
    }
    others = [c for c in base.maps(at(pod.object, "status", "conditions")) if c.get("type") != "PodScheduled"]
    status = {**(pod.object.get("status") or {}), "conditions": [*others, condition]}
    told = events.tell(view, pod, "FailedScheduling", message, now_us, NAME, say_us=0)
    return Plan([base.status(pod, {**pod.object, "status": status}), *told])
