"""Defaults of a pod's specification, of pods and of templates (Kubernetes API reference, pkg/apis/core/v1/defaults.go)."""

from __future__ import annotations

import re
from typing import Any

from bus.kube import quantity
from bus.kube.kinds import claim_spec, pod_resources
from bus.kube.storage import Object

MODE_644 = 0o644
TOKEN_SECONDS = 3600
# Fields behind feature gates that are off in the version that we follow: they are taken, and dropped.
_OFF_SPEC = ("schedulingGroup", "evictionResponders")
_OFF_PROJECTIONS = ("clusterTrustBundle", "podCertificate")


def pod(spec: Object) -> None:
    """A pod's own specification: what templates leave to the pods that are made of them comes in, too."""
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or []:
            resources = container["resources"]
            if resources.get("limits"):
                resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
            for port in container.get("ports") or [] if spec.get("hostNetwork") else []:
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort", 0)
    if spec.get("resources") is not None:
        _pod_level(spec)


def pod_spec(spec: Object) -> None:
    """Of a pod or a template."""
    _fill(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for field in _OFF_SPEC:
        spec.pop(field, None)
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field) is False:
            del spec[field]
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(field) or []:
            _container(container)
    for volume in spec.get("volumes") or []:
        _volume(volume)
    if spec.get("overhead"):
        spec["overhead"] = _amounts(spec["overhead"])
    _resources(spec.get("resources") or {})


def _fill(obj: Object, **values: Any) -> None:
    """Where nothing is, or an empty text or a zero, which for the real server is the same."""
    for field, value in values.items():
        if not obj.get(field):
            obj[field] = value


def _container(container: Object) -> None:
    _fill(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = _pull_policy(container.get("image") or "")
    _resources(container.setdefault("resources", {}))
    for port in container.get("ports") or []:
        _fill(port, protocol="TCP")
    for env in container.get("env") or []:
        _from(env.get("valueFrom") or {})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _probe(container[name])
    lifecycle = container.get("lifecycle")
    if lifecycle is not None:
        lifecycle.pop("stopSignal", None)  # gate ContainerStopSignals
        for handler in lifecycle.values():
            if isinstance(handler, dict):
                _http(handler)
        if not lifecycle:
            del container["lifecycle"]


def _resources(resources: Object) -> None:
    for field in ("limits", "requests"):
        if resources.get(field):
            resources[field] = _amounts(resources[field])


def _amounts(amounts: Object) -> Object:
    """Rounded up to thousandths, below which nothing is counted."""
    return {name: quantity.thousandths(value) for name, value in amounts.items()}


def _pod_level(spec: Object) -> None:
    """What a pod as a whole asks for, where it doesn't say: what its containers do, or its limits."""
    resources = spec["resources"]
    limits, requests = dict(resources.get("limits") or {}), dict(resources.get("requests") or {})
    if limits or requests:
        for name, value in pod_resources.together(spec, "limits").items():
            if name.startswith(pod_resources.HUGE) and name not in requests:
                limits.setdefault(name, str(value))
        if limits:
            resources["limits"] = limits
    if not limits:
        return
    for name, value in pod_resources.together(spec, "requests").items():
        if name in pod_resources.POD:
            requests.setdefault(name, str(value))
    for name, value in limits.items():
        if name in pod_resources.POD or name.startswith(pod_resources.HUGE):
            requests.setdefault(name, value)
    if requests:
        resources["requests"] = requests


def _from(source: Object) -> None:
    if source.get("fieldRef") is not None:
        _fill(source["fieldRef"], apiVersion="v1")
    if source.get("resourceFieldRef") is not None:
        source["resourceFieldRef"].setdefault("divisor", "0")
    if source.get("fileKeyRef") is not None:
        source["fileKeyRef"].setdefault("optional", False)


def _probe(probe: Object) -> None:
    _fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")
    _http(probe)


def _http(handler: Object) -> None:
    if handler.get("httpGet") is not None:
        _fill(handler["httpGet"], path="/", scheme="HTTP")


_SOURCES: dict[str, dict[str, Any]] = {
    "configMap": {"defaultMode": MODE_644},
    "secret": {"defaultMode": MODE_644},
    "downwardAPI": {"defaultMode": MODE_644},
    "projected": {"defaultMode": MODE_644},
    "hostPath": {"type": ""},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
}
_SOURCES_EMPTY: dict[str, dict[str, Any]] = {  # which an empty text does not keep away
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def _volume(volume: Object) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for source, values in _SOURCES.items():
        for field, value in values.items() if volume.get(source) is not None else ():
            volume[source].setdefault(field, value)
    for source, values in _SOURCES_EMPTY.items():
        if volume.get(source) is not None:
            _fill(volume[source], **values)
    if volume.get("image") is not None and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = _pull_policy(volume["image"].get("reference") or "")
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if template is not None:
        template.setdefault("metadata", {})
        claim_spec.defaults(template.setdefault("spec", {}))
    items = [*((volume.get("downwardAPI") or {}).get("items") or [])]
    projected = volume.get("projected")
    if projected is not None:
        projected.setdefault("sources", None)
        for source in projected.get("sources") or []:
            items += (source.get("downwardAPI") or {}).get("items") or []
            if source.get("serviceAccountToken") is not None:
                source["serviceAccountToken"].setdefault("expirationSeconds", TOKEN_SECONDS)
            for field in _OFF_PROJECTIONS:
                source.pop(field, None)
    for item in items:
        _from(item)


def _pull_policy(image: str) -> str:
    return "Always" if tag_of(image) == "latest" else "IfNotPresent"


# A reference as the container runtimes read it: host, path, tag, digest.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_KIND = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_TAG, _DIGEST = r"(?::(?P<tag>\w[\w.-]{0,127}))?", rf"(?P<digest>@{_KIND}:[0-9a-fA-F]{{32,}})?"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*{_TAG}{_DIGEST}\Z")


def tag_of(image: str) -> str:
    """``latest`` for an image without tag or digest; "" without a tag, and for what is no image's name."""
    found = _IMAGE.match(image)
    if found is None:
        return ""
    return found["tag"] or ("" if found["digest"] else "latest")


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
