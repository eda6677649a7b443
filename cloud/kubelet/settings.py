"""Where the kubelets' endpoint listens and how the cluster reaches it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cloud.core.kubelets import Kubelet
from cloud.kubelet import serving_cert

DEFAULT_PORT = 10250  # the kubelet's own


class BadSettings(ValueError):
    """Settings that don't go together; the message says which."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``listen`` is for all nodes; ``ports`` is one each, for requests that name no pod (metrics-server).

    ``address``: what Node objects name, "" is the listening one.  ``client_ca``: of the API server's client certificate;
    None is the one that the cluster publishes.  ``cert``, ``key``: served; None is one of the hub's own authority, until
    there is one of the cluster's where ``csr`` asks for it (``serving_cert``)."""

    listen_host: str
    listen_port: int = DEFAULT_PORT
    address: str = ""
    ports: range = range(0)
    client_ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    csr: serving_cert.How = "none"

    def check(self) -> None:
        """Raises BadSettings."""
        if not self.address and _everywhere(self.listen_host):
            raise BadSettings(f"{self.listen_host} is every address: say which one the cluster's API server connects to")
        if (self.cert is None) != (self.key is None):
            raise BadSettings("a certificate and its key go together")
        if self.csr != "none" and self.cert is not None:
            raise BadSettings("a certificate is given, so the cluster can't be asked for another")
        if self.listen_port in self.ports:
            raise BadSettings(f"port {self.listen_port} is for all nodes, so it can't be one of a single node")

    @property
    def reached_at(self) -> str:
        return self.address or self.listen_host

    def kubelet(self, port: int) -> Kubelet:
        """``port``: the one that it listens on."""
        return Kubelet(self.reached_at, port, self.ports)


def _everywhere(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
