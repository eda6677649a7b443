"""The environment of a container: envFrom, env, references, and the services of its namespace.

Order and precedence are the kubelet's: services, then envFrom, then env (each may use ``$(NAME)`` of those before it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edge.core import references
from edge.core.expand import expand
from edge.core.pod_spec import Container, Pod
from edge.core.references import Missing, References
from edge.core.settings import NodeFacts

API = ("default", "kubernetes")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")  # IsEnvVarName


def environment(
    container: Container, pod: Pod, refs: References, node: NodeFacts, pod_ip: str, links: bool
) -> dict[str, str]:
    """Name to value, in order; raises Missing (the container waits with CreateContainerConfigError)."""
    env: dict[str, str] = {}
    if links:
        if pod.service_links:
            env.update(_service_links(refs, pod.namespace))
        env.update(_api(refs))
    for source in container.env_from:
        env.update(_env_from(source, pod.namespace, refs))
    for entry in container.env:
        value = _value(entry, container, pod, refs, node, pod_ip, env)
        if value is not None:
            env[str(entry["name"])] = value
    return env


def _env_from(source: Mapping[str, Any], namespace: str, refs: References) -> dict[str, str]:
    prefix = str(source.get("prefix") or "")
    found: dict[str, str] = {}
    for field, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
        ref = source.get(field)
        if not isinstance(ref, dict):
            continue
        name = str(ref.get("name", ""))
        files = refs.files(resource, namespace, name)
        if files is None:
            if ref.get("optional"):
                continue
            raise Missing(f'{"secret" if resource == "secrets" else "configmap"} "{name}" not found')
        found.update({prefix + k: v.decode(errors="replace") for k, v in files.items() if _NAME.match(prefix + k)})
    return found


def _value(
    entry: Mapping[str, Any],
    container: Container,
    pod: Pod,
    refs: References,
    node: NodeFacts,
    pod_ip: str,
    env: Mapping[str, str],
) -> str | None:
    origin = entry.get("valueFrom")
    if not isinstance(origin, dict):
        return expand(str(entry.get("value") or ""), env)
    field = origin.get("fieldRef")
    if isinstance(field, dict):
        return references.pod_field(str(field.get("fieldPath", "")), pod, node, pod_ip)
    resource_field = origin.get("resourceFieldRef")
    if isinstance(resource_field, dict):
        named = str(resource_field.get("containerName") or container.name)
        about = next((c for c in pod.containers if c.name == named), container)
        return references.resource_field(resource_field, about, node)
    for name, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        ref = origin.get(name)
        if isinstance(ref, dict):
            try:
                value = refs.key(resource, pod.namespace, str(ref.get("name", "")), str(ref.get("key", "")))
            except Missing:
                if ref.get("optional"):
                    return None
                raise
            return value.decode(errors="replace")
    raise Missing(f"env {entry.get('name')}: valueFrom has no source that is known here")


def _api(refs: References) -> dict[str, str]:
    """Where programs in pods find the API (client-go's and every other library's in-cluster configuration).

    A cluster's address leads nowhere on an edge node; what does is an address of the API that the service names as external.
    Without one there is nothing to say, and a program says that it is not in a cluster, which is the truth."""
    spec = next((s for name, s in refs.services(API[0]) if name == API[1]), None)
    hosts, ports = (spec.get("externalIPs"), spec.get("ports")) if spec is not None else (None, None)
    if not isinstance(hosts, list) or not hosts or not isinstance(ports, list) or not ports:
        return {}
    host, port = hosts[0], ports[0].get("port") if isinstance(ports[0], dict) else None
    if not isinstance(host, str) or not isinstance(port, int):
        return {}
    found = {"HOST": host, "PORT": str(port), "PORT_HTTPS": str(port)}
    return {f"KUBERNETES_SERVICE_{k}": v for k, v in found.items()}


def _service_links(refs: References, namespace: str) -> dict[str, str]:
    """Kubernetes, "Discovering services": ``NAME_SERVICE_HOST`` and ``_PORT`` for services with a cluster IP."""
    env: dict[str, str] = {}
    for name, spec in refs.services(namespace):
        if (namespace, name) == API:
            continue
        ip, ports = spec.get("clusterIP"), spec.get("ports")
        if not isinstance(ip, str) or ip in ("", "None") or not isinstance(ports, list):
            continue
        prefix = name.upper().replace("-", "_")
        known = [p for p in ports if isinstance(p, dict) and isinstance(p.get("port"), int)]
        if not known:
            continue
        env[f"{prefix}_SERVICE_HOST"] = ip
        env[f"{prefix}_SERVICE_PORT"] = str(known[0]["port"])
        for port in known:
            if port.get("name"):
                env[f"{prefix}_SERVICE_PORT_{str(port['name']).upper().replace('-', '_')}"] = str(port["port"])
    return env
