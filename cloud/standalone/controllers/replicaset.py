"""ReplicaSet and ReplicationController: as many pods as wanted, no more and no fewer, of those that a selector picks.

What is new at the edge: a pod behind a cut link is not replaced.  It counts (Ready is Unknown, so it is not available), and
nothing deletes it, because it very likely runs.
Source: Kubernetes documentation, "ReplicaSet", "ReplicationController"; API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloud.core.writes import Write
from cloud.standalone.controllers import amounts, base, claims
from cloud.standalone.controllers.base import Controller, Kind, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

BURST_PODS = 500  # made or deleted in one go; the rest follows with the next look

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def _controller(name: str, kind: Kind, named: str) -> Controller:
    def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
        for s in (seen, old):
            if s is None:
                continue
            if (s.key.group, s.key.resource) == kind:
                yield s.key
                continue
            yield from claims.concerned(view, s, kind, named, adopts=seen is not None)

    return Controller(name, (kind, base.PODS), concerns, reconcile)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    rs = view.get(key)
    if rs is None:
        return Plan()
    writes: list[Write] = []
    pods = claims.claim(view, rs, base.PODS, writes, lambda p: not base.finished(p))
    active = claims.running(pods)
    if not base.deleting(rs.object):
        writes += _scale(rs, active)
    new, again_us = _status(rs.object, active, now_us)
    if new != (rs.object.get("status") or {}):
        writes.append(base.status(rs, {**rs.object, "status": new}))
    return Plan(writes, again_us)


CONTROLLER = _controller("replicaset", base.REPLICASETS, "ReplicaSet")
OLDER = _controller("replicationcontroller", base.REPLICATION_CONTROLLERS, "ReplicationController")


def _scale(rs: Seen, active: Sequence[Seen]) -> list[Write]:
    wanted = at(rs.object, "spec", "replicas")
    missing = (1 if wanted is None else int(wanted)) - len(active)
    if missing > 0:
        pod = claims.new_pod(rs.object, at(rs.object, "spec", "template") or {})
        return [base.create(base.PODS, rs.key.namespace, pod, rs) for _ in range(min(missing, BURST_PODS))]
    return [base.delete(p, rs) for p in victims(active)[: min(-missing, BURST_PODS)]]


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
            amounts.ready(o),
            _cost(o),
            -crowd[node],
            -(amounts.ready_since_us(o) or 0),
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


def _status(rs: Object, active: Sequence[Seen], now_us: int) -> tuple[Object, int | None]:
    """The status, and when a pod that is ready now will have been so for ``minReadySeconds``."""
    wait_s = int(at(rs, "spec", "minReadySeconds") or 0)
    wanted = at(rs, "spec", "template", "metadata", "labels") or {}
    labelled = ready_now = available = 0
    again: list[int] = []
    for p in active:
        have = base.labels(p.object)
        labelled += all(have.get(k) == v for k, v in wanted.items())
        rest = amounts.available_in_us(p.object, wait_s, now_us)
        ready_now += rest is not None
        available += rest == 0
        again += [rest] if rest else []
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
