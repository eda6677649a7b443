"""What the reports core keeps of each object and of each report, and the small questions that it asks of them.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cloud.core.report_words import Reported
from cloud.core.writes import Verb, Write
from schemas import codec, reports
from schemas.event import Event
from schemas.subjects import ObjectKey

DEVICES = "devices.kubeedge.io"
_EDGE_LABEL = "node-role.kubernetes.io/edge"

R = TypeVar("R", reports.NodeReport, reports.PodReport, reports.TwinReport, reports.EventReport)


@dataclass(frozen=True, slots=True)
class Known:
    rev: int
    object: dict[str, Any]

    @property
    def uid(self) -> str:
        return str(self.object["metadata"].get("uid", ""))

    @property
    def node(self) -> str:
        return str(self.object.get("spec", {}).get("nodeName") or "")

    @property
    def labels(self) -> dict[str, str]:
        return self.object["metadata"].get("labels") or {}


@dataclass(frozen=True, slots=True)
class Said(Generic[R]):
    """A report with where it came from."""

    node: str
    report: R
    event: Event
    time_us: int


def write(verb: Verb, key: ObjectKey, new: dict[str, Any], known: Known | None, cause: Event | None) -> Write | None:
    if known is not None and new == known.object:
        return None
    return Write(
        verb,
        key,
        new,
        known.rev if known else 0,
        known.uid if known else "",
        cause.id if cause else None,
        cause.trace if cause else None,
    )


def said(model: type[R], s: Reported) -> Said[R]:
    """Raises DecodeError."""
    return Said(s.event.scope, codec.validate(model, s.event.data), s.event, s.time_us)


def node(name: str) -> ObjectKey:
    return ObjectKey("", "nodes", "", name)


def status_of(device: ObjectKey) -> ObjectKey:
    return ObjectKey(DEVICES, "devicestatuses", device.namespace, device.name)


def is_edge(node: Known) -> bool:
    return _EDGE_LABEL in node.labels


def shaped(obj: dict[str, Any]) -> bool:
    """What the merges rely on, whoever wrote the object."""
    parts = (obj.get("metadata"), obj.get("spec", {}), obj.get("status", {}), (obj.get("metadata") or {}).get("labels", {}))
    return all(isinstance(p, dict) for p in parts)
