"""Small worlds for the cores' tests: events from plain objects, and a META log that keeps its promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from schemas import event as events
from schemas.event import Event
from schemas.subjects import ObjectKey

DEVICES = "devices.kubeedge.io"
PLURAL = {
    "Pod": ("", "pods"),
    "ConfigMap": ("", "configmaps"),
    "Secret": ("", "secrets"),
    "Service": ("", "services"),
    "Node": ("", "nodes"),
    "Device": (DEVICES, "devices"),
    "DeviceModel": (DEVICES, "devicemodels"),
    "Deployment": ("apps", "deployments"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "PersistentVolume": ("", "persistentvolumes"),
}
CLUSTER_WIDE = ("Node", "PersistentVolume")


def key(kind: str, name: str, namespace: str = "default") -> ObjectKey:
    group, resource = PLURAL[kind]
    return ObjectKey(group, resource, "" if kind in CLUSTER_WIDE else namespace, name)


def pod(name: str, node: str | None, *, uses: tuple[str, ...] = (), uid: str = "", **extra: Any) -> dict[str, Any]:
    """``uses``: names of config maps (``c...``), secrets (``s...``) and claims (``k...``), as volumes."""
    sources = {"c": ("configMap", "name"), "s": ("secret", "secretName"), "k": ("persistentVolumeClaim", "claimName")}
    volumes = [{"name": u, sources[u[0]][0]: {sources[u[0]][1]: u}} for u in uses]
    spec: dict[str, Any] = {"containers": [{"name": "a", "image": "busybox"}], "volumes": volumes}
    if node:
        spec["nodeName"] = node
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"u-{name}"},
        "spec": spec,
        **extra,
    }


def thing(kind: str, name: str, *, uid: str = "", **extra: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": uid or f"u-{name}"} | ({} if kind in CLUSTER_WIDE else {"namespace": "default"})
    return {"kind": kind, "metadata": meta, **extra}


def event(obj: dict[str, Any], seq: int, *, deleted: bool = False, scope: str = "", rev: int = 0) -> Event:
    k = key(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
    ident = events.uuid7(seq * 1000, seq.to_bytes(10, "big"))
    return Event(
        id=ident,
        type=events.OBJECT_DELETED if deleted else events.OBJECT_APPLIED,
        scope=scope,
        group=k.group,
        resource=k.resource,
        namespace=k.namespace,
        name=k.name,
        uid=obj["metadata"]["uid"],
        rev=rev,
        time=seq,
        source="test",
        trace=ident,
        data=None if deleted else obj,
    )


@dataclass
class Cluster:
    """CLUSTER in memory: the last event of each object, and all of them in order."""

    seq: int = 0
    last: dict[ObjectKey, tuple[int, Event]] = field(default_factory=dict)
    log: list[stimuli.ClusterEvent] = field(default_factory=list)

    def apply(self, obj: dict[str, Any], *, deleted: bool = False) -> stimuli.ClusterEvent:
        self.seq += 1
        ev = event(obj, self.seq, deleted=deleted)
        self.last[ev.key] = (self.seq, ev)
        self.log.append(stimuli.ClusterEvent(self.seq, ev))
        return self.log[-1]

    def fold(self) -> list[stimuli.ClusterEvent]:
        return [stimuli.ClusterEvent(seq, ev) for seq, ev in sorted(self.last.values(), key=lambda e: e[0])]


@dataclass
class Meta:
    """META in memory: refuses an append whose expectation is wrong, and checks every chain."""

    seq: int = 0
    heads: dict[str, int] = field(default_factory=dict)
    last: dict[tuple[str, ObjectKey], stimuli.MetaEvent] = field(default_factory=dict)
    log: list[tuple[int, stimuli.Append]] = field(default_factory=list)

    def append(self, a: stimuli.Append) -> int | None:
        """The sequence, or None: conflict."""
        if self.heads.get(a.scope, 0) != a.prev:
            return None
        self.seq += 1
        self.heads[a.scope] = self.seq
        obj = a.data or {"kind": next(k for k, v in PLURAL.items() if v == (a.key.group, a.key.resource))}
        obj = obj | {"metadata": obj.get("metadata", {"name": a.key.name, "namespace": a.key.namespace, "uid": a.uid})}
        ev = event(obj, self.seq, deleted=a.data is None, scope=a.scope, rev=a.rev)
        self.last[(a.scope, a.key)] = stimuli.MetaEvent(self.seq, a.scope, a.key, ev)
        self.log.append((self.seq, a))
        return self.seq

    def of(self, scope: str) -> tuple[stimuli.MetaEvent, ...]:
        return tuple(e for (s, _), e in self.last.items() if s == scope)

    def holds(self, scope: str) -> dict[ObjectKey, dict[str, Any]]:
        return {k: e.event.data for (s, k), e in self.last.items() if s == scope and e.event and e.event.data is not None}


def start(cluster: Cluster, meta: Meta, **how: Any) -> tuple[Dispatcher, list[stimuli.Instruction]]:
    core = Dispatcher(shards=4, **how)
    for m in meta.last.values():
        assert core.handle(m) == []
    for c in cluster.fold():
        assert core.handle(c) == []
    return core, core.handle(stimuli.Loaded(cluster.seq))


def settle(core: Dispatcher, work: list[stimuli.Instruction], cluster: Cluster, meta: Meta) -> list[stimuli.Append]:
    """Runs instructions until there are none; returns the appends that landed, in order."""
    landed = []
    work = list(work)
    while work:
        todo = work.pop(0)
        if isinstance(todo, stimuli.ReloadScope):
            work += core.handle(stimuli.ScopeReloaded(todo.scope, meta.of(todo.scope), cluster.seq))
            continue
        seq = meta.append(todo)
        if seq is None:
            work += core.handle(stimuli.AppendConflict(todo.scope))
        else:
            landed.append(todo)
            work += core.handle(stimuli.Appended(todo.scope, seq))
    return landed
