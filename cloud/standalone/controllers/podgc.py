"""Pods that nobody will ever confirm: deleted, but their node is not in the API any more, or somebody said that it is dead
(taint ``node.kubernetes.io/out-of-service``, while it isn't ready).  Pods that ended, when there are very many.  And
Events past their hour.

Only pods that somebody deleted.  kube-controller-manager also deletes all other pods of a Node that is gone, because in a
data centre a Node that was removed is a machine that was given back.  At the edge it is more often a Node object that was
deleted by mistake, or that its machine registers again when its link comes back; the machine stands there and its
containers run, for hours without a link.  Deleting their pods would stop a working site at the moment it comes back, and
make a Deployment start a second copy elsewhere before.  Who takes a machine away for good deletes its pods as well
(``kubectl delete pods --field-selector spec.nodeName=<node>``), and then nothing hangs.
Source: Kubernetes documentation, "Pod Lifecycle", "Garbage collection of Pods"; "Non-graceful node
shutdown handling"; kube-apiserver --event-ttl.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.standalone.controllers import base, node_lifecycle
from cloud.standalone.controllers.base import EVENTS, NODES, PODS, Controller, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

QUARANTINE_US = 40 * times.US_PER_S  # a Node that is deleted and registered again within it confirms by itself
ENDED_MAX = 12_500  # kube-controller-manager's --terminated-pod-gc-threshold
ENDED_AT_ONCE = 500
ALL = ObjectKey(*PODS, "", "")
EVENT_TTL_US = 3600 * times.US_PER_S


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if s.key.resource == "nodes":
        if seen is None or node_lifecycle.out_of_service(view, s.key.name):
            # rare: no index for it (``pods_on`` leaves out what is finished)
            yield from (p.key for p in view.list(PODS) if _lost(view, p))
    elif seen is not None and _lost(view, seen):
        yield seen.key


def _lost(view: View, pod: Seen) -> bool:
    node = str(at(pod.object, "spec", "nodeName") or "")
    if not node or not base.deleting(pod.object):
        return False
    return view.get(ObjectKey(*NODES, "", node)) is None or node_lifecycle.out_of_service(view, node)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    pod = view.get(key)
    return Plan([base.delete(pod, grace_s=0)]) if pod is not None and _lost(view, pod) else Plan()


def event_concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    if seen is not None:
        yield seen.key


def event_reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    event = view.get(key)
    if event is None:
        return Plan()
    o = event.object
    last = times.micros(o.get("lastTimestamp")) or times.micros(at(o, "series", "lastObservedTime"))
    last = last or times.micros(o.get("eventTime")) or times.micros(base.meta(o).get("creationTimestamp")) or now_us
    rest = last + EVENT_TTL_US - now_us
    return Plan([base.delete(event)]) if rest <= 0 else Plan([], rest)


def ended_concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """One look for all of them, a while after one more has ended."""
    if seen is not None and base.finished(seen.object) and (old is None or not base.finished(old.object)):
        yield ALL


def ended_reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    """The oldest of what has ended, beyond what is kept for people to look at (jobs clean up their own before that)."""
    over = len(ended := view.ended()) - ENDED_MAX
    if over <= 0:
        return Plan()
    oldest = sorted((p for p in ended if not base.deleting(p.object)), key=_made)[: min(over, ENDED_AT_ONCE)]
    return Plan([base.delete(p, grace_s=0) for p in oldest], None if over <= ENDED_AT_ONCE else times.US_PER_S)


def _made(pod: Seen) -> tuple[str, ObjectKey]:
    return str(base.meta(pod.object).get("creationTimestamp") or ""), pod.key


CONTROLLER = Controller("podgc", (PODS, NODES), concerns, reconcile, delay_us=QUARANTINE_US)
TERMINATED = Controller("terminated-pods", (PODS,), ended_concerns, ended_reconcile, delay_us=20 * times.US_PER_S)
EVENT_TTL = Controller("eventttl", (EVENTS,), event_concerns, event_reconcile)
