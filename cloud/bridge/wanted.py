"""Which objects of the cluster some edge needs: nodes that are edges, pods and devices on them, and what those name.

Pure, and as large as what is mirrored.  A pod or device that is held stays wanted while it exists, even when its Node object
has gone: only the cluster's own deletion ends what runs, never a guess of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloud.bridge.kinds import DEVICE, DEVICES, NODES, PODS
from cloud.core import needs
from schemas.subjects import ObjectKey


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
        if kind in (NODES, ("", "events")):
            return True  # its source selects already
        if kind == ("", "services"):
            return key.namespace in self._spaces
        if kind == (DEVICES, "devicestatuses"):
            return ObjectKey(*DEVICE, key.namespace, key.name) in self._named
        return key in self._count

    def refer(self, key: ObjectKey, obj: dict[str, Any]) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """A pod or device is held, as it is now; the keys that are wanted since, and those that nobody wants any more."""
        found = needs.of(key, obj)
        names = tuple(k for k in found.keys if k != key and k.name != needs.ANY) if found else ()
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


def _node(obj: dict[str, Any]) -> str:
    spec = obj.get("spec")
    name = spec.get("nodeName") if isinstance(spec, dict) else None
    return name if isinstance(name, str) else ""
