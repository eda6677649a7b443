"""Which scope must know which objects: the rules, and nothing that remembers.

A pod, a device or a node is a *referrer*: it lives on one node, and that node's scope needs it and what it names.
Everything here reads one object and answers from it alone, so the dispatcher's cost for a change is the size of the
object that changed, never the number of nodes.  Objects come from users: a field of the wrong shape is a field that
names nothing.

Sources: Kubernetes API reference, PodSpec and Volume (which fields name a ConfigMap, a Secret or a claim); KubeEdge Device
v1beta1 (``deviceModelRef`` is a local reference: the device's own namespace).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas import local_volumes, pod_tokens
from schemas.subjects import ObjectKey

Object = Mapping[str, Any]

DEVICES = "devices.kubeedge.io"
ANY = "*"  # in a need: every object of that resource and namespace.  Not a Kubernetes name, so it can't collide

API = ObjectKey("", "services", "default", "kubernetes")  # where the API is, for pods that talk to it
TOKENS = (pod_tokens.GROUP, pod_tokens.RESOURCE)
REFERRERS = frozenset({("", "pods"), ("", "nodes"), (DEVICES, "devices")})
CLAIMS, VOLUMES = ("", "persistentvolumeclaims"), ("", "persistentvolumes")
DISPATCHED = REFERRERS | {
    *(("", "configmaps"), ("", "secrets"), ("", "services"), (DEVICES, "devicemodels")),
    *(CLAIMS, VOLUMES, TOKENS),
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What one referrer makes its scope know, what it names before itself."""

    scope: str
    keys: tuple[ObjectKey, ...]


def of(key: ObjectKey, obj: Object) -> Needs | None:
    """The needs of a referrer; None for an object that is on no node (yet) or is no referrer."""
    kind = (key.group, key.resource)
    if kind == ("", "nodes"):
        return Needs(key.name, (key,))
    if kind == VOLUMES:
        # A folder on a node's own disk: the node has it, and removes it when it is told to, whether a pod is there or not.
        local = local_volumes.of(obj)
        return Needs(local[1], (key,)) if local is not None else None
    if kind not in REFERRERS:
        return None
    spec = _map(obj.get("spec"))
    node = _text(spec.get("nodeName"))
    if not node:
        return None
    named = _of_pod(key, spec) if kind == ("", "pods") else _of_device(key.namespace, spec)
    return Needs(node, tuple(dict.fromkeys((*named, key))))


def follow(key: ObjectKey, obj: Object) -> tuple[ObjectKey, ...]:
    """What whoever needs an object needs as well: the volume of a claim."""
    if (key.group, key.resource) != CLAIMS:
        return ()
    name = _text(_map(obj.get("spec")).get("volumeName"))
    return (ObjectKey(*VOLUMES, "", name),) if name else ()


def any_of(key: ObjectKey) -> ObjectKey | None:
    """The need that covers every object of this key's resource and namespace, if there is such a need."""
    return ObjectKey("", "services", key.namespace, ANY) if (key.group, key.resource) == ("", "services") else None


def _of_device(namespace: str, spec: Object) -> Iterator[ObjectKey]:
    model = _text(_map(spec.get("deviceModelRef")).get("name"))
    if model:
        yield ObjectKey(DEVICES, "devicemodels", namespace, model)


def _of_pod(pod: ObjectKey, spec: Object) -> Iterator[ObjectKey]:
    """Service variables reach every container of a namespace (Pod ``enableServiceLinks``), so all its services go along."""
    for resource, name in (*_of_volumes(spec), *_of_containers(spec), *_of_pulls(spec)):
        if name:
            yield ObjectKey("", resource, pod.namespace, name)
    if pod_tokens.asked_by(spec):
        yield pod_tokens.key(pod.namespace, pod.name)
        yield API
    yield ObjectKey("", "services", pod.namespace, ANY)


def _of_volumes(spec: Object) -> Iterator[tuple[str, str]]:
    for volume in _maps(spec.get("volumes")):
        yield "configmaps", _text(_map(volume.get("configMap")).get("name"))
        yield "secrets", _text(_map(volume.get("secret")).get("secretName"))
        yield "persistentvolumeclaims", _text(_map(volume.get("persistentVolumeClaim")).get("claimName"))
        for source in _maps(_map(volume.get("projected")).get("sources")):
            yield "configmaps", _text(_map(source.get("configMap")).get("name"))
            yield "secrets", _text(_map(source.get("secret")).get("name"))


def _of_containers(spec: Object) -> Iterator[tuple[str, str]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in _maps(spec.get(field)):
            for env in _maps(container.get("env")):
                source = _map(env.get("valueFrom"))
                yield "configmaps", _text(_map(source.get("configMapKeyRef")).get("name"))
                yield "secrets", _text(_map(source.get("secretKeyRef")).get("name"))
            for env in _maps(container.get("envFrom")):
                yield "configmaps", _text(_map(env.get("configMapRef")).get("name"))
                yield "secrets", _text(_map(env.get("secretRef")).get("name"))


def _of_pulls(spec: Object) -> Iterator[tuple[str, str]]:
    for pull in _maps(spec.get("imagePullSecrets")):
        yield "secrets", _text(pull.get("name"))


def _map(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> list[Object]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
