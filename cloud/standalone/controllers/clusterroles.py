"""Cluster roles that gather the rules of others (Kubernetes "Using RBAC Authorization", "Aggregated ClusterRoles")."""

from __future__ import annotations

from collections.abc import Iterable

from cloud.standalone.controllers import base, selecting
from cloud.standalone.controllers.base import Controller, Kind, Object, Plan, Seen, View, at, maps
from schemas.subjects import ObjectKey

CLUSTERROLES: Kind = ("rbac.authorization.k8s.io", "clusterroles")


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """Whoever gathers may gather this one: they are few."""
    for s in view.list(CLUSTERROLES):
        if s.object.get("aggregationRule"):
            yield s.key


def _gathered(role: Seen, others: Iterable[Seen]) -> list[Object]:
    rules: list[Object] = []
    for other in others:
        if other.key == role.key or not _selects(role.object, base.labels(other.object)):
            continue
        rules += [r for r in maps(other.object.get("rules")) if r not in rules]
    return rules


def _selects(role: Object, labels: dict[str, str]) -> bool:
    listed = maps(at(role, "aggregationRule", "clusterRoleSelectors"))
    return any(selecting.selects(s, labels) for s in listed)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    role = view.get(key)
    if role is None or base.deleting(role.object) or not role.object.get("aggregationRule"):
        return Plan()
    rules = _gathered(role, view.list(CLUSTERROLES))
    if rules == (role.object.get("rules") or []):
        return Plan()
    return Plan([base.update(role, {**role.object, "rules": rules})])


CONTROLLER = Controller("clusterrole-aggregation", (CLUSTERROLES,), concerns, reconcile)
