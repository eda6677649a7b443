"""Rows of ingresses, network policies, autoscalers and the machinery (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube.kinds.base import at
from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object

METRICS_SHOWN_MAX = 2


def _at(*path: str, otherwise: Any = "") -> Any:
    def value(obj: Object, _: Look) -> Any:
        found = at(obj, *path)
        return otherwise if found in (None, "") else found

    return value


def _hosts(ingress: Object, _: Look) -> str:
    found = [r["host"] for r in at(ingress, "spec", "rules") or [] if r.get("host")]
    if not found:
        return "*"
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more


def _addresses(ingress: Object, _: Look) -> str:
    found = at(ingress, "status", "loadBalancer", "ingress") or []
    return text.joined(i.get("ip") or i.get("hostname") or "" for i in found)


def _parameters(obj: Object, _: Look) -> str:
    found = at(obj, "spec", "parameters")
    if found is None:
        return text.NONE
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{found.get('kind')}{group}/{found.get('name')}"


def _reference(hpa: Object, _: Look) -> str:
    return f"{at(hpa, 'spec', 'scaleTargetRef', 'kind')}/{at(hpa, 'spec', 'scaleTargetRef', 'name')}"


_WORDS = {"Resource": "resource", "ContainerResource": "containerResource", "Pods": "pods", "Object": "object"}
_WORDS |= {"External": "external"}


def _percent(value: Any) -> str:
    return text.UNKNOWN if value is None else f"{value}%"


def _metric(metric: Object, current: Object) -> str:
    field = _WORDS.get(str(metric.get("type")), "")
    target = at(metric, field, "target") or {}
    seen = at(current, field, "current") or {}
    prefix = f"{at(metric, field, 'name')}: " if field in ("resource", "containerResource") else ""
    if target.get("averageUtilization") is not None and not target.get("averageValue"):
        return f"{prefix}{_percent(seen.get('averageUtilization'))}/{_percent(target['averageUtilization'])}"
    if target.get("averageValue") is not None:
        average = " (avg)" if field in ("object", "external") else ""
        return f"{prefix}{seen.get('averageValue') or text.UNKNOWN}/{target['averageValue']}{average}"
    return f"{prefix}{seen.get('value') or text.UNKNOWN}/{target.get('value') or text.UNKNOWN}"


def _targets(hpa: Object, _: Look) -> str:
    metrics, seen = at(hpa, "spec", "metrics") or [], at(hpa, "status", "currentMetrics") or []
    if not metrics:
        return text.NONE
    shown = [_metric(m, seen[i] if i < len(seen) else {}) for i, m in enumerate(metrics[:METRICS_SHOWN_MAX])]
    more = f" + {len(metrics) - METRICS_SHOWN_MAX} more..." if len(metrics) > METRICS_SHOWN_MAX else ""
    return ", ".join(shown) + more


def _templated(field: str, *path: str) -> Any:
    return lambda o, _: text.joined(c.get(field, "") for c in at(o, *path, "spec", "containers") or [])


def _audiences(driver: Object, _: Look) -> str:
    requests = at(driver, "spec", "tokenRequests") or []
    return text.joined(r.get("audience", "") for r in requests) or text.UNSET


def _count(field: str) -> Any:
    return _at("status", field, otherwise=0)


COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("networking.k8s.io", "ingresses"): (
        NAME,
        Cell("Class", _at("spec", "ingressClassName", otherwise=text.NONE)),
        Cell("Hosts", _hosts),
        Cell("Address", _addresses),
        Cell("Ports", lambda o, _: "80, 443" if at(o, "spec", "tls") else "80"),
        AGE,
    ),
    ("networking.k8s.io", "ingressclasses"): (
        NAME,
        Cell("Controller", _at("spec", "controller")),
        Cell("Parameters", _parameters),
        AGE,
    ),
    ("networking.k8s.io", "networkpolicies"): (
        NAME,
        Cell("Pod-Selector", lambda o, _: text.selector(at(o, "spec", "podSelector"))),
        AGE,
    ),
    ("autoscaling", "horizontalpodautoscalers"): (
        NAME,
        Cell("Reference", _reference),
        Cell("Targets", _targets),
        Cell("MinPods", lambda o, _: str(at(o, "spec", "minReplicas") or text.UNSET)),
        Cell("MaxPods", _at("spec", "maxReplicas", otherwise=0), "integer"),
        Cell("Replicas", _count("currentReplicas"), "integer"),
        AGE,
    ),
    ("", "replicationcontrollers"): (
        NAME,
        Cell("Desired", _at("spec", "replicas", otherwise=0), "integer"),
        Cell("Current", _count("replicas"), "integer"),
        Cell("Ready", _count("readyReplicas"), "integer"),
        AGE,
        Cell("Containers", _templated("name", "spec", "template"), priority=1),
        Cell("Images", _templated("image", "spec", "template"), priority=1),
        Cell("Selector", lambda o, _: text.labels(at(o, "spec", "selector")), priority=1),
    ),
    ("", "podtemplates"): (
        NAME,
        Cell("Containers", _templated("name", "template")),
        Cell("Images", _templated("image", "template")),
        Cell("Pod Labels", lambda o, _: text.labels(at(o, "template", "metadata", "labels"))),
    ),
    ("node.k8s.io", "runtimeclasses"): (NAME, Cell("Handler", _at("handler")), AGE),
    ("storage.k8s.io", "csidrivers"): (
        NAME,
        Cell("AttachRequired", _at("spec", "attachRequired", otherwise=True), "boolean"),
        Cell("PodInfoOnMount", _at("spec", "podInfoOnMount", otherwise=False), "boolean"),
        Cell("StorageCapacity", _at("spec", "storageCapacity", otherwise=False), "boolean"),
        Cell("TokenRequests", _audiences),
        Cell("RequiresRepublish", _at("spec", "requiresRepublish", otherwise=False), "boolean"),
        Cell("Modes", lambda o, _: text.joined(at(o, "spec", "volumeLifecycleModes") or []) or text.NONE),
        AGE,
    ),
    ("storage.k8s.io", "csinodes"): (
        NAME,
        Cell("Drivers", lambda o, _: len(at(o, "spec", "drivers") or []), "integer"),
        AGE,
    ),
    ("storage.k8s.io", "csistoragecapacities"): (
        NAME,
        Cell("StorageClassName", _at("storageClassName")),
        Cell("Capacity", _at("capacity", otherwise=text.UNSET)),
    ),
    ("storage.k8s.io", "volumeattachments"): (
        NAME,
        Cell("Attacher", _at("spec", "attacher"), format="name"),
        Cell("PV", _at("spec", "source", "persistentVolumeName")),
        Cell("Node", _at("spec", "nodeName")),
        Cell("Attached", _at("status", "attached", otherwise=False), "boolean"),
        AGE,
    ),
    ("storage.k8s.io", "volumeattributesclasses"): (NAME, Cell("DriverName", _at("driverName")), AGE),
}
