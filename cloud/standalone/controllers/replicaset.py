"""ReplicaSet: as many pods as wanted, no more and no fewer, of those that its selector picks.

What is new at the edge: a pod behind a cut link is not replaced.  It counts (Ready is Unknown, so it is not available), and
nothing deletes it, because it very likely runs.  Source: Kubernetes documentation, "ReplicaSet"; API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloud.core.writes import Write
from cloud.standalone.controllers import base, selecting
from cloud.standalone.controllers.base import PODS, REPLICASETS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

BURST_PODS = 500  # made or deleted in one go; the rest follows with the next look

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    for s in (seen, old):
        if s is None:
            continue
        if (s.key.group, s.key.resource) == REPLICASETS:
            yield s.key
            continue
        owner = base.controller_of(s.object)
        if owner is not None:
            if owner.get("kind") == "ReplicaSet":
                yield ObjectKey(*REPLICASETS, s.key.namespace, str(owner.get("name")))
        elif seen is not None:
            for rs in view.list(REPLICASETS, s.key.namespace):
                if selecting.selects(at(rs.object, "spec", "selector"), base.labels(s.object)):
                    yield rs.key


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    rs = view.get(key)
    if rs is None:
        return Plan()
    writes: list[Write] = []
    pods = _claim(view, rs, writes)
    active = [p for p in pods if not base.finished(p.object) and not base.deleting(p.object)]
    if not base.deleting(rs.object):
        writes += _scale(rs, active)
    new, again_us = _status(rs.object, active, now_us)
    if new != (rs.object.get("status") or {}):
        writes.append(base.status(rs, {**rs.object, "status": new}))
    return Plan(writes, again_us)


CONTROLLER = Controller("replicaset", (REPLICASETS, PODS), concerns, reconcile)


def _claim(view: View, rs: Seen, writes: list[Write]) -> list[Seen]:
    """The pods that are ours; adopts those that nobody owns, lets go of those that the selector doesn't pick any more."""
    selector = at(rs.object, "spec", "selector")
    mine: list[Seen] = []
    for pod in view.owned(base.uid(rs.object)):
        owner = base.controller_of(pod.object)
        if (pod.key.group, pod.key.resource) != PODS or owner is None or owner.get("uid") != base.uid(rs.object):
            continue
        if selecting.selects(selector, base.labels(pod.object)):
            mine.append(pod)
        elif not base.deleting(rs.object):
            left = [o for o in base.owners(pod.object) if o is not owner]
            writes.append(base.update(pod, base.with_meta(pod.object, ownerReferences=left or None), rs))
    if base.deleting(rs.object):
        return mine
    for pod in view.orphans(PODS, rs.key.namespace):
        wanted = selecting.selects(selector, base.labels(pod.object))
        if wanted and not base.deleting(pod.object) and not base.finished(pod.object):
            refs = [*base.owners(pod.object), base.owner_reference(rs.object)]
            writes.append(base.update(pod, base.with_meta(pod.object, ownerReferences=refs), rs))
            mine.append(pod)
    return mine


def _scale(rs: Seen, active: Sequence[Seen]) -> list[Write]:
    wanted = at(rs.object, "spec", "replicas")
    missing = (1 if wanted is None else int(wanted)) - len(active)
    if missing > 0:
        pod = _new_pod(rs.object)
        return [base.create(PODS, rs.key.namespace, pod, rs) for _ in range(min(missing, BURST_PODS))]
    return [base.delete(p, rs) for p in victims(active)[: min(-missing, BURST_PODS)]]


def _new_pod(rs: Object) -> Object:
    template = at(rs, "spec", "template") or {}
    meta = base.meta(template)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{base.meta(rs)['name']}-",
            **{f: meta[f] for f in ("labels", "annotations", "finalizers") if meta.get(f)},
            "ownerReferences": [base.owner_reference(rs)],
        },
        "spec": template.get("spec") or {},
    }


def victims(pods: Sequence[Seen]) -> list[Seen]:
    """In the order in which they go when there are too many: what is missed least goes first."""
    crowd: dict[str, int] = {}
    for p in pods:
        node = str(at(p.object, "spec", "nodeName") or "")
        crowd[node] = crowd.get(node, 0) + 1

    def rank(p: Seen) -> tuple[object, ...]:
        o = p.object
        node = str(at(o, "spec", "nodeName") or "")
        phase = {"Pending": 0, "Unknown": 1}.get(str(at(o, "status", "phase")), 2)
        restarts = sum(int(c.get("restartCount") or 0) for c in base.maps(at(o, "status", "containerStatuses")))
        return (
            bool(node),
            phase,
            ready(o),
            _cost(o),
            -crowd[node],
            -(ready_since_us(o) or 0),
            -restarts,
            -(times.micros(base.meta(o).get("creationTimestamp")) or 0),
            p.key.name,
        )

    return sorted(pods, key=rank)


def _cost(pod: Object) -> int:
    try:
        return int(base.notes(pod).get(_DELETION_COST, "0"))
    except ValueError:
        return 0


def ready(pod: Object) -> bool:
    return (base.condition(pod, "Ready") or {}).get("status") == "True"


def ready_since_us(pod: Object) -> int | None:
    return times.micros((base.condition(pod, "Ready") or {}).get("lastTransitionTime")) if ready(pod) else None


def _status(rs: Object, active: Sequence[Seen], now_us: int) -> tuple[Object, int | None]:
    """The status, and when a pod that is ready now will have been so for ``minReadySeconds``."""
    wait_us = int(at(rs, "spec", "minReadySeconds") or 0) * times.US_PER_S
    wanted = at(rs, "spec", "template", "metadata", "labels") or {}
    labelled = ready_now = available = 0
    again: list[int] = []
    for p in active:
        have = base.labels(p.object)
        labelled += all(have.get(k) == v for k, v in wanted.items())
        if not ready(p.object):
            continue
        ready_now += 1
        rest = (ready_since_us(p.object) or 0) + wait_us - now_us
        if rest <= 0:
            available += 1
        else:
            again.append(rest)
    counts = {
        "replicas": len(active),
        "fullyLabeledReplicas": labelled,
        "readyReplicas": ready_now,
        "availableReplicas": available,
        "observedGeneration": int(base.meta(rs).get("generation") or 0),
    }
    # ``replicas`` is always written, zeros of the others are left out (API reference: omitempty).
    new = {k: v for k, v in counts.items() if v or k == "replicas"}
    conditions = at(rs, "status", "conditions")
    return new | ({"conditions": conditions} if conditions else {}), min(again, default=None)
