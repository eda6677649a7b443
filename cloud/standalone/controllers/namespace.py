"""Namespaces: one that is being deleted is emptied, and may go when it is empty.

Source: Kubernetes documentation, "Namespaces"; API reference, NamespaceSpec (finalizers).
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import EVERY, NAMESPACES, Controller, Plan, Seen, View, at
from schemas.subjects import ObjectKey

FINALIZER = "kubernetes"
DELETES_MAX = 500  # in one go; what is left is told by the changes that these make


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if (s.key.group, s.key.resource) == NAMESPACES:
        yield s.key
    elif s.key.namespace:
        space = view.get(ObjectKey(*NAMESPACES, "", s.key.namespace))
        if space is not None and base.deleting(space.object):
            yield space.key


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    space = view.get(key)
    if space is None or not base.deleting(space.object):
        return Plan()
    finalizers = at(space.object, "spec", "finalizers") or []
    if FINALIZER not in finalizers:
        return Plan()
    content = [s for kind in view.kinds() for s in view.list(kind, key.name) if s.key.namespace == key.name]
    if content:
        marked = [s for s in content if not base.deleting(s.object)]
        return Plan([base.delete(s, space, propagation="Background") for s in marked[:DELETES_MAX]])
    left = [f for f in finalizers if f != FINALIZER]
    spec = {**(space.object.get("spec") or {}), "finalizers": left}
    done = {**space.object, "spec": spec}
    return Plan([Write("finalize", key, done, space.rev, "", space.event_id or None, space.trace or None)])


CONTROLLER = Controller("namespace", (EVERY,), concerns, reconcile)
