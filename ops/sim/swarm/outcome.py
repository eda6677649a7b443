"""What must be in the end, when everything is healed: worked out from CLUSTER alone, compared with stores, engines and API.

Simple and slow on purpose: it shares no code with the dispatcher, the replica or the cores of the edge.
"""

from __future__ import annotations

from typing import Any

from ops.sim.swarm.api import Api
from ops.sim.swarm.checkers import Address, ReportChecker, read
from ops.sim.swarm.edge import Edge
from schemas import subjects

Object = dict[str, Any]
Objects = dict[tuple[str, str, str], Object]  # (resource, namespace, name)
DEVICES = "devices.kubeedge.io"
DISPATCHED = ("nodes", "pods", "configmaps", "secrets", "services", "devices", "devicemodels")


def cluster(api: Api) -> Objects:
    found: Objects = {}
    for _, ev in api.list():
        assert ev.data is not None
        found[ev.resource, ev.namespace, ev.name] = ev.data
    return found


def wanted(objects: Objects, node: str) -> dict[Address, Object]:
    """What a node's scope must hold: itself, its pods and devices, and what these name."""
    keys: set[tuple[str, str, str]] = set()
    for (resource, namespace, name), obj in objects.items():
        if resource == "nodes" and name == node:
            keys.add((resource, namespace, name))
        if resource in ("pods", "devices") and obj["spec"].get("nodeName") == node:
            keys.add((resource, namespace, name))
            keys.update(_named(resource, namespace, obj))
            if resource == "pods":
                keys.update(k for k in objects if k[:2] == ("services", namespace))
    out: dict[Address, Object] = {}
    for key in keys & set(objects):
        group = DEVICES if key[0] in ("devices", "devicemodels") else ""
        obj = {k: v for k, v in objects[key].items() if not (k == "status" and key[0] in ("nodes", "pods", "devices"))}
        out[node, group, *key] = obj
    return out


def _named(resource: str, namespace: str, obj: Object) -> set[tuple[str, str, str]]:
    spec = obj["spec"]
    if resource == "devices":
        return {("devicemodels", namespace, spec["deviceModelRef"]["name"])}
    maps = {("configmaps", namespace, v["configMap"]["name"]) for v in spec["volumes"]}
    env = [e for c in spec["containers"] for e in c["env"]]
    return maps | {("secrets", namespace, e["valueFrom"]["secretKeyRef"]["name"]) for e in env}


def differences(api: Api, edges: list[Edge], said: ReportChecker) -> list[str]:
    """Empty when all is as it must be."""
    objects = cluster(api)
    out: list[str] = []
    for edge in edges:
        out.extend(_replica(objects, edge))
        out.extend(_engine(objects, edge))
    out.extend(f"not reported: {s}" for s in said.owed())
    out.extend(_statuses(objects, edges, said))
    return out


def _replica(objects: Objects, edge: Edge) -> list[str]:
    held = {}
    for scope in edge.scopes:
        for key, value in edge.disk.raw.items("objects", scope.encode() + b"\0"):
            held[tuple(p.decode() for p in key.split(b"\0"))] = read(value[8:]).get("data")
    want = wanted(objects, edge.name)
    out = [f"{edge.name} lacks {k}" for k in sorted(set(want) - set(held))]
    out += [f"{edge.name} still holds {k}" for k in sorted(set(held) - set(want))]
    out += [f"{edge.name} has another {k}" for k in sorted(set(held) & set(want)) if held[k] != want[k]]
    return out


def _engine(objects: Objects, edge: Edge) -> list[str]:
    """One running container for each one of the node's pods, its volumes as they are now, and nothing else."""
    want: dict[tuple[str, str], str] = {}
    out: list[str] = []
    for (resource, namespace, name), obj in objects.items():
        if resource == "pods" and obj["spec"].get("nodeName") == edge.name and "deletionTimestamp" not in obj["metadata"]:
            uid = obj["metadata"]["uid"]
            want[uid, ""] = "pause"
            want |= {(uid, c["name"]): c["image"] for c in obj["spec"]["containers"]}
            for v in obj["spec"]["volumes"]:
                source = objects.get(("configmaps", namespace, v["configMap"]["name"]), {})
                now = {k: t.encode() for k, t in source.get("data", {}).items()}
                disk = edge.engine.volumes.get(uid, {}).get(v["name"], {})
                if disk != now:
                    out.append(f"{edge.name} {namespace}/{name}: volume {v['name']} is {_short(disk)}, not {_short(now)}")
    runs = {(c.pod_uid, c.container): c.image for c in edge.engine.containers.values() if c.state == "running"}
    out += [f"{edge.name} does not run {k} of {want[k]}" for k in sorted(set(want) - set(runs))]
    out += [f"{edge.name} still runs {k}" for k in sorted(set(runs) - set(want))]
    out += [f"{edge.name} runs {k} of {runs[k]}" for k in sorted(set(want) & set(runs)) if runs[k] != want[k]]
    return out


def _short(files: dict[str, bytes]) -> str:
    return str({k: v[:12] for k, v in files.items()})


def _statuses(objects: Objects, edges: list[Edge], said: ReportChecker) -> list[str]:
    """The API shows what the nodes said last, and every node is ready."""
    out: list[str] = []
    shards = edges[0].shards
    names = {e.name for e in edges}
    for edge in edges:
        status = objects.get(("nodes", "", edge.name), {}).get("status", {})
        ready = [c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"]
        if ready != ["True"]:
            out.append(f"the API shows {edge.name} Ready {ready}")
    for (resource, namespace, name), obj in objects.items():
        node = obj.get("spec", {}).get("nodeName")
        if resource == "pods" and node in names:
            out += _pod_status(namespace, name, obj, said.newest.get(subjects.report(node, "pod", shards, namespace, name)))
        if resource == "devices" and node in names:
            told = said.newest.get(subjects.report(node, "twin", shards, namespace, name))
            shown = objects.get(("devicestatuses", namespace, name), {}).get("status", {})
            value = [t.get("reported", {}).get("value") for t in shown.get("twins", [])]
            if value != [str(obj["spec"]["setting"])]:
                out.append(f"the API shows device {namespace}/{name} with {value}, told {told is not None}")
    return out


def _pod_status(namespace: str, name: str, obj: Object, said: Any) -> list[str]:
    if "deletionTimestamp" in obj["metadata"]:
        return [f"pod {namespace}/{name} is still being deleted"]
    if said is None:
        return [f"nobody reported pod {namespace}/{name}"]
    report = read(said.payload)["data"]
    if report["uid"] != obj["metadata"]["uid"] or report["status"] is None:
        return [f"the last report of pod {namespace}/{name} is of {report['uid']}, gone: {report['status'] is None}"]
    shown, told = obj.get("status", {}), report["status"]
    wrong = [k for k in ("phase", "podIP", "containerStatuses") if shown.get(k) != told.get(k)]
    conditions = {c["type"]: c["status"] for c in shown.get("conditions", [])}
    wrong += [c["type"] for c in told.get("conditions", []) if conditions.get(c["type"]) != c["status"]]
    return [f"the API shows another {wrong} of pod {namespace}/{name}"] if wrong else []
