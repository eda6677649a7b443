"""What pods refer to: config maps, secrets, services, claims and volumes of this node, and the fields of a pod itself.

Only what containers can see is kept (not whole objects): a node's memory is small.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from edge.core import quantities
from edge.core.pod_spec import Container, Pod
from edge.core.settings import NodeFacts
from schemas import pod_tokens

Files = dict[str, bytes]
BY_SPEC = ("services", "persistentvolumeclaims", "persistentvolumes")


class Missing(Exception):
    """A reference that leads nowhere yet; the pod waits, and is tried again when the object comes."""


class References:
    """Config maps, secrets and pods' tokens as bytes by key; services, claims and volumes as raw specs; by namespace and
    name."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str, str], Files] = {}
        self._types: dict[tuple[str, str], str] = {}
        self._specs: dict[tuple[str, str, str], Mapping[str, Any]] = {}

    def apply(self, resource: str, namespace: str, name: str, obj: Mapping[str, Any] | None) -> None:
        """One of those; None removes it.  Values that are not text are left out, as the API would."""
        if resource in BY_SPEC:
            if obj is None:
                self._specs.pop((resource, namespace, name), None)
            else:
                self._specs[resource, namespace, name] = _map(obj, "spec")
        elif obj is None:
            self._files.pop((resource, namespace, name), None)
        elif resource == pod_tokens.RESOURCE:
            self._files[resource, namespace, name] = dict(pod_tokens.files(obj))
        else:
            self._files[resource, namespace, name] = _secret(obj) if resource == "secrets" else _config_map(obj)

    def files(self, resource: str, namespace: str, name: str) -> Files | None:
        """The data of a config map or secret, None when it is not here."""
        return self._files.get((resource, namespace, name))

    def key(self, resource: str, namespace: str, name: str, key: str) -> bytes:
        """One value; raises Missing with the kubelet's words."""
        files = self.files(resource, namespace, name)
        kind = "secret" if resource == "secrets" else "configmap"
        if files is None:
            raise Missing(f'{kind} "{name}" not found')
        if key not in files:
            raise Missing(f"couldn't find key {key} in {'Secret' if kind == 'secret' else 'ConfigMap'} {namespace}/{name}")
        return files[key]

    def services(self, namespace: str) -> list[tuple[str, Mapping[str, Any]]]:
        found = ((name, spec) for (kind, ns, name), spec in self._specs.items() if kind == "services" and ns == namespace)
        return sorted(found, key=lambda f: f[0])

    def volume(self, namespace: str, claim: str) -> Mapping[str, Any]:
        """The spec of the PersistentVolume that a claim is bound to; raises Missing, in the kubelet's words."""
        spec = self._specs.get(("persistentvolumeclaims", namespace, claim))
        if spec is None:
            raise Missing(f'persistentvolumeclaim "{claim}" not found')
        name = spec.get("volumeName")
        if not name:
            raise Missing(f"PVC is not bound: {namespace}/{claim}")
        volume = self._specs.get(("persistentvolumes", "", str(name)))
        if volume is None:
            raise Missing(f'failed to fetch PV {name} from API server: persistentvolumes "{name}" not found')
        ref = _map(volume, "claimRef")
        if (ref.get("namespace"), ref.get("name")) != (namespace, claim):
            raise Missing(f"PV {name} is not bound to the claim {namespace}/{claim}")
        return volume


def _map(obj: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = obj.get(key)
    return value if isinstance(value, dict) else {}


def _config_map(obj: Mapping[str, Any]) -> Files:
    files = {k: v.encode() for k, v in _map(obj, "data").items() if isinstance(v, str)}
    return files | _decoded(_map(obj, "binaryData"))


def _secret(obj: Mapping[str, Any]) -> Files:
    # stringData is write-only in the API; a storage that hasn't merged it yet still gives the container its value
    return _decoded(_map(obj, "data")) | {k: v.encode() for k, v in _map(obj, "stringData").items() if isinstance(v, str)}


def _decoded(values: Mapping[str, Any]) -> Files:
    files: Files = {}
    for key, value in values.items():
        if isinstance(value, bytes):
            files[key] = value
        elif isinstance(value, str):
            try:
                files[key] = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                continue  # the API refuses such an object; leaving the key out says so where it is used
    return files


# --- the downward API -----------------------------------------------------------------------------------------------


def pod_field(path: str, pod: Pod, node: NodeFacts, pod_ip: str) -> str:
    """Value of a fieldRef; raises Missing for a field that Kubernetes' downward API doesn't have."""
    simple = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": node.name,
        "spec.serviceAccountName": pod.service_account,
        "status.hostIP": node.host_ip,
        "status.hostIPs": node.host_ip,
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
    }
    if path in simple:
        return simple[path]
    for what, values in (("labels", pod.labels), ("annotations", pod.annotations)):
        if path == f"metadata.{what}":
            return "\n".join(f'{k}="{_quoted(v)}"' for k, v in sorted(values.items()))
        if path.startswith(f"metadata.{what}['") and path.endswith("']"):
            return values.get(path[len(f"metadata.{what}['") : -2], "")
    raise Missing(f"unsupported fieldPath: {path}")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_field(ref: Mapping[str, Any], container: Container, node: NodeFacts) -> str:
    """Value of a resourceFieldRef: a limit falls back to what the node has; raises Missing for an unknown resource."""
    what, r = str(ref.get("resource", "")), container.resources
    try:
        divisor = quantities.parse(ref.get("divisor") or "1") or quantities.parse("1")
    except ValueError as e:
        raise Missing(f"resourceFieldRef {what}: divisor {e}") from e
    amounts = {
        "limits.cpu": (r.cpu_limit_milli or node.cpu_milli, 1000),
        "requests.cpu": (r.cpu_request_milli or r.cpu_limit_milli or 0, 1000),
        "limits.memory": (r.memory_limit or node.memory_bytes, 1),
        "requests.memory": (r.memory_request or r.memory_limit or 0, 1),
    }
    if what not in amounts:
        raise Missing(f"unsupported container resource: {what}")
    amount, scale = amounts[what]
    value = quantities.parse(str(amount)) / scale / divisor
    return str(-(-value.numerator // value.denominator))
