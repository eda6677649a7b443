"""Built-in kinds that are spoken in more than one form and stored in one: autoscalers (v1 is spoken, v2 is stored) and
events (``events.k8s.io/v1`` is spoken, core's is stored).  The rules of a kind see the stored form only.

What one form has no words for is carried in annotations by autoscaling/v1, as in the real server, and read back from there.
Source: kubernetes pkg/apis/autoscaling/v1/conversion.go, pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus.kube.storage import Object

_ALPHA = "autoscaling.alpha.kubernetes.io/"
METRICS, CURRENT, CONDITIONS, BEHAVIOR = (
    f"{_ALPHA}{name}" for name in ("metrics", "current-metrics", "conditions", "behavior")
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """Between a spoken form and the stored one; both functions give a new object that may share with the old."""

    store: Callable[[Object], Object]
    show: Callable[[Object], Object]


def _cpu(metrics: list[Any], word: str) -> tuple[int | None, list[Any]]:
    """The ``word`` ("target" or "current") of the first plain CPU metric in percent, and the other metrics."""
    for i, metric in enumerate(metrics):
        source = metric.get("resource") or {}
        said = source.get(word) or {}
        if metric.get("type") == "Resource" and source.get("name") == "cpu" and "averageUtilization" in said:
            return said["averageUtilization"], metrics[:i] + metrics[i + 1 :]
    return None, metrics


def _resource(percent: int, word: str) -> Object:
    value = {"averageUtilization": percent, **({"type": "Utilization"} if word == "target" else {})}
    return {"type": "Resource", "resource": {"name": "cpu", word: value}}


def _annotated(annotations: Object, name: str) -> Any:
    text = annotations.pop(name, None)
    with contextlib.suppress(ValueError, RecursionError, TypeError):
        return json.loads(text)
    return None


def store_autoscaler(obj: Object) -> Object:
    """autoscaling/v1 to v2."""
    out, meta = dict(obj), dict(obj["metadata"])
    annotations = dict(meta.get("annotations") or {})
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    percent, now = spec.pop("targetCPUUtilizationPercentage", None), status.pop("currentCPUUtilizationPercentage", None)
    others, behavior = _annotated(annotations, METRICS), _annotated(annotations, BEHAVIOR)
    current, conditions = _annotated(annotations, CURRENT), _annotated(annotations, CONDITIONS)
    metrics = list(others) if isinstance(others, list) else []
    if percent is not None:
        metrics.append(_resource(percent, "target"))
    if metrics:
        spec["metrics"] = metrics
    if isinstance(behavior, dict):
        spec["behavior"] = behavior
    seen = list(current) if isinstance(current, list) else []
    if now is not None:
        seen.append(_resource(now, "current"))
    if seen:
        status["currentMetrics"] = seen
    if isinstance(conditions, list):
        status["conditions"] = conditions
    meta.pop("annotations", None)
    out |= {"apiVersion": "autoscaling/v2", "metadata": {**meta, **({"annotations": annotations} if annotations else {})}}
    out["spec"] = spec
    return {**out, "status": status} if status or "status" in obj else out


def show_autoscaler(obj: Object) -> Object:
    """autoscaling/v2 to v1."""
    out, meta = dict(obj), dict(obj["metadata"])
    annotations = dict(meta.get("annotations") or {})
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    percent, others = _cpu(spec.pop("metrics", None) or [], "target")
    now, current = _cpu(status.pop("currentMetrics", None) or [], "current")
    if percent is not None:
        spec["targetCPUUtilizationPercentage"] = percent
    if now is not None:
        status["currentCPUUtilizationPercentage"] = now
    kept = ((METRICS, others), (BEHAVIOR, spec.pop("behavior", None)), (CURRENT, current))
    for name, value in (*kept, (CONDITIONS, status.pop("conditions", None))):
        if value:
            annotations[name] = json.dumps(value, separators=(",", ":"))
    meta.pop("annotations", None)
    out |= {"apiVersion": "autoscaling/v1", "metadata": {**meta, **({"annotations": annotations} if annotations else {})}}
    out["spec"] = spec
    if status or "status" in obj:
        out["status"] = {"currentReplicas": 0, "desiredReplicas": 0, **status}
    return out


# field of core's Event -> field of events.k8s.io's
_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
}
_CORE_FIELDS = {new: old for old, new in _EVENT_FIELDS.items()}


def store_event(obj: Object) -> Object:
    """events.k8s.io/v1 to core."""
    out = {_CORE_FIELDS.get(name, name): value for name, value in obj.items()}
    return {**out, "apiVersion": "v1", "involvedObject": out.get("involvedObject") or {}}


def show_event(obj: Object) -> Object:
    out = {_EVENT_FIELDS.get(name, name): value for name, value in obj.items()}
    return {**out, "apiVersion": "events.k8s.io/v1"}


_FOR: dict[tuple[str, str, str], Conversion] = {
    ("autoscaling", "horizontalpodautoscalers", "v1"): Conversion(store_autoscaler, show_autoscaler),
    ("events.k8s.io", "events", "v1"): Conversion(store_event, show_event),
}


def of(group: str, resource: str, version: str) -> Conversion | None:
    """None where the spoken form is the stored one."""
    return _FOR.get((group, resource, version))
