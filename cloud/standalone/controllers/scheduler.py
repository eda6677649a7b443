"""Scheduler: gives every pod that has no node one that may and can take it, and says why when there is none.

What a pod wants: ``demand``; what a node is: ``place``; whether they fit: ``fit``; which other pods decide: ``company``,
``spread``; which is best: ``score``; who has to make room: ``preempt``.  Every bind is seen by the next look (the view is
never older than its own writes), so a batch of pods spreads like pods that come one by one.
Source: Kubernetes documentation, "Kubernetes Scheduler", "Assigning Pods to Nodes", "Pod Priority and Preemption".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from cloud.core.writes import Write
from cloud.standalone.controllers import base, demand, events, fit, preempt, resources, score, taint_eviction, taints
from cloud.standalone.controllers.base import CLAIMS, CLASSES, NODES, PODS, VOLUMES, Controller, Object, Plan, Seen, View, at
from cloud.standalone.controllers.company import Company
from cloud.standalone.controllers.demand import Demand
from cloud.standalone.controllers.fit import Refusal
from cloud.standalone.controllers.spread import Spreading
from cloud.standalone.controllers.volumes_fit import Storage
from schemas import times
from schemas.subjects import ObjectKey

NAME = "default-scheduler"
SAY_US = 10 * times.US_PER_S  # at most one new reason a pod in this time: flapping links must not fill the log
PREEMPTED = "default-scheduler: preempting to accommodate a higher priority pod"
VERDICTS_MAX = 4096  # shapes of pods that wait; more than that are looked at in full each time


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """A pod that waits; all that wait, when a node changed or a pod made room; the picky, when a pod came or changed."""
    s = seen or old
    assert s is not None
    if s.key.resource == "nodes":
        if seen is None or old is None or _face(seen.object) != _face(old.object):
            yield from _waiting(view)
        return
    if s.key.resource != "pods":
        yield from (key for key in _waiting(view) if _stored(view, key, s.key))
        return
    if seen is not None and _waits(seen.object):
        yield seen.key
    if old is None:
        return
    before, now = _place(old.object), _place(seen.object) if seen is not None else None
    if before is not None and now is None:
        yield from _waiting(view)
    elif before != now:
        yield from (key for key in _waiting(view) if _picky(view, key))


def _waiting(view: View) -> list[ObjectKey]:
    """The most important first, then who waits longest."""
    found = [p for p in view.unscheduled() if _waits(p.object)]
    return [p.key for p in sorted(found, key=_turn)]


def _turn(pod: Seen) -> tuple[int, str]:
    return -int(at(pod.object, "spec", "priority") or 0), str(base.meta(pod.object).get("creationTimestamp") or "")


def _picky(view: View, key: ObjectKey) -> bool:
    pod = view.get(key)
    return pod is not None and demand.of(pod.object).picky


def _stored(view: View, key: ObjectKey, changed: ObjectKey) -> bool:
    """Whether a pod that waits could wait for a claim, a volume or a class."""
    pod = view.get(key)
    names = base.claims(pod.object) if pod is not None else []
    if (changed.group, changed.resource) == CLAIMS:
        return changed.namespace == key.namespace and changed.name in names
    return bool(names)


def _face(node: Object) -> tuple[object, ...]:
    """What of a node a pod could wait for."""
    return base.labels(node), at(node, "spec"), resources.allocatable(node), taints.ready(node)


def _place(pod: Object) -> tuple[object, ...] | None:
    """Where a pod takes room, and as what others see it there."""
    node = at(pod, "spec", "nodeName") or at(pod, "status", "nominatedNodeName")
    return (node, base.labels(pod)) if node and not base.finished(pod) else None


def _waits(pod: Object) -> bool:
    spec = at(pod, "spec") or {}
    mine = (spec.get("schedulerName") or NAME) == NAME and not spec.get("schedulingGates")
    return mine and not spec.get("nodeName") and not base.deleting(pod) and not base.finished(pod)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    pod = view.get(key)
    if pod is None or not _waits(pod.object):
        return Plan()
    want = demand.of(pod.object)
    shape = None if want.picky else _shape(want)
    if shape is not None and (known := view.verdicts.get(shape)) is not None:
        return _say(view, pod, known, now_us)
    places = view.places()
    if not places:
        return _say(view, pod, "no nodes available to schedule pods", now_us)
    storage = Storage(view, want)
    if storage.missing:
        return _say(view, pod, _hopeless(len(places), storage.missing), now_us)
    company, spreading = Company(view.census, want, places), Spreading(view.census, want, places)
    refusals: dict[str, Refusal] = {}
    best: tuple[score.Rank, str] | None = None
    for p in places:
        why = fit.refused(want, p)
        if why is None and storage.any:
            why = storage.refused(p)
        if why is None and company.any:
            why = company.refused(p)
        if why is None and spreading.any:
            why = spreading.refused(p)
        if why is not None:
            refusals[p.name] = why
            continue
        rank = score.rank(want, p, company.liking(p), spreading.crowd(p))
        if best is None or rank < best[0]:
            best = rank, p.name
        if storage.open and p.name == storage.chosen:
            return Plan()  # it fits there still, and its volumes are on the way
    if best is not None and storage.open:
        return Plan([_nominate(pod, best[1]), *storage.choose(best[1], pod)])
    if best is not None:
        return Plan(_bind(view, pod, best[1], now_us))
    choice = preempt.choose(view, want, places, refusals)
    if choice.node:
        return Plan(_make_room(view, pod, choice, now_us))
    message = f"{_message(len(places), refusals)} preemption: {choice.why}"
    if shape is not None and choice.why != preempt.WAITS and len(view.verdicts) < VERDICTS_MAX:
        view.verdicts[shape] = message
    return _say(view, pod, message, now_us)


CONTROLLER = Controller("scheduler", (PODS, NODES, CLAIMS, VOLUMES, CLASSES), concerns, reconcile)


def _shape(want: Demand) -> object:
    """Pods that are the same to every node and every other pod."""
    spec = {k: v for k, v in (at(want.pod, "spec") or {}).items() if k not in ("hostname", "subdomain")}
    labels = sorted(want.labels.items())
    nominated = at(want.pod, "status", "nominatedNodeName")
    return json.dumps([want.namespace, labels, nominated, spec], sort_keys=True)


# --- writes ----------------------------------------------------------------------------------------------------------


def _bind(view: View, pod: Seen, node: str, now_us: int) -> list[Write]:
    meta = {"name": pod.key.name, "namespace": pod.key.namespace, "uid": base.uid(pod.object)}
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": meta,
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    bind = Write("bind", pod.key, binding, 0, "", pod.event_id or None, pod.trace or None)
    message = f"Successfully assigned {pod.key.namespace}/{pod.key.name} to {node}"
    return [bind, *events.tell(view, pod, "Scheduled", message, now_us, NAME, kind="Normal")]


def _nominate(pod: Seen, node: str) -> Write:
    """Keeps the room on a node for the pod until it can be bound."""
    status = {**(pod.object.get("status") or {}), "nominatedNodeName": node}
    return base.status(pod, {**pod.object, "status": status})


def _make_room(view: View, pod: Seen, choice: preempt.Choice, now_us: int) -> list[Write]:
    """The node is kept for the pod, then its victims are asked to go.  When they are gone it finds the room by itself."""
    writes = [_nominate(pod, choice.node)]
    for victim in choice.victims:
        found = preempt.seen(view, victim)
        if found is None or base.deleting(found.object):
            continue
        message = f"Preempted by pod {base.uid(pod.object)} on node {choice.node}"
        writes += events.tell(view, found, "Preempted", message, now_us, NAME, kind="Normal")
        writes += taint_eviction.disrupt(found, "PreemptionByScheduler", PREEMPTED, now_us, pod)
    return writes


def _hopeless(nodes: int, why: str) -> str:
    return f"0/{nodes} nodes are available: {why}. preemption: 0/{nodes} nodes are available: {nodes} {preempt.NOT_HELPFUL}."


def _message(nodes: int, refusals: Mapping[str, Refusal]) -> str:
    reasons = Counter(why for r in refusals.values() for why in r.why)
    return f"0/{nodes} nodes are available: {', '.join(sorted(f'{n} {why}' for why, n in reasons.items()))}."


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
