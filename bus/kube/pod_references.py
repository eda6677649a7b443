"""What a pod, or a volume, names: (resource, name) in the pod's namespace; (namespace, name) of a volume's secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bus.kube.kinds.base import at
from bus.kube.storage import Object

MIRROR = "kubernetes.io/config.mirror"  # annotation of a pod that a node made of a file of its own
_OF_VOLUME = {"secret": ("secrets", "secretName"), "configMap": ("configmaps", "name")}


def mirrors(pod: Object) -> bool:
    """It is shown in the API, and has no account there."""
    return MIRROR in (pod["metadata"].get("annotations") or {})


def of(pod: Object) -> set[tuple[str, str]]:
    """``secrets``, ``configmaps``, ``persistentvolumeclaims`` and ``serviceaccounts``."""
    return {(resource, str(name)) for resource, name in _of(pod) if name}


def _of(pod: Object) -> Iterator[tuple[str, Any]]:
    spec = pod.get("spec") or {}
    yield "serviceaccounts", spec.get("serviceAccountName")
    for ref in _maps(spec.get("imagePullSecrets")):
        yield "secrets", ref.get("name")
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in _maps(spec.get(field)):
            yield from _of_container(container)
    for volume in _maps(spec.get("volumes")):
        yield from _of_source(volume)
        if claim := at(volume, "persistentVolumeClaim", "claimName"):
            yield "persistentvolumeclaims", claim
        if volume.get("ephemeral") is not None:
            yield "persistentvolumeclaims", f"{pod['metadata'].get('name', '')}-{volume.get('name', '')}"
        for projected in _maps(at(volume, "projected", "sources")):
            yield "secrets", at(projected, "secret", "name")
            yield "configmaps", at(projected, "configMap", "name")
        for name in _secret_refs(volume):
            yield "secrets", name.get("name")


def _of_container(container: Object) -> Iterator[tuple[str, Any]]:
    for source in _maps(container.get("envFrom")):
        yield "secrets", at(source, "secretRef", "name")
        yield "configmaps", at(source, "configMapRef", "name")
    for env in _maps(container.get("env")):
        yield "secrets", at(env, "valueFrom", "secretKeyRef", "name")
        yield "configmaps", at(env, "valueFrom", "configMapKeyRef", "name")


def _of_source(source: Object) -> Iterator[tuple[str, Any]]:
    for kind, (resource, field) in _OF_VOLUME.items():
        yield resource, at(source, kind, field)


def _secret_refs(source: Object) -> Iterator[Object]:
    """``secretRef`` and the like of a driver's volume."""
    for driver in source.values():
        if isinstance(driver, dict):
            for field, ref in driver.items():
                if field.lower().endswith("secretref") and isinstance(ref, dict):
                    yield ref


def of_volume(volume: Object) -> set[tuple[str, str]]:
    """The secrets of a PersistentVolume; without a namespace they are in its claim's."""
    spec = volume.get("spec") or {}
    space = at(spec, "claimRef", "namespace") or ""
    return {(str(ref.get("namespace") or space), str(ref["name"])) for ref in _secret_refs(spec) if ref.get("name")}


def _maps(value: Any) -> list[Object]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []
