"""Where a service is reached: the address of one of its ready endpoints.  Pure."""

from __future__ import annotations

import ipaddress

from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader
from schemas.subjects import ObjectKey

SLICES = ("discovery.k8s.io", "endpointslices")
SERVICE_LABEL = "kubernetes.io/service-name"


class NoEndpoint(Exception):
    """Nobody serves it; the message says why, as kube-apiserver's service resolver does."""


def of_service(reader: Reader, namespace: str, name: str, port: int) -> tuple[str, int]:
    """(address, port), always of the same endpoint while that is ready; raises NoEndpoint."""
    stored = reader.get(ObjectKey("", "services", namespace, name))
    if stored is None:
        raise NoEndpoint(f'service "{name}" not found')
    spec = stored.object.get("spec") or {}
    wanted = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or ""), port
    if wanted is None:
        raise NoEndpoint(f'no service port {port} found for service "{name}"')
    for slice_ in reader.list(*SLICES, namespace):
        if at(slice_.object, "metadata", "labels", SERVICE_LABEL) != name:
            continue
        found = _of_slice(slice_.object, wanted.get("name") or "")
        if found is not None:
            return found
    raise NoEndpoint(f'no endpoints available for service "{name}"')


def _of_slice(slice_: Object, port_name: str) -> tuple[str, int] | None:
    port = next((p.get("port") for p in slice_.get("ports") or () if (p.get("name") or "") == port_name), None)
    if not isinstance(port, int):
        return None
    for endpoint in slice_.get("endpoints") or ():
        if at(endpoint, "conditions", "ready") is False:
            continue
        for address in endpoint.get("addresses") or ():
            try:
                return str(ipaddress.ip_address(address)), port
            except ValueError:
                continue
    return None
