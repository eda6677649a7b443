"""Rows of KubeEdge's device kinds.  A Device's twins live in the DeviceStatus of its name (KubeEdge 1.23)."""

from __future__ import annotations

from typing import Any

from bus.kube.kinds.base import at
from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object
from schemas.subjects import ObjectKey

GROUP = "devices.kubeedge.io"
TWINS_SHOWN_MAX = 8
VALUE_CHARS_MAX = 32


def _status_of(device: Object, look: Look) -> Object:
    meta = device["metadata"]
    stored = look.reader.get(ObjectKey(GROUP, "devicestatuses", meta.get("namespace", ""), meta["name"]))
    status = stored.object.get("status") if stored else device.get("status")
    return status if isinstance(status, dict) else {}


def _said(status: Object) -> str:
    """``temperature=21.5 setpoint=25``: what was reported, in the order of the report."""
    twins = status.get("twins")
    out = []
    for twin in twins if isinstance(twins, list) else []:
        value = at(twin, "reported", "value")
        if value is not None:
            out.append(f"{twin.get('propertyName', '')}={str(value)[:VALUE_CHARS_MAX]}")
    more = [f"+{len(out) - TWINS_SHOWN_MAX}"] if len(out) > TWINS_SHOWN_MAX else []
    return " ".join([*out[:TWINS_SHOWN_MAX], *more]) or text.NONE


def _path(*path: str) -> Any:
    return lambda o, _: at(o, *path) or text.NONE


DEVICES = (
    NAME,
    Cell("Model", _path("spec", "deviceModelRef", "name")),
    Cell("Node", _path("spec", "nodeName")),
    Cell("Protocol", _path("spec", "protocol", "protocolName")),
    Cell("State", lambda o, look: _status_of(o, look).get("state") or "unknown"),
    Cell("Twins", lambda o, look: _said(_status_of(o, look))),
    AGE,
)
MODELS = (
    NAME,
    Cell("Protocol", _path("spec", "protocol")),
    Cell("Properties", lambda o, _: text.joined(p.get("name", "") for p in at(o, "spec", "properties") or []) or text.NONE),
    AGE,
)
STATUSES = (
    NAME,
    Cell("State", _path("status", "state")),
    Cell("Twins", lambda o, _: _said(o.get("status") or {})),
    Cell("Last Online", _path("status", "lastOnlineTime"), priority=1),
    AGE,
)
COLUMNS = {(GROUP, "devices"): DEVICES, (GROUP, "devicemodels"): MODELS, (GROUP, "devicestatuses"): STATUSES}
