"""Every namespace has a service account named ``default``: pods that name none are its.

Source: Kubernetes documentation, "Managing Service Accounts" (ServiceAccount controller).
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import NAMESPACES, SERVICEACCOUNTS, Controller, Plan, Seen, View
from schemas.subjects import ObjectKey

NAME = "default"


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if (s.key.group, s.key.resource) == NAMESPACES:
        yield s.key
    elif seen is None and s.key.name == NAME:
        yield ObjectKey(*NAMESPACES, "", s.key.namespace)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    space = view.get(key)
    if space is None or base.deleting(space.object):
        return Plan()
    if view.get(ObjectKey(*SERVICEACCOUNTS, key.name, NAME)) is not None:
        return Plan()
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}}
    return Plan([base.create(SERVICEACCOUNTS, key.name, account, space)])


CONTROLLER = Controller("serviceaccount", (NAMESPACES, SERVICEACCOUNTS), concerns, reconcile)
