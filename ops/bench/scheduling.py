"""How many pods a second find a node: the scheduler's decisions alone, on an API in memory (no log, no disk, no other
controller).  The cost of a pod grows with the nodes, never with the pods: that is what the rows show, also for replicas that
keep apart from each other, and for pods that find no room."""

from __future__ import annotations

import time
from typing import Any

from bus.kube.catalog import Catalog
from bus.kube.memory import MemoryStorage
from bus.kube.storage import Origin
from cloud.standalone.controllers import scheduler
from cloud.standalone.view import IndexedView
from schemas.subjects import ObjectKey

NODES = 1_000
PODS = (500, 2_000)
ROOM_CPU = "8"
Object = dict[str, Any]
_BENCH = Origin("bench")


async def measure() -> list[dict[str, Any]]:
    rows = []
    for what in ("plain", "spread over ten zones", "too large for any node"):
        for pods in PODS:
            rows.append({"pods": what, "nodes": NODES, "count": pods, "pods_s": round(await _rate(what, pods))})
    return rows


async def _rate(what: str, pods: int) -> float:
    storage = MemoryStorage()
    view = IndexedView(storage, Catalog(storage))
    for i in range(NODES):
        view.fold(await storage.create(ObjectKey("", "nodes", "", f"n{i:05}"), _node(i), _BENCH))
    keys = [ObjectKey("", "pods", "default", f"p{i:06}") for i in range(pods)]
    for key in keys:
        view.fold(await storage.create(key, _pod(key.name, what), _BENCH))
    now = time.time_ns() // 1000
    began = time.perf_counter()
    for key in keys:
        plan = scheduler.reconcile(view, key, now)
        bind = next((w for w in plan.writes if w.verb == "bind"), None)
        assert (bind is None) == (what == "too large for any node"), plan
        if bind is not None and bind.object is not None:
            pod = storage.get(key)
            assert pod is not None
            bound = {**pod.object, "spec": {**pod.object["spec"], "nodeName": bind.object["target"]["name"]}}
            view.fold(await storage.replace(key, bound, pod.rev, _BENCH))
    return pods / (time.perf_counter() - began)


def _node(i: int) -> Object:
    name = f"n{i:05}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": f"z{i % 10}"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": ROOM_CPU, "memory": "16Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _pod(name: str, what: str) -> Object:
    cpu = "64" if what.startswith("too large") else "100m"
    spec: Object = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]}
    if what.startswith("spread"):
        selector = {"matchLabels": {"app": "web"}}
        rule = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
        spec["topologySpreadConstraints"] = [rule]
    meta = {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}}
