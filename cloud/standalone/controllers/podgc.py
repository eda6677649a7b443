"""Pods that nobody will ever confirm: their node is not in the API any more.  And Events that are past their hour.

A cut link is not this case: the Node is there, and so are its pods.
Source: Kubernetes documentation, "Pod Lifecycle", "Garbage collection of Pods"; kube-apiserver --event-ttl.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import EVENTS, NODES, PODS, Controller, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

QUARANTINE_US = 40 * times.US_PER_S  # a Node that is deleted and registered again within it keeps its pods
EVENT_TTL_US = 3600 * times.US_PER_S


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if s.key.resource == "nodes":
        if seen is None:
            yield from (p.key for p in view.pods_on(s.key.name))
    elif seen is not None and at(seen.object, "spec", "nodeName") and view.get(_node(seen)) is None:
        yield seen.key


def _node(pod: Seen) -> ObjectKey:
    return ObjectKey(*NODES, "", str(at(pod.object, "spec", "nodeName")))


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    pod = view.get(key)
    if pod is None or not at(pod.object, "spec", "nodeName") or view.get(_node(pod)) is not None:
        return Plan()
    return Plan([base.delete(pod, grace_s=0)])


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


CONTROLLER = Controller("podgc", (PODS, NODES), concerns, reconcile, delay_us=QUARANTINE_US)
EVENT_TTL = Controller("eventttl", (EVENTS, ("events.k8s.io", "events")), event_concerns, event_reconcile)
