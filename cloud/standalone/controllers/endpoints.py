"""Endpoints and EndpointSlices: the addresses of the pods that a Service's selector picks.

A Service without selector has its endpoints from somebody else: they are never touched.  A pod that isn't ready, or is
behind a cut link, stays listed as not ready.  A slice is named for its Service and its place, so none is made twice.
Source: Kubernetes documentation, "Service", "EndpointSlices" (conditions, distribution of at most 100 endpoints).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from cloud.core.writes import Write
from cloud.standalone.controllers import amounts, base
from cloud.standalone.controllers.base import (
    ENDPOINTS,
    PODS,
    SERVICES,
    SLICES,
    Controller,
    Kind,
    Object,
    Plan,
    Seen,
    View,
    at,
)
from schemas.subjects import ObjectKey

SERVICE_NAME = "kubernetes.io/service-name"
SLICE_MANAGER = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
MANAGER = {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
SLICE_ENDPOINTS_MAX = 100  # the real controller's default
ENDPOINTS_MAX = 1000  # of an Endpoints object, as there; the rest is only in slices


def _concerns(own: Kind) -> Callable[[View, Seen | None, Seen | None], Iterable[ObjectKey]]:
    def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
        s = seen or old
        assert s is not None
        kind = (s.key.group, s.key.resource)
        if kind == SERVICES:
            yield s.key
        elif kind == own:
            name = base.labels(s.object).get(SERVICE_NAME, "") if own == SLICES else s.key.name
            if name:
                yield ObjectKey(*SERVICES, s.key.namespace, name)
        elif seen is None or old is None or _face(seen.object) != _face(old.object):
            for service in view.list(SERVICES, s.key.namespace):
                selector = at(service.object, "spec", "selector")
                if selector and any(_picks(selector, p.object) for p in (seen, old) if p is not None):
                    yield service.key

    return concerns


def _face(pod: Object) -> tuple[object, ...]:
    """What of a pod an endpoint tells."""
    ip, node = at(pod, "status", "podIP"), at(pod, "spec", "nodeName")
    return ip, node, amounts.ready(pod), base.deleting(pod), base.finished(pod), base.labels(pod)


def _picks(selector: Object, pod: Object) -> bool:
    return all(base.labels(pod).get(k) == v for k, v in selector.items())


def _pods(view: View, service: Seen) -> list[Seen]:
    selector = at(service.object, "spec", "selector") or {}
    found = [p for p in view.labelled(PODS, service.key.namespace, selector) if at(p.object, "status", "podIP")]
    return sorted((p for p in found if not base.finished(p.object)), key=lambda p: p.key.name)


def _groups(service: Object, pods: Sequence[Seen]) -> list[tuple[list[Object], list[Seen]]]:
    """Pods by the numbers that the Service's ports are there: a port by name can differ from pod to pod."""
    groups: dict[str, tuple[list[Object], list[Seen]]] = {}
    wanted = base.maps(at(service, "spec", "ports"))
    for p in pods:
        ports = [port for w in wanted if (port := _port(w, p.object)) is not None]
        if ports or not wanted:
            groups.setdefault(repr(ports), (ports, []))[1].append(p)
    return [groups[k] for k in sorted(groups)]


def _port(wanted: Object, pod: Object) -> Object | None:
    target, protocol = wanted.get("targetPort", wanted.get("port")), wanted.get("protocol") or "TCP"
    if isinstance(target, str):
        containers = base.maps(at(pod, "spec", "containers"))
        ports = [p for c in containers for p in base.maps(c.get("ports"))]
        named = [p for p in ports if p.get("name") == target and (p.get("protocol") or "TCP") == protocol]
        if not named:
            return None
        target = named[0].get("containerPort")
    more = {k: wanted[k] for k in ("name", "appProtocol") if wanted.get(k)}
    return {"port": target, "protocol": protocol, **more}


def _reference(pod: Seen) -> Object:
    return {"kind": "Pod", "namespace": pod.key.namespace, "name": pod.key.name, "uid": base.uid(pod.object)}


# --- slices ----------------------------------------------------------------------------------------------------------


def slices(view: View, key: ObjectKey, now_us: int) -> Plan:
    service = view.get(key)
    if service is None or base.deleting(service.object) or not at(service.object, "spec", "selector"):
        return Plan()
    mine = {s.key.name: s for s in view.owned(base.uid(service.object)) if (s.key.group, s.key.resource) == SLICES}
    early = bool(at(service.object, "spec", "publishNotReadyAddresses"))
    writes: list[Write] = []
    place = 0
    for ports, pods in _groups(service.object, _pods(view, service)) or [([], [])]:
        for start in range(0, max(1, len(pods)), SLICE_ENDPOINTS_MAX):
            some = pods[start : start + SLICE_ENDPOINTS_MAX]
            wanted = _slice(service, place, ports, [_endpoint(p, early) for p in some])
            place += 1
            there = mine.pop(base.meta(wanted)["name"], None)
            if there is None:
                writes.append(base.create(SLICES, key.namespace, wanted, service))
                continue
            new = {**there.object, **{f: wanted.get(f) or [] for f in ("ports", "endpoints")}}
            if any((there.object.get(f) or []) != new[f] for f in ("ports", "endpoints")):
                writes.append(base.update(there, new, service))
    return Plan([*writes, *(base.delete(s, service) for s in mine.values())])


def _slice(service: Seen, place: int, ports: list[Object], endpoints: list[Object]) -> Object:
    tail = hashlib.blake2b(f"{base.uid(service.object)}/{place}".encode(), digest_size=4).hexdigest()
    labels = {**base.labels(service.object), SERVICE_NAME: service.key.name, **SLICE_MANAGER}
    meta = {"name": f"{service.key.name[:54]}-{tail}", "labels": labels}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "ownerReferences": [base.owner_reference(service.object)]},
        "addressType": "IPv4",
        "ports": [{"name": "", **p} for p in ports],
        "endpoints": endpoints,
    }


def _endpoint(pod: Seen, early: bool) -> Object:
    serving, leaving = amounts.ready(pod.object), base.deleting(pod.object)
    found: Object = {
        "addresses": [at(pod.object, "status", "podIP")],
        "conditions": {"ready": early or (serving and not leaving), "serving": serving, "terminating": leaving},
        "targetRef": _reference(pod),
    }
    node = at(pod.object, "spec", "nodeName")
    return found | ({"nodeName": node} if node else {})


# --- the older kind --------------------------------------------------------------------------------------------------


def endpoints(view: View, key: ObjectKey, now_us: int) -> Plan:
    service = view.get(key)
    there = view.get(ObjectKey(*ENDPOINTS, key.namespace, key.name))
    if service is None or base.deleting(service.object):
        ours = there is not None and all(base.labels(there.object).get(k) == v for k, v in MANAGER.items())
        return Plan([base.delete(there)]) if there is not None and ours else Plan()
    if not at(service.object, "spec", "selector"):
        return Plan()
    early = bool(at(service.object, "spec", "publishNotReadyAddresses"))
    pods = [p for p in _pods(view, service) if early or not base.deleting(p.object)]
    subsets = [_subset(ports, some, early) for ports, some in _groups(service.object, pods[:ENDPOINTS_MAX])]
    if there is not None:
        same = (there.object.get("subsets") or []) == subsets
        return Plan([] if same else [base.update(there, {**there.object, "subsets": subsets}, service)])
    meta = {"name": key.name, "labels": {**base.labels(service.object), **MANAGER}}
    new = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": subsets}
    return Plan([base.create(ENDPOINTS, key.namespace, new, service)])


def _subset(ports: list[Object], pods: Sequence[Seen], early: bool) -> Object:
    ready = [_address(p) for p in pods if early or amounts.ready(p.object)]
    waiting = [_address(p) for p in pods if not (early or amounts.ready(p.object))]
    found = {"addresses": ready, "notReadyAddresses": waiting, "ports": ports}
    return {k: v for k, v in found.items() if v}


def _address(pod: Seen) -> Object:
    node = at(pod.object, "spec", "nodeName")
    found = {"ip": at(pod.object, "status", "podIP"), "targetRef": _reference(pod)}
    return found | ({"nodeName": node} if node else {})


CONTROLLER = Controller("endpoints", (SERVICES, PODS, ENDPOINTS), _concerns(ENDPOINTS), endpoints)
SLICE_CONTROLLER = Controller("endpointslice", (SERVICES, PODS, SLICES), _concerns(SLICES), slices)
