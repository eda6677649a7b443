"""Defaults of a pod's specification, of pods and of templates (Kubernetes API reference, pkg/apis/core/v1/defaults.go)."""

from __future__ import annotations

from typing import Any

from bus.kube import quantity
from bus.kube.storage import Object

MODE_644 = 0o644
_HANDLERS = ("httpGet",)


def pod_spec(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(field) or []:
            _container(container, bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _container(container: Object, host_network: bool) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = "Always" if tag_of(container.get("image", "")) == "latest" else "IfNotPresent"
    resources = container.setdefault("resources", {})
    limits = resources.get("limits") or {}
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if host_network and not port.get("hostPort") and "containerPort" in port:
            port["hostPort"] = port["containerPort"]
    for env in container.get("env") or []:
        ref = (env.get("valueFrom") or {}).get("fieldRef")
        if ref is not None:
            ref.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _probe(container[name])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http(handler)


def _probe(probe: Object) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    _http(probe)


def _http(handler: Object) -> None:
    get = handler.get("httpGet")
    if get is not None:
        get.setdefault("path", "/")
        get.setdefault("scheme", "HTTP")


def _volume(volume: Object) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if volume.get(source) is not None:
            volume[source].setdefault("defaultMode", MODE_644)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    items = [*((volume.get("downwardAPI") or {}).get("items") or [])]
    for source in (volume.get("projected") or {}).get("sources") or []:
        items += (source.get("downwardAPI") or {}).get("items") or []
    for item in items:
        if item.get("fieldRef") is not None:
            item["fieldRef"].setdefault("apiVersion", "v1")


def tag_of(image: str) -> str:
    """``latest`` for an image without tag or digest."""
    if "@" in image:
        return ""
    last = image.rsplit("/", 1)[-1]
    return last.split(":", 1)[1] if ":" in last else "latest"


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort (Kubernetes "Pod Quality of Service Classes")."""
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    amounts: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for c in containers:
        resources = c.get("resources") or {}
        amounts.append((_counted(resources.get("requests")), _counted(resources.get("limits"))))
    if not any(r or lim for r, lim in amounts):
        return "BestEffort"
    guaranteed = all(lim.keys() == {"cpu", "memory"} and r == lim for r, lim in amounts)
    return "Guaranteed" if guaranteed else "Burstable"


def _counted(amounts: dict[str, str] | None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in ("cpu", "memory"):
        if name in (amounts or {}):
            value = quantity.parse((amounts or {})[name])
            if value:
                out[name] = value
    return out
