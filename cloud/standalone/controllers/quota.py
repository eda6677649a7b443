"""Resource quotas as they are: what the objects of a namespace use, counted again when something changed.

Admission counts upwards, exactly (bus/kube/admission/quota.py); what is deleted, has ended or was never stored is given back
here.  What admission let through and nobody has seen yet stays counted.
Source: Kubernetes documentation, "Resource Quotas"; kube-controller-manager's resourcequota controller.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable

from bus.kube.admission import reserved, usage
from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import EVERY, Controller, Kind, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

NAME = "resourcequota"
QUOTAS: Kind = ("", "resourcequotas")
DELAY_US = 200_000  # a deployment of a hundred pods is counted a few times, not a hundred
GONE_MAX = 10_000
LOOK_US = 300 * times.US_PER_S  # for what time alone ends: a deletion that nobody confirms
_QUIET = frozenset({("", "events"), ("events.k8s.io", "events"), ("coordination.k8s.io", "leases")})


class Gone:
    """Uids of what was there and is deleted: it is on its way no more.  Without this memory (another process leads since)
    it stays counted until its time is over, which is safe."""

    def __init__(self) -> None:
        self._uids: dict[str, None] = {}

    def add(self, uid: str) -> None:
        if len(self._uids) >= GONE_MAX:
            del self._uids[next(iter(self._uids))]
        self._uids[uid] = None

    def __contains__(self, uid: object) -> bool:
        return uid in self._uids


def controller() -> Controller:
    gone = Gone()

    def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
        if seen is None and old is not None and old.key.namespace and view.list(QUOTAS, old.key.namespace):
            gone.add(base.uid(old.object))
        yield from _concerned(view, seen, old)

    return Controller(NAME, (EVERY,), concerns, lambda view, key, now_us: reconcile(view, key, now_us, gone), DELAY_US)


def _concerned(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    kind = (s.key.group, s.key.resource)
    if kind == QUOTAS and seen is not None:
        yield seen.key
    if not s.key.namespace or (kind in _QUIET and seen is not None and old is not None):
        return
    for quota in view.list(QUOTAS, s.key.namespace):
        if any(kind in usage.kinds_of(n) for n in at(quota.object, "spec", "hard") or {}):
            yield quota.key


def reconcile(view: View, key: ObjectKey, now_us: int, gone: Container[str] = ()) -> Plan:
    quota = view.get(key)
    if quota is None or base.deleting(quota.object):
        return Plan()
    hard = at(quota.object, "spec", "hard") or {}
    waiting = {u: r for u, r in reserved.unseen(quota.object, view.get, now_us).items() if u not in gone}
    counted = usage.count(quota.object, hard, lambda kind, space: view.list(kind, space), now_us)
    used = usage.plus(counted, reserved.total(waiting))
    new = copy.deepcopy(quota.object)
    reserved.write(new, waiting)
    new["status"] = {"hard": dict(hard), "used": {n: str(used.get(n, usage.NONE)) for n in sorted(hard)}}
    again_us = LOOK_US
    if waiting:
        again_us = max(times.US_PER_S, min(r.until_s for r in waiting.values()) * times.US_PER_S - now_us)
    if new == quota.object:
        return Plan([], again_us)
    return Plan([base.status(quota, new)], again_us)
