"""The authority by which programs in pods know the API: a config map ``kube-root-ca.crt`` in every namespace.

Source: Kubernetes documentation, "Managing Service Accounts" (root-ca-cert-publisher).
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import NAMESPACES, Controller, Kind, Object, Plan, Seen, View
from schemas.pod_tokens import ROOT_CA
from schemas.subjects import ObjectKey

NAME = "root-ca-certificate-publisher"
CONFIGMAPS: Kind = ("", "configmaps")
_ABOUT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal "
    "service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if (s.key.group, s.key.resource) == NAMESPACES:
        yield s.key
    elif s.key.name == ROOT_CA:
        yield ObjectKey(*NAMESPACES, "", s.key.namespace)


def controller(ca: str) -> Controller:
    """``ca``: PEM; without one there is nothing to publish."""
    data = {"ca.crt": ca}
    notes = {"kubernetes.io/description": _ABOUT}

    def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
        space = view.get(key)
        if not ca or space is None or base.deleting(space.object):
            return Plan()
        there = view.get(ObjectKey(*CONFIGMAPS, key.name, ROOT_CA))
        if there is None:
            meta = {"name": ROOT_CA, "annotations": notes}
            made: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            return Plan([base.create(CONFIGMAPS, key.name, made, space)])
        if there.object.get("data") == data:
            return Plan()
        return Plan([base.update(there, {**there.object, "data": data})])

    return Controller(NAME, (NAMESPACES, CONFIGMAPS), concerns, reconcile)
