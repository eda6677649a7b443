"""What a Node object says of its kubelet when the cloud serves it: its address, and a port.  Pure.

A cluster's API server takes the address and port from the Node.  An address of the type that it prefers is the first to be
tried, and ``Hostname`` is before ``InternalIP`` by default: the node's own name leads nowhere, so it isn't among them.

Pods are found by their names, so one port does for all nodes.  What is asked of a node alone (metrics) names none: for that
each has a port of its own from a range, which its Node object keeps.
Source: kube-apiserver --kubelet-preferred-address-types; Node API, status.daemonEndpoints.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kubelet:
    """``ports`` is empty where all nodes share ``port``."""

    address: str
    port: int
    ports: range = range(0)


class Ports:
    """Which node has which port of the range.  ``seen`` of each Node before ``of`` of any: else a port is given twice."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._of: dict[str, int] = {}
        self._held: dict[int, str] = {}
        self._next = 0

    def seen(self, node: str, obj: Object | None) -> None:
        """A Node as the API has it, None when it is gone."""
        port = port_of(obj) if obj is not None else 0
        before = self._of.get(node)
        if obj is None or (port in self._kubelet.ports and port != before and port not in self._held):
            if before is not None:
                del self._of[node], self._held[before]
            if obj is not None:
                self._of[node], self._held[port] = port, node

    def of(self, node: str) -> int:
        """The node's own port; the shared one when there is no range, or none is left in it."""
        port = self._of.get(node)
        if port is None:
            port = self._free()
            if port == self._kubelet.port:
                return port
            self._of[node], self._held[port] = port, node
        return port

    def _free(self) -> int:
        ports = self._kubelet.ports
        for n in range(len(ports)):  # goes round: a port that was just left isn't the next to be given
            port = ports[(self._next + n) % len(ports)]
            if port not in self._held:
                self._next = self._next + n + 1
                return port
        return self._kubelet.port

    def present(self, node: str, obj: Object) -> Object:
        """The Node with its kubelet's address and port in its status."""
        status = {**(obj.get("status") or {})}
        status["addresses"] = [{"type": kind_of(self._kubelet.address), "address": self._kubelet.address}]
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": self.of(node)}}
        return {**obj, "status": status}


def kind_of(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "InternalDNS"
    return "InternalIP"


def port_of(node: Object) -> int:
    """0 for none."""
    at: Any = node
    for field in ("status", "daemonEndpoints", "kubeletEndpoint"):
        at = at.get(field)
        if not isinstance(at, dict):
            return 0
    port = at.get("Port")
    return port if isinstance(port, int) and 0 < port < 65536 else 0
