"""How a report becomes part of an API object: pure merges, each ``(current, report, ...) -> what it should be``.

Every merge keeps what is not the edge's: labels and taints of operators, conditions of other controllers.  And every merge
is idempotent: applied to its own result it changes nothing, so a report that is told twice writes nothing.

Rules from: Kubernetes documentation, "Nodes" (conditions, well-known taints), "Pod Lifecycle"; API conventions (conditions);
KubeEdge devicestatus_types.go as in its resource definition (v1beta1).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from schemas import reports, telemetry, times
from schemas.subjects import ObjectKey

Object = dict[str, Any]

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
LINK_LOST = "LinkLost"
DUPLICATE = "DuplicateIdentity"  # two daemons live on the node's identity (cloud/clones.py)
FLOODING = "Flooding"  # the node sent too much: its door at the hub is shut for a while (cloud/gatekeeper.py)
MARKS = {DUPLICATE: ("TwoDaemons", "OneDaemon"), FLOODING: ("DoorShut", "DoorOpen")}  # reasons while it is so, and when not
OWN_CONDITIONS = frozenset({"Ready", *MARKS})  # of a node: written here, from the report and the link


# --- nodes -----------------------------------------------------------------------------------------------------------


def new_node(name: str) -> Object:
    """The Node as it is registered; labels, taints and status come from the merges below."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}}, "spec": {}}


def node_main(current: Object, report: reports.NodeReport | None, unknown: str | None) -> Object:
    """Labels and taints.  ``unknown``: since when the link is lost, None while it is up."""
    meta = dict(current["metadata"])
    if report is not None:
        meta["labels"] = {**(meta.get("labels") or {}), **_labels(meta["name"], report)}
    spec = dict(current.get("spec") or {})
    if report is not None or unknown is not None:
        ours = UNREACHABLE if unknown is not None else None if report is None or report.ready else NOT_READY
        spec["taints"] = _taints(spec.get("taints"), ours)
        if not spec["taints"]:
            del spec["taints"]
    return {**current, "metadata": meta, "spec": spec}


def _labels(name: str, report: reports.NodeReport) -> dict[str, str]:
    info = report.status.get("nodeInfo")
    info = info if isinstance(info, dict) else {}
    own = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": info.get("operatingSystem"),
        "kubernetes.io/arch": info.get("architecture"),
    }
    return {**report.labels, **{k: v for k, v in own.items() if isinstance(v, str)}, "node-role.kubernetes.io/edge": ""}


def _taints(current: object, ours: str | None) -> list[Any]:
    """NoSchedule only: a cut link says nothing about the pods behind it, so nothing is ever evicted for it."""
    kept = []
    for t in current if isinstance(current, list) else []:
        if not (isinstance(t, dict) and t.get("effect") == "NoSchedule" and t.get("key") in (UNREACHABLE, NOT_READY)):
            kept.append(t)
        elif t.get("key") == ours:
            kept.append(t)
            ours = None
    return kept if ours is None else [*kept, {"key": ours, "effect": "NoSchedule"}]


def node_status(current: Object, report: reports.NodeReport | None, unknown: str | None, now_us: int) -> Object:
    """While the link is lost all that the node said about itself is Unknown, and says since when."""
    old = current.get("status") or {}
    told = report.status if report is not None else {}
    said = [c for c in _maps(told.get("conditions")) if c.get("type") not in OWN_CONDITIONS]
    if unknown is not None:
        names = dict.fromkeys([*(c.get("type") for c in said), "Ready"])
        now = [_unknown(name, unknown) for name in names]
    elif report is not None:
        now = [*said, _ready(report)]
    else:
        return current
    merged = {**old, **told, "conditions": merge_conditions(old.get("conditions"), now, now_us)}
    if isinstance(merged.get("nodeInfo"), dict):  # what nobody said is stored as ""
        blank = {k: "" for k, v in (old.get("nodeInfo") or {}).items() if v == ""}
        merged["nodeInfo"] = {**blank, **merged["nodeInfo"]}
    if not merged.get("volumesInUse"):
        merged.pop("volumesInUse", None)  # no volumes is no field, as the API stores it
    return {**current, "status": merged}


def _unknown(name: object, since: str) -> Object:
    return {"type": name, "status": "Unknown", "reason": LINK_LOST, "message": since}


def _ready(report: reports.NodeReport) -> Object:
    if report.ready:
        return {
            "type": "Ready",
            "status": "True",
            "reason": "EdgeReady",
            "message": report.message or "the edge daemon is ready",
        }
    return {"type": "Ready", "status": "False", "reason": report.reason or "EdgeNotReady", "message": report.message}


DEVICES = "devices.skerry.io/"
_RESOURCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")  # a qualified name's second part


def with_devices(current: Object, models: Iterable[str]) -> Object:
    """What a pod can ask for: so many devices of each model are bound to the node (Kubernetes, "Extended Resources").  A
    model whose name is no name of a resource is not offered."""
    counts = Counter(m for m in models if _RESOURCE.match(m))
    offered = {f"{DEVICES}{m}": str(n) for m, n in sorted(counts.items())}
    status = dict(current.get("status") or {})
    for field in ("capacity", "allocatable"):
        sizes = status.get(field)
        if isinstance(sizes, dict):
            status[field] = {k: v for k, v in sizes.items() if not k.startswith(DEVICES)} | offered
    return {**current, "status": status} if status else current


def unknown_since(obj: Object) -> str | None:
    """The message of a node whose link was already known to be lost."""
    for c in _maps((obj.get("status") or {}).get("conditions")):
        if c.get("type") == "Ready" and c.get("status") == "Unknown" and c.get("reason") == LINK_LOST:
            return str(c.get("message"))
    return None


def with_mark(current: Object, mark: str, message: str, now_us: int) -> Object:
    """A condition that the cloud has of the node itself; ``message`` "" when it is over."""
    yes, no = MARKS[mark]
    said = {"type": mark, "status": "True" if message else "False", "reason": yes if message else no, "message": message}
    old = current.get("status") or {}
    return {**current, "status": {**old, "conditions": merge_conditions(old.get("conditions"), [said], now_us)}}


def marked(obj: Object, mark: str) -> str:
    """The message of a node that has the mark, "" for any other."""
    for c in _maps((obj.get("status") or {}).get("conditions")):
        if c.get("type") == mark and c.get("status") == "True":
            return str(c.get("message")) or mark
    return ""


# --- pods ------------------------------------------------------------------------------------------------------------

_KEPT_IN_POD_STATUS = ("qosClass", "nominatedNodeName")


def pod_status(current: Object, status: Object | None, unknown: str | None, now_us: int) -> Object:
    """The reported status.  While the node's link is lost the phase stays (nobody knows better), only ``Ready`` becomes
    Unknown: so a Service drops the pod, a Deployment counts it as unavailable, and ``kubectl get`` still shows what ran.
    A replacement is never made for it: the pod very likely runs, and two of one would be worse."""
    old = current.get("status") or {}
    new = {k: old[k] for k in _KEPT_IN_POD_STATUS if k in old} | status if status is not None else dict(old)
    if "startTime" in old:
        new["startTime"] = old["startTime"]  # when a node first took it on: one that lost its disk doesn't know any more
    said = _maps(new.get("conditions"))
    if unknown is not None:
        said = [c if c.get("type") != "Ready" else _unknown("Ready", unknown) for c in said]
    new["conditions"] = merge_conditions(old.get("conditions"), said, now_us)
    if not new["conditions"]:
        del new["conditions"]
    return {**current, "status": new}


def merge_conditions(old: object, new: Iterable[Object], now_us: int) -> list[Object]:
    """``new`` over ``old`` by type.  A transition time moves only with the status; heartbeats alone are no change."""
    by_type = {c.get("type"): c for c in _maps(old)}
    for c in new:
        before = by_type.get(c.get("type"))
        merged = {k: v for k, v in c.items() if k != "lastHeartbeatTime" and v not in ("", None)}
        if before is not None and before.get("status") == c.get("status"):
            keep = before.get("lastTransitionTime")
            if keep is not None:
                merged["lastTransitionTime"] = keep
        else:
            merged["lastTransitionTime"] = _later(c, before) or times.rfc3339(now_us)
        blank = {k: None for k, v in (before or {}).items() if v is None}  # as the API stores what nobody said
        by_type[c.get("type")] = {**blank, **merged}
    return list(by_type.values())


def _later(c: Object, before: Object | None) -> str | None:
    """The transition time that a condition brings along, unless another transition happened since (a link came back)."""
    own, last = times.micros(c.get("lastTransitionTime")), times.micros((before or {}).get("lastTransitionTime"))
    return times.rfc3339(own) if own is not None and (last is None or own > last) else None


# --- devices ---------------------------------------------------------------------------------------------------------


def device_status(current: Object | None, device: Object, report: reports.TwinReport, time_us: int) -> Object:
    """The DeviceStatus of the device's name, owned by the Device, so that it goes with it."""
    meta = device["metadata"]
    status: Object = {"state": report.state, "twins": [_twin(t) for t in report.twins]}
    before = ((current or {}).get("status") or {}).get("lastOnlineTime")
    if report.state == "online":
        status["lastOnlineTime"] = times.rfc3339(time_us)
    elif before is not None:
        status["lastOnlineTime"] = before
    if report.message:
        status["extensions"] = {"message": report.message}
    owner = {
        "apiVersion": device.get("apiVersion", "devices.kubeedge.io/v1beta1"),
        "kind": "Device",
        "name": meta["name"],
        "uid": meta.get("uid", ""),
    }
    base = current or {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceStatus",
        "metadata": {"name": meta["name"], "namespace": meta.get("namespace", "")},
    }
    return {**base, "metadata": {**base["metadata"], "ownerReferences": [owner]}, "status": status}


def _twin(t: reports.TwinValue) -> Object:
    stamp = str(t.time // 1000)  # KubeEdge writes milliseconds since 1970, as text
    out: Object = {"propertyName": t.property}
    if t.desired is not None:
        out["observedDesired"] = {"value": t.desired, "metadata": {"timestamp": stamp, "type": "string"}}
    if t.value is not None:
        text, kind = _value(t.value)
        out["reported"] = {"value": text, "metadata": {"timestamp": stamp, "type": kind}}
        if t.quality != "good":
            out["reported"]["metadata"] |= {"quality": t.quality} | ({"reason": t.reason} if t.reason else {})
    return out


def _value(v: telemetry.Value) -> tuple[str, str]:
    match v:
        case bool():
            return ("true" if v else "false"), "boolean"
        case int():
            return str(v), "int"
        case float():
            return repr(v), "double"
        case bytes():
            return base64.b64encode(v).decode(), "bytes"
        case _:
            return v, "string"


# --- events ----------------------------------------------------------------------------------------------------------

_INVOLVED = ("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath")
MESSAGE_CHARS_MAX = 1024  # of an Event's message, as the API server validates it
_NAME_CHARS_MAX = 253


def event_key(node: str, series: str, report: reports.EventReport) -> ObjectKey:
    """One Event for one series of a node: the same series is always the same object, told once or again."""
    involved = _text(report.involved.get("name"))[: _NAME_CHARS_MAX - 17]
    tail = hashlib.blake2b(f"{node}\0{series}".encode(), digest_size=8).hexdigest()
    return ObjectKey("", "events", _text(report.involved.get("namespace")) or "default", f"{involved or node}.{tail}")


def api_event(current: Object | None, key: ObjectKey, node: str, report: reports.EventReport) -> Object:
    """A core/v1 Event; the source names the node that said it, whatever the report says."""
    base = current or {"apiVersion": "v1", "kind": "Event", "metadata": {"name": key.name, "namespace": key.namespace}}
    return {
        **base,
        "involvedObject": {k: v for k in _INVOLVED if isinstance(v := report.involved.get(k), str) and v},
        "reason": report.reason,
        "message": report.message[:MESSAGE_CHARS_MAX],
        "type": report.type,
        "count": report.count,
        "firstTimestamp": times.rfc3339(report.first),
        "lastTimestamp": times.rfc3339(report.last),
        "source": {"component": "skerry-edge", "host": node},
        "reportingComponent": "skerry-edge",
        "reportingInstance": node,
    }


def _maps(value: object) -> list[Object]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
