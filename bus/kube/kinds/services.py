"""Services (pkg/apis/core, pkg/registry/core/service): what the server gives them, and what goes with a change of type.

Addresses and node ports are chosen by a service's name, so that servers that don't know each other rarely choose the same.
Node ports are given out as clients expect; nodes do not open them, the mesh reaches services by name and address.
"""

from __future__ import annotations

import ipaddress
import zlib
from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.storage import Object

SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")  # kubeadm's default is 10.96.0.0/12
NODE_PORTS = range(30_000, 32_768)  # kube-apiserver's --service-node-port-range
AFFINITY_S = 10_800
PORT_MAX = 65535
_OF_CLUSTER = (
    *("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy"),
    *("allocateLoadBalancerNodePorts", "sessionAffinityConfig"),
)


class Services(Strategy):
    create_on_update = True
    returns_deleted = True

    def name_problem(self, name: str) -> str:
        return names.dns_label_1035(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec["sessionAffinity"] == "ClientIP":
            config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
            config.setdefault("timeoutSeconds", AFFINITY_S)
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            if port.get("targetPort") in (None, "", 0):
                port["targetPort"] = port.get("port", 0)
        if spec["type"] == "ExternalName":
            return
        spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec["type"] in ("NodePort", "LoadBalancer"):
            spec.setdefault("externalTrafficPolicy", "Cluster")
        if spec["type"] == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"loadBalancer": {}}
        spec = obj["spec"]
        if spec["type"] == "ExternalName":
            return
        if not spec.get("clusterIP"):
            spec["clusterIP"] = _free_address(obj["metadata"], ctx)
        spec["clusterIPs"] = [spec["clusterIP"]]
        _give_ports(obj, ctx)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        """What the server gave stays with a service as long as its type has it (pkg/registry/core/service)."""
        super().prepare_update(obj, old, ctx)
        spec, before = obj["spec"], old.get("spec", {})
        if spec["type"] == "ExternalName":
            if before.get("type") != "ExternalName":
                for field in _OF_CLUSTER:
                    if spec.get(field) == before.get(field):
                        spec.pop(field, None)
            return
        if not spec.get("clusterIP"):
            for field in ("clusterIP", "clusterIPs"):
                keep(spec, before, field)
        elif spec["clusterIP"] != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        if not spec.get("clusterIP"):
            spec["clusterIP"] = _free_address(obj["metadata"], ctx)
            spec["clusterIPs"] = [spec["clusterIP"]]
        given = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or []}
        for port in spec.get("ports") or []:
            had = given.get((port.get("protocol"), port.get("port")))
            if spec["type"] == "ClusterIP":
                if port.get("nodePort") == had:
                    port.pop("nodePort", None)
            elif had and not port.get("nodePort"):
                port["nodePort"] = had
        if spec["type"] == "ClusterIP":
            for field in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
                if spec.get(field) == before.get(field):
                    spec.pop(field, None)
        _give_ports(obj, ctx)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
        if spec["type"] not in types:
            out.append(errors.not_supported("spec.type", spec["type"], types))
        if spec["sessionAffinity"] not in ("ClientIP", "None"):
            out.append(errors.not_supported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
        ports = spec.get("ports", [])
        if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
            out.append(errors.required("spec.ports"))
        if spec["type"] == "ExternalName" and not spec.get("externalName"):
            out.append(errors.required("spec.externalName"))
        seen: set[Any] = set()
        for i, port in enumerate(ports):
            out += _check_port(port, f"spec.ports[{i}]", len(ports) > 1)
            for what, value in (("name", port.get("name")), ("", (port.get("port"), port["protocol"]))):
                if value and (what, value) in seen:
                    out.append(errors.duplicate(f"spec.ports[{i}]{'.' + what if what else ''}", value))
                seen.add((what, value))
        out += _node_ports(obj, ctx)
        for key, value in (spec.get("selector") or {}).items():
            if problem := names.label_key(key) or names.label_value(value):
                out.append(errors.bad_value("spec.selector", value, problem))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        had = at(old, "spec", "clusterIP")
        stays = at(old, "spec", "type") != "ExternalName" and obj["spec"]["type"] != "ExternalName"
        if had and stays and obj["spec"].get("clusterIP") != had:
            out.append(errors.bad_value("spec.clusterIPs[0]", obj["spec"].get("clusterIPs"), "may not change once set"))
        return out


def _check_port(port: Object, path: str, name_needed: bool) -> list[Cause]:
    out = []
    if not isinstance(port.get("port"), int) or not 1 <= port["port"] <= PORT_MAX:
        out.append(errors.bad_value(f"{path}.port", port.get("port", 0), "must be between 1 and 65535, inclusive"))
    target = port["targetPort"]
    if isinstance(target, int) and not 1 <= target <= PORT_MAX:
        out.append(errors.bad_value(f"{path}.targetPort", target, "must be between 1 and 65535, inclusive"))
    if port["protocol"] not in ("SCTP", "TCP", "UDP"):
        out.append(errors.not_supported(f"{path}.protocol", port["protocol"], ("SCTP", "TCP", "UDP")))
    if port.get("name"):
        if problem := names.dns_label(port["name"]):
            out.append(errors.bad_value(f"{path}.name", port["name"], problem))
    elif name_needed:
        out.append(errors.required(f"{path}.name"))
    return out


def _free_address(meta: Object, ctx: Context) -> str:
    """An address by the service's name, so that servers that don't know each other rarely choose the same one."""
    used = {at(s.object, "spec", "clusterIP") for s in ctx.reader.list("", "services")}
    size = SERVICE_NETWORK.num_addresses - 12  # the first ten are for fixed ones (DNS is .10), the last is broadcast
    start = zlib.crc32(f"{meta.get('namespace', '')}/{meta['name']}".encode()) % size
    for i in range(size):
        address = str(SERVICE_NETWORK[11 + (start + i) % size])
        if address not in used:
            return address
    raise errors.internal(f"no free address in {SERVICE_NETWORK}")


def _taken(ctx: Context, own: Object) -> dict[int, str]:
    """Node ports, and whose they are."""
    me = (own.get("namespace", ""), own["name"])
    out: dict[int, str] = {}
    for s in ctx.reader.list("", "services"):
        if (s.key.namespace, s.key.name) != me:
            out |= {p["nodePort"]: s.key.name for p in at(s.object, "spec", "ports") or [] if p.get("nodePort")}
    return out


def _needs_ports(spec: Object) -> bool:
    return spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and bool(spec["allocateLoadBalancerNodePorts"]))


def _give_ports(obj: Object, ctx: Context) -> None:
    """A node port for each port without one.  Equal numbers of two protocols share one, as DNS has it."""
    spec = obj["spec"]
    lacking = [p for p in spec.get("ports") or [] if not p.get("nodePort")] if _needs_ports(spec) else []
    if not lacking:
        return
    used = {*_taken(ctx, obj["metadata"]), *(p.get("nodePort") for p in spec["ports"])}
    for port in lacking:
        twin = next((p["nodePort"] for p in spec["ports"] if p.get("nodePort") and p.get("port") == port.get("port")), None)
        port["nodePort"] = twin or _free_port(obj["metadata"], port, used)
        used.add(port["nodePort"])


def _free_port(meta: Object, port: Object, used: set[int | None]) -> int:
    start = zlib.crc32(f"{meta.get('namespace', '')}/{meta['name']}/{port.get('port')}".encode()) % len(NODE_PORTS)
    for i in range(len(NODE_PORTS)):
        found = NODE_PORTS[(start + i) % len(NODE_PORTS)]
        if found not in used:
            return found
    raise errors.internal(f"no free node port from {NODE_PORTS[0]} to {NODE_PORTS[-1]}")


def _node_ports(obj: Object, ctx: Context) -> list[Cause]:
    ports = obj["spec"].get("ports") or []
    if not any(p.get("nodePort") for p in ports):
        return []
    out, taken = [], _taken(ctx, obj["metadata"])
    for i, port in enumerate(ports):
        number, path = port.get("nodePort"), f"spec.ports[{i}].nodePort"
        if not number:
            continue
        if obj["spec"]["type"] == "ClusterIP":
            out.append(errors.not_permitted(path, "may not be used when `type` is 'ClusterIP'"))
        elif number not in NODE_PORTS:
            why = f"provided port is not in the valid range. The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            out.append(errors.bad_value(path, number, why))
        elif number in taken:
            out.append(errors.bad_value(path, number, "provided port is already allocated"))
    return out
