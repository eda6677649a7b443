"""What may differ from one installation to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bus.stamp import VERSION

NAMESPACE = "skerry-system"
IMAGE = f"skerry:{VERSION}"
HOST_EXAMPLE = "hub.example.com"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.:]{0,251}[A-Za-z0-9])?")
_AMOUNT = re.compile(r"[1-9][0-9]*(Mi|Gi|Ti)")
CSR_WAYS = ("none", "request", "approve")
SERVICE_TYPES = ("LoadBalancer", "NodePort", "ClusterIP")


class BadValue(ValueError):
    """A value that no cluster would take; the message names it."""


@dataclass(frozen=True, slots=True)
class Values:
    """``host`` is the name or address under which edge nodes reach the hub's Service; ``storage_class`` "" is the cluster's
    default; ``storage`` holds the whole log; ``kubelet_csr``: who approves the kubelets' certificate, "none" for one of
    the hub's (cloud/kubelet/serving_cert.py)."""

    host: str
    namespace: str = NAMESPACE
    image: str = IMAGE
    storage: str = "10Gi"
    storage_class: str = ""
    service_type: str = "LoadBalancer"
    kubelet_csr: str = "none"


def checked(values: Values) -> Values:
    """The same, when each can be used.  Raises BadValue."""
    if not _HOST.fullmatch(values.host):
        raise BadValue(f"host {values.host!r}: give the name or address under which edge nodes reach the hub")
    if not _NAME.fullmatch(values.namespace):
        raise BadValue(f"namespace {values.namespace!r}: at most 63 of a-z, 0-9 and -")
    if not values.image or values.image != values.image.strip() or " " in values.image:
        raise BadValue(f"image {values.image!r}: that is no image reference")
    if not _AMOUNT.fullmatch(values.storage):
        raise BadValue(f"storage {values.storage!r}: write it as 500Mi, 10Gi or 2Ti")
    if values.storage_class and not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", values.storage_class):
        raise BadValue(f"storage class {values.storage_class!r}: that is no name of one")
    if values.service_type not in SERVICE_TYPES:
        raise BadValue(f"service type {values.service_type!r}: it is one of {', '.join(SERVICE_TYPES)}")
    if values.kubelet_csr not in CSR_WAYS:
        raise BadValue(f"kubelet certificate {values.kubelet_csr!r}: it is one of {', '.join(CSR_WAYS)}")
    return values
