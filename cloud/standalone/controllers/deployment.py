"""Deployment: one ReplicaSet for each version of the pod template, and the move from the old ones to the new one.

Source: Kubernetes documentation, "Deployments" (strategy, max surge and unavailable, revision history).
Simpler than there: a Deployment that is scaled in the middle of a rollout lets the new ReplicaSet take the whole
difference instead of sharing it in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloud.core.writes import Write
from cloud.standalone.controllers import base, claims, deployment_status, selecting
from cloud.standalone.controllers.base import DEPLOYMENTS, PODS, REPLICASETS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
HISTORY_LIMIT = 10  # revisionHistoryLimit's default (API reference)

_NOT_COPIED = (
    *("kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MOST),
    *("deployment.kubernetes.io/revision-history", "deprecated.deployment.rollback.to"),
)


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    for s in (seen, old):
        if s is None:
            continue
        kind = (s.key.group, s.key.resource)
        if kind == DEPLOYMENTS:
            yield s.key
        elif kind == REPLICASETS:
            yield from _of_replicaset(view, s)
        elif seen is None or base.finished(s.object):  # a pod is gone: Recreate waits for that
            owner = base.controller_of(s.object) or {}
            rs = view.get(ObjectKey(*REPLICASETS, s.key.namespace, str(owner.get("name"))))
            if rs is not None:
                yield from _of_replicaset(view, rs)


def _of_replicaset(view: View, rs: Seen) -> Iterable[ObjectKey]:
    return claims.concerned(view, rs, DEPLOYMENTS, "Deployment", adopts=True)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    d = view.get(key)
    if d is None:
        return Plan()
    writes: list[Write] = []
    sets = sorted(claims.claim(view, d, REPLICASETS, writes), key=_age)
    if writes:
        return Plan(writes)  # looked at again with what the API says then
    new = _newest(d.object, sets)
    if not base.deleting(d.object):
        writes = _roll(view, d, new, [s for s in sets if s is not new])
        if any(w.key == d.key for w in writes):
            return Plan(writes)  # the status is written over what this leaves
    status, again_us = deployment_status.of(d.object, new, sets, now_us)
    if status != (d.object.get("status") or {}):
        writes.append(base.status(d, {**d.object, "status": status}))
    return Plan(writes, again_us)


CONTROLLER = Controller("deployment", (DEPLOYMENTS, REPLICASETS, PODS), concerns, reconcile)


# --- which sets are ours ---------------------------------------------------------------------------------------------


def _age(rs: Seen) -> tuple[int, str]:
    return times.micros(base.meta(rs.object).get("creationTimestamp")) or 0, rs.key.name


def _newest(d: Object, sets: Sequence[Seen]) -> Seen | None:
    """The set of the template as it is now; by its hash too, should the API have filled in more of one than of the other."""
    template = _plain(at(d, "spec", "template") or {})
    named = _hash(d)
    for rs in sets:
        if _plain(at(rs.object, "spec", "template") or {}) == template or base.labels(rs.object).get(HASH) == named:
            return rs
    return None


def _plain(template: Object) -> Object:
    labels = {k: v for k, v in base.labels(template).items() if k != HASH}
    return base.with_meta(template, labels=labels or None)


def _hash(d: Object) -> str:
    return selecting.template_hash(at(d, "spec", "template") or {}, int(at(d, "status", "collisionCount") or 0))


# --- rolling ---------------------------------------------------------------------------------------------------------


def _roll(view: View, d: Seen, new: Seen | None, old: Sequence[Seen]) -> list[Write]:
    wanted = deployment_status.wanted(d.object)
    if at(d.object, "spec", "paused"):
        return _scaled(d, new, wanted) if new is not None and not any(map(_replicas, old)) else []
    recreate = at(d.object, "spec", "strategy", "type") == "Recreate"
    if recreate:
        downs = [w for rs in old for w in _scaled(d, rs, 0)]
        if downs:
            return downs
        if any(not base.finished(p.object) for rs in old for p in view.owned(base.uid(rs.object))):
            return []
    revision = max((_revision(rs) for rs in old), default=0) + 1
    if new is None:
        replicas = (
            wanted
            if recreate
            else min(wanted, max(0, wanted + deployment_status.surge(d.object) - sum(map(_replicas, old))))
        )
        return _create(view, d, revision, replicas)
    revision = max(revision, _revision(new))
    if base.notes(d.object).get(REVISION) != str(revision):
        noted = {**base.notes(d.object), REVISION: str(revision)}
        return [*_noted(d, new, revision), base.update(d, base.with_meta(d.object, annotations=noted))]
    writes = _noted(d, new, revision)
    if writes:
        return writes
    target = wanted if recreate else _new_size(d.object, new, old)
    writes = _scaled(d, new, target)
    if not writes and not recreate:
        writes = _shrink(d, new, old)
    return writes or _forget(d, old)


def _create(view: View, d: Seen, revision: int, replicas: int) -> list[Write]:
    name = f"{d.key.name}-{_hash(d.object)}"
    if view.get(ObjectKey(*REPLICASETS, d.key.namespace, name)) is not None:
        # Another template, or another's set, has this name: the next hash is made with a higher count.
        count = int(at(d.object, "status", "collisionCount") or 0) + 1
        return [base.status(d, {**d.object, "status": {**(d.object.get("status") or {}), "collisionCount": count}})]
    template = at(d.object, "spec", "template") or {}
    hashed = {HASH: _hash(d.object)}
    selector = at(d.object, "spec", "selector") or {}
    spec = {
        "replicas": replicas,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **hashed}},
        "template": base.with_meta(template, labels={**base.labels(template), **hashed}),
    }
    if at(d.object, "spec", "minReadySeconds"):
        spec["minReadySeconds"] = at(d.object, "spec", "minReadySeconds")
    rs = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": d.key.namespace,
            "labels": {**base.labels(template), **hashed},
            "annotations": {**_copied(d.object), **_sizes(d.object), REVISION: str(revision)},
            "ownerReferences": [base.owner_reference(d.object)],
        },
        "spec": spec,
    }
    return [base.create(REPLICASETS, d.key.namespace, rs, d)]


def _copied(d: Object) -> dict[str, str]:
    return {k: v for k, v in base.notes(d).items() if k not in _NOT_COPIED}


def _noted(d: Seen, rs: Seen, revision: int) -> list[Write]:
    """The Deployment's own notes (the change cause above all) belong to the revision that it now is."""
    noted = {**base.notes(rs.object), **_copied(d.object), REVISION: str(revision)}
    ready = int(at(d.object, "spec", "minReadySeconds") or 0)
    new = base.with_meta(rs.object, annotations=noted)
    if ready != int(at(rs.object, "spec", "minReadySeconds") or 0):
        new = {**new, "spec": {**new["spec"], "minReadySeconds": ready}}
    return [] if new == rs.object else [base.update(rs, new, d)]


def _scaled(d: Seen, rs: Seen, replicas: int) -> list[Write]:
    if _replicas(rs) == replicas:
        return []
    noted = base.with_meta(rs.object, annotations={**base.notes(rs.object), **_sizes(d.object)})
    return [base.update(rs, {**noted, "spec": {**rs.object["spec"], "replicas": replicas}}, d)]


def _sizes(d: Object) -> dict[str, str]:
    """What a set is told of the whole: how many there shall be, and may be at most while it rolls."""
    wanted = deployment_status.wanted(d)
    return {DESIRED: str(wanted), MOST: str(wanted + deployment_status.surge(d))}


def _new_size(d: Object, new: Seen, old: Sequence[Seen]) -> int:
    wanted, now = deployment_status.wanted(d), _replicas(new)
    if now >= wanted:
        return wanted
    room = wanted + deployment_status.surge(d) - now - sum(map(_replicas, old))
    return now + max(0, min(room, wanted - now))


def _shrink(d: Seen, new: Seen, old: Sequence[Seen]) -> list[Write]:
    """First what isn't available anyway, then as many as the new ones make up for."""
    least = deployment_status.wanted(d.object) - deployment_status.max_unavailable(d.object)
    waiting = _replicas(new) - _available(new)
    sizes = {rs.key: _replicas(rs) for rs in old}
    spare = sum(sizes.values()) + _replicas(new) - least - waiting
    for rs in old:
        broken = min(max(0, sizes[rs.key] - _available(rs)), max(0, spare))
        sizes[rs.key] -= broken
        spare -= broken
    room = sum(min(_available(rs), sizes[rs.key]) for rs in old) + _available(new) - least
    for rs in old:
        gone = min(sizes[rs.key], max(0, room))
        sizes[rs.key] -= gone
        room -= gone
    return [w for rs in old for w in _scaled(d, rs, sizes[rs.key])]


def _forget(d: Seen, old: Sequence[Seen]) -> list[Write]:
    limit = at(d.object, "spec", "revisionHistoryLimit")
    empty = [
        rs for rs in old if not _replicas(rs) and not at(rs.object, "status", "replicas") and not base.deleting(rs.object)
    ]
    extra = len(empty) - (HISTORY_LIMIT if limit is None else int(limit))
    return [base.delete(rs, d) for rs in sorted(empty, key=_revision)[: max(0, extra)]]


def _replicas(rs: Seen) -> int:
    found = at(rs.object, "spec", "replicas")
    return 1 if found is None else int(found)


def _available(rs: Seen) -> int:
    return int(at(rs.object, "status", "availableReplicas") or 0)


def _revision(rs: Seen) -> int:
    text = base.notes(rs.object).get(REVISION, "")
    return int(text) if text.isdecimal() else 0
