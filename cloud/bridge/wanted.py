"""Which objects of the cluster some edge needs: nodes that are edges, pods and devices on them, and what those name.

Pure, and as large as what is mirrored.  A pod or device that is held stays wanted while it exists, even when its Node object
has gone: only the cluster's own deletion ends what runs, never a guess of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cloud.bridge.kinds import CLAIMS, DEVICE, DEVICES, FLEET, NODES, PODS, RUNTIMES, SERVICES, SLICES, VOLUMES
from cloud.core import needs
from schemas import pod_tokens
from schemas.subjects import ObjectKey

_ALL = {NODES, ("", "events"), *((k.group, k.resource) for k in FLEET)}  # their sources select already


class Wanted:
    """References are counted: two pods may name one config map."""

    def __init__(self) -> None:
        self._edges: set[str] = set()
        self._named: dict[ObjectKey, tuple[ObjectKey, ...]] = {}  # by referrer
        self._count: dict[ObjectKey, int] = {}
        self._spaces: dict[str, int] = {}

    @property
    def namespaces(self) -> frozenset[str]:
        """Those with edge pods."""
        return frozenset(self._spaces)

    def is_edge(self, node: str) -> bool:
        return node in self._edges

    def edge(self, name: str, present: bool) -> bool:
        """A Node that is an edge came or went; True when it is new."""
        if present:
            new = name not in self._edges
            self._edges.add(name)
            return new
        self._edges.discard(name)
        return False

    def wants(self, key: ObjectKey, obj: dict[str, Any] | None = None) -> bool:
        """``obj`` decides for pods and devices that aren't held."""
        kind = (key.group, key.resource)
        if kind in (PODS, DEVICE):
            return key in self._named or (obj is not None and _node(obj) in self._edges)
        if kind in _ALL:
            return True
        if kind == SERVICES and key.namespace == needs.API.namespace:
            return True
        if kind in (SERVICES, SLICES):
            return key.namespace in self._spaces
        if kind == VOLUMES and obj is not None and "spec" in obj and not _local(obj):
            return False
        if kind == (DEVICES, "devicestatuses"):
            return ObjectKey(*DEVICE, key.namespace, key.name) in self._named
        return key in self._count

    def refer(self, key: ObjectKey, obj: dict[str, Any]) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """A pod, device or claim is held, as it is now; the keys that are wanted since, and those that nobody wants."""
        names = tuple(dict.fromkeys(_named(key, obj)))
        before = self._named.get(key)
        self._named[key] = names
        if before is None and key.resource == "pods":
            self._spaces[key.namespace] = self._spaces.get(key.namespace, 0) + 1
        new = []
        for k in names:
            self._count[k] = self._count.get(k, 0) + 1
            if self._count[k] == 1:
                new.append(k)
        return new, self._release(before or ())

    def forget(self, key: ObjectKey) -> list[ObjectKey]:
        """A pod or device is gone; the keys that nobody wants since (devicestatuses and services are asked by ``wants``)."""
        names = self._named.pop(key, None)
        if names is None:
            return []
        if key.resource == "pods":
            self._spaces[key.namespace] -= 1
            if not self._spaces[key.namespace]:
                del self._spaces[key.namespace]
        return self._release(names)

    def _release(self, names: Iterable[ObjectKey]) -> list[ObjectKey]:
        gone = []
        for k in names:
            self._count[k] -= 1
            if not self._count[k]:
                del self._count[k]
                gone.append(k)
        return gone


def _named(key: ObjectKey, obj: dict[str, Any]) -> Iterator[ObjectKey]:
    """What its node is to be told of, and what the cluster's side of Skerry needs beside."""
    found, spec = needs.of(key, obj), _map(obj, "spec")
    for k in found.keys if found else ():
        if k != key and k.name != needs.ANY and k.resource != pod_tokens.RESOURCE and k != needs.API:
            yield k
    if (key.group, key.resource) == CLAIMS and isinstance(name := spec.get("volumeName"), str) and name:
        yield ObjectKey(*VOLUMES, "", name)
    if (key.group, key.resource) != PODS:
        return
    account, runtime = spec.get("serviceAccountName"), spec.get("runtimeClassName")
    if isinstance(account, str) and account:
        yield ObjectKey("", "serviceaccounts", key.namespace, account)
    if isinstance(runtime, str) and runtime:
        yield ObjectKey(*RUNTIMES, "", runtime)
    volumes = spec.get("volumes")
    for volume in volumes if isinstance(volumes, list) else []:
        if not isinstance(volume, dict):
            continue
        claim = _map(volume, "persistentVolumeClaim").get("claimName")
        if isinstance(volume.get("ephemeral"), dict):  # Kubernetes, "Ephemeral Volumes": the claim's name is made of both
            claim = f"{key.name}-{volume.get('name')}"
        if isinstance(claim, str) and claim:
            yield ObjectKey(*CLAIMS, key.namespace, claim)


def _local(volume: dict[str, Any]) -> bool:
    """Whether a persistent volume is on a node's own disk: no other reaches an edge."""
    return any(k in _map(volume, "spec") for k in ("local", "hostPath"))


def _map(obj: dict[str, Any], field: str) -> dict[str, Any]:
    found = obj.get(field)
    return found if isinstance(found, dict) else {}


def _node(obj: dict[str, Any]) -> str:
    spec = obj.get("spec")
    name = spec.get("nodeName") if isinstance(spec, dict) else None
    return name if isinstance(name, str) else ""
