"""What must be in the end, when everything is healed: worked out from CLUSTER alone, compared with stores, engines and API.

Simple and slow on purpose: it shares no code with the dispatcher, the replica or the cores of the edge.
"""

from __future__ import annotations

from typing import Any

from ops.sim import controlled as controlling
from ops.sim.checkers import Address, ReportChecker, read
from ops.sim.edge import Edge
from ops.sim.hub import Hub
from schemas import event

Object = dict[str, Any]
Objects = dict[tuple[str, str, str], Object]  # (resource, namespace, name)
DEVICES = "devices.kubeedge.io"
DISPATCHED = ("nodes", "pods", "configmaps", "secrets", "services", "devices", "devicemodels")


def cluster(hub: Hub) -> Objects:
    found: Objects = {}
    for record in hub.streams["CLUSTER"].history:
        raw = read(record.payload)
        key = (raw["resource"], raw.get("namespace", ""), raw["name"])
        if raw["type"] == event.OBJECT_DELETED:
            found.pop(key, None)
        else:
            found[key] = raw["data"]
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
        obj["metadata"] = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
        out[node, group, *key] = obj
    return out


def _named(resource: str, namespace: str, obj: Object) -> set[tuple[str, str, str]]:
    spec = obj["spec"]
    if resource == "devices":
        return {("devicemodels", namespace, spec["deviceModelRef"]["name"])}
    maps = {("configmaps", namespace, v["configMap"]["name"]) for v in spec.get("volumes", [])}
    env = [e for c in spec["containers"] for e in c.get("env", [])]
    return maps | {("secrets", namespace, e["valueFrom"]["secretKeyRef"]["name"]) for e in env}


def differences(hub: Hub, edges: list[Edge], said: ReportChecker, *, controlled: bool = False) -> list[str]:
    """Empty when all is as it must be.  ``controlled``: controllers run."""
    objects = cluster(hub)
    out: list[str] = []
    for edge in edges:
        out.extend(_replica(objects, edge))
        out.extend(_engine(objects, edge))
    out.extend(f"not reported: {s}" for s in said.owed())
    out.extend(_statuses(objects, edges))
    if controlled:
        out.extend(controlling.differences(objects))
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
            for v in obj["spec"].get("volumes", []):
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


def _statuses(objects: Objects, edges: list[Edge]) -> list[str]:
    """The API shows what is: nodes are ready, pods as their engines run them, devices as they are set."""
    out: list[str] = []
    by_name = {e.name: e for e in edges}
    for edge in edges:
        status = objects.get(("nodes", "", edge.name), {}).get("status", {})
        ready = [c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"]
        if ready != ["True"]:
            out.append(f"the API shows {edge.name} Ready {ready}")
        if edge.fenced:  # no clone is left
            out.append(f"{edge.name} is fenced")
    for (resource, namespace, name), obj in objects.items():
        node = by_name.get(obj.get("spec", {}).get("nodeName"))
        if resource == "pods" and node is not None:
            out += _pod_status(namespace, name, obj, node)
        if resource == "devices" and node is not None:
            out += _device_status(objects, namespace, name, obj, node)
    return out


def _pod_status(namespace: str, name: str, obj: Object, node: Edge) -> list[str]:
    if "deletionTimestamp" in obj["metadata"]:
        return [f"pod {namespace}/{name} is still being deleted"]
    status, uid = obj.get("status", {}), obj["metadata"]["uid"]
    ready = [c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"]
    if status.get("phase") != "Running" or ready != ["True"]:
        return [f"the API shows pod {namespace}/{name} {status.get('phase')} Ready {ready}"]
    shown = {
        (c["name"], c["containerID"].rpartition("/")[2]) for c in status["containerStatuses"] if "running" in c["state"]
    }
    running = [c for c in node.engine.containers.values() if c.state == "running" and c.pod_uid == uid]
    runs = {(c.container, c.id) for c in running if c.container}
    if shown != runs:
        return [f"the API shows pod {namespace}/{name} with {sorted(shown)}, {node.name} runs {sorted(runs)}"]
    ip = next((c.ip for c in running if not c.container), "")
    return (
        [f"the API shows pod {namespace}/{name} at {status.get('podIP')}, it is at {ip}"]
        if status.get("podIP") != ip
        else []
    )


def _device_status(objects: Objects, namespace: str, name: str, obj: Object, node: Edge) -> list[str]:
    """With its model it is set to what is desired, says so, and the API shows it."""
    if ("devicemodels", namespace, obj["spec"]["deviceModelRef"]["name"]) not in objects:
        return []
    desired = obj["spec"]["properties"][0]["desired"]["value"]
    shown = objects.get(("devicestatuses", namespace, name), {}).get("status", {})
    told = [t.get("reported", {}).get("value") for t in shown.get("twins", [])]
    is_set = node.mapper.values.get(obj["metadata"]["uid"])
    if told != [desired] or is_set != desired:
        return [f"device {namespace}/{name} shall be {desired}, is {is_set}, the API shows {told}"]
    return []
