"""A small made-up history: one pod, from kubectl to its status, and what happened beside it."""

from __future__ import annotations

from typing import Any

from ops.replay.entries import Entry
from schemas import event, subjects

T = 1_790_000_000_000_000
MS = 1000
POD = subjects.ObjectKey("", "pods", "default", "web-1")
SHARDS = 1


def id_of(n: int) -> str:
    return event.uuid7(T + n * MS, bytes([n] * 10))


class History:
    """Appends entries as a hub would: one sequence a stream, stored a little after the event's own time."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._seq: dict[str, int] = {}

    def add(self, n: int, subject: str, **fields: Any) -> str:
        stream = subjects.stream_of(subject)
        self._seq[stream] = self._seq.get(stream, 0) + 1
        at = fields.pop("at", n)
        values: dict[str, Any] = {
            "id": id_of(n), "type": event.OBJECT_APPLIED, "time": T + at * MS, "trace": id_of(n),
            "source": "cloud/api@0.1.0", "resource": "pods", "name": "web-1", "namespace": "default",
        }  # fmt: skip
        ev = event.Event(**(values | fields))
        self.entries.append(Entry(stream, self._seq[stream], subject, T + n * MS, ev))
        return ev.id

    def cluster(self, n: int, key: subjects.ObjectKey = POD, **fields: Any) -> str:
        address = {"group": key.group, "resource": key.resource, "namespace": key.namespace, "name": key.name}
        return self.add(n, subjects.cluster(key), **(address | fields))

    def meta(self, n: int, scope: str, key: subjects.ObjectKey = POD, **fields: Any) -> str:
        address = {
            "group": key.group,
            "resource": key.resource,
            "namespace": key.namespace,
            "name": key.name,
            "scope": scope,
        }
        return self.add(n, subjects.meta(scope, key, SHARDS), source="cloud/dispatcher@0.1.0", **(address | fields))

    def report(self, n: int, node: str, key: subjects.ObjectKey = POD, **fields: Any) -> str:
        where = {"scope": node, "resource": "pod", "namespace": key.namespace, "name": key.name, "type": event.REPORT}
        subject = subjects.report(node, "pod", SHARDS, key.namespace, key.name)
        return self.add(n, subject, source="edge/daemon@0.1.0", actor=node, **(where | fields))


def main_job(clock_ms: int = 0) -> History:
    """``clock_ms``: how far the node's clock is off."""
    h = History()
    deployment = subjects.ObjectKey("apps", "deployments", "default", "web")
    replicas = subjects.ObjectKey("apps", "replicasets", "default", "web-abc")
    other = subjects.ObjectKey("", "pods", "default", "web-2")
    first = h.cluster(1, deployment, actor="admin", data={"spec": {}})
    second = h.cluster(2, replicas, actor="deployment-controller", cause=first, trace=first)
    made = h.cluster(3, actor="replicaset-controller", cause=second, trace=first, uid="u1")
    h.cluster(4, other, actor="replicaset-controller", cause=second, trace=first)
    bound = h.cluster(5, actor="scheduler", cause=made, trace=first, uid="u1", data={"spec": {"nodeName": "edge-1"}})
    told = h.meta(7, "edge-1", cause=bound, trace=first)
    c = clock_ms
    hops = [
        {"what": "edge.applied", "time": T + (9 + c) * MS, "about": str(POD)},
        {"what": "container.started", "time": T + (40 + c) * MS, "about": "web"},
    ]
    said = h.report(
        50, "edge-1", cause=told, trace=first, at=48 + c, data={"uid": "u1", "status": {"phase": "Running"}, "hops": hops}
    )
    h.cluster(55, actor="reports", cause=said, trace=first, uid="u1")
    h.cluster(90, subjects.ObjectKey("", "configmaps", "default", "x"), actor="admin")
    return h
