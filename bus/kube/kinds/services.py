"""Services (pkg/apis/core, pkg/registry/core/service): what the server gives them, and what goes with a change of type.

Addresses and node ports are chosen by a service's name, so that servers that don't know each other rarely choose the same.
Node ports are given out as clients expect; nodes do not open them, the mesh reaches services by name and address.  As the
real server does, everything is given out before the service is judged, so a refusal to give comes alone.
What is invalid: service_rules.py.
"""

from __future__ import annotations

import ipaddress
import zlib
from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import service_rules
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.kinds.service_rules import NONE, externally, headless, needs_health_port
from bus.kube.storage import Object

SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")  # kubeadm's default is 10.96.0.0/12
NODE_PORTS = range(30_000, 32_768)  # kube-apiserver's --service-node-port-range
AFFINITY_S = 10_800
FAMILY = "IPv4"  # the one that this cluster has


class Services(Strategy):
    create_on_update = True
    returns_deleted = True
    fields = ("spec.clusterIP", "spec.type")

    def name_problem(self, name: str) -> str:
        return names.dns_label(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        if spec["sessionAffinity"] == "ClientIP" and at(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": AFFINITY_S}}
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            if port.get("targetPort") in (None, "", 0):
                port["targetPort"] = port.get("port", 0)
        if externally(spec) and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        if spec["type"] in ("ClusterIP", "LoadBalancer", "NodePort"):
            spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec["type"] == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
            _modes(obj)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"loadBalancer": {}}
        spec = obj["spec"]
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        self._give(obj, {}, ctx)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        spec, before = obj["spec"], old.get("spec") or {}
        _patch_given(spec, before)
        _one_and_many(spec, before)
        self._give(obj, before, ctx)
        super().prepare_update(obj, old, ctx)
        _drop_for_type(obj, before)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_status(obj, old, ctx)
        if at(obj, "spec", "type") == "LoadBalancer":
            _modes(obj)

    def _give(self, obj: Object, before: Object, ctx: Context) -> None:
        """Families, addresses, node ports.  Raises StatusError."""
        spec = obj["spec"]
        if spec["type"] == "ExternalName":
            spec.pop("internalTrafficPolicy", None)
            return
        _families(obj, before)
        name, ips = obj["metadata"]["name"], spec.get("clusterIPs") or []
        if not ips:
            spec["clusterIP"] = _free_address(obj["metadata"], ctx)
            spec["clusterIPs"] = [spec["clusterIP"]]
        elif ips[0] not in (NONE, at(before, "clusterIP")) and not (before and before.get("type") != "ExternalName"):
            _check_address(name, ips, obj["metadata"], ctx)
        _give_ports(obj, ctx)
        if needs_health_port(spec) and not spec.get("healthCheckNodePort"):
            used = {*_taken(ctx, obj["metadata"]), *(p.get("nodePort") for p in spec.get("ports") or [])}
            spec["healthCheckNodePort"] = _free_port(obj["metadata"], {"port": "health"}, used)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return service_rules.service(obj)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return service_rules.changed(obj["spec"], old.get("spec") or {}) + service_rules.service(obj)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return service_rules.balancer(obj.get("status") or {}, obj.get("spec") or {})


def _modes(obj: Object) -> None:
    for ingress in at(obj, "status", "loadBalancer", "ingress") or []:
        if ingress.get("ip"):
            ingress.setdefault("ipMode", "VIP")


def _patch_given(spec: Object, before: Object) -> None:
    """What the server gave before, so that an update need not say it again."""
    if spec["type"] != "ExternalName" and before.get("type") != "ExternalName":
        if not spec.get("clusterIP"):
            keep(spec, before, "clusterIP")
        if not spec.get("clusterIPs"):
            keep(spec, before, "clusterIPs")
    ported = ("LoadBalancer", "NodePort")
    if spec["type"] in ported and before.get("type") in ported:
        old, new = before.get("ports") or [], spec.get("ports") or []
        used = {p.get("nodePort") for p in old} & {p.get("nodePort") for p in new}
        named = {p.get("name", ""): p.get("nodePort") for p in old}
        for port in new:
            had = named.get(port.get("name", ""))
            if not port.get("nodePort") and had and had not in used:
                port["nodePort"] = had
    if needs_health_port(spec) and needs_health_port(before) and not spec.get("healthCheckNodePort"):
        keep(spec, before, "healthCheckNodePort")


def _one_and_many(spec: Object, before: Object) -> None:
    """``clusterIP`` and ``clusterIPs`` say the same, whichever of them an update changed."""
    one, many, was = spec.get("clusterIP") or "", spec.get("clusterIPs") or [], before.get("clusterIP") or ""
    if before.get("clusterIPs") and not many and was == one:
        keep(spec, before, "clusterIPs")
    elif was != one and many == (before.get("clusterIPs") or []):
        if one:
            spec["clusterIPs"] = [one]
        else:
            spec.pop("clusterIPs", None)


def _drop_for_type(obj: Object, before: Object) -> None:
    """What only the type before needed, and nobody touched."""
    spec = obj["spec"]

    def same(*fields: str) -> bool:
        return all(spec.get(f) == before.get(f) for f in fields)

    if before.get("type") != "ExternalName" and spec["type"] == "ExternalName":
        for fields in (("clusterIP", "clusterIPs"), ("ipFamilies",), ("ipFamilyPolicy",)):
            if same(*fields):
                _drop(spec, *fields)
    ported = ("LoadBalancer", "NodePort")
    if before.get("type") in ported and spec["type"] not in ported:
        old = {p.get("nodePort") for p in before.get("ports") or []}
        if {p["nodePort"] for p in spec.get("ports") or [] if p.get("nodePort")} <= old:
            for port in spec.get("ports") or []:
                port.pop("nodePort", None)
    if needs_health_port(before) and not needs_health_port(spec) and same("healthCheckNodePort"):
        _drop(spec, "healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and spec["type"] != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if same(field):
                _drop(spec, field)
    if externally(before) and not externally(spec) and same("externalTrafficPolicy"):
        _drop(spec, "externalTrafficPolicy")
    if spec["type"] != "LoadBalancer":
        obj.setdefault("status", {})["loadBalancer"] = {}


def _drop(spec: Object, *fields: str) -> None:
    for field in fields:
        spec.pop(field, None)


def _families(obj: Object, before: Object) -> None:
    """Which families of addresses the service has; one is all that this cluster gives.  Raises StatusError 422."""
    spec, name = obj["spec"], obj["metadata"]["name"]
    alone = headless(spec) and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or ("RequireDualStack" if alone else "SingleStack")
    _refuse(name, service_rules.addresses(spec))
    policy, out = spec["ipFamilyPolicy"], []
    families: list[str] = list(spec.get("ipFamilies") or [])
    if policy == "SingleStack" and before:
        if spec.get("clusterIPs") == before.get("clusterIPs") and len(spec.get("clusterIPs") or []) > 1:
            spec["clusterIPs"] = spec["clusterIPs"][:1]
        if families == before.get("ipFamilies"):
            families = families[:1]
    elif before and len(families) < len(before.get("ipFamilies") or []):
        why = "must be 'SingleStack' to release the secondary IP family"
        out.append(errors.bad_value("spec.ipFamilyPolicy", policy, why))
    if policy == "SingleStack":
        for field, word in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
            if len((families if field == "ipFamilies" else spec.get(field)) or []) == 2:
                why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {word} are specified"
                out.append(errors.bad_value("spec.ipFamilyPolicy", policy, why))
    for i, ip in enumerate(spec.get("clusterIPs") or []):
        if ip == NONE:
            break
        family = f"IPv{ipaddress.ip_address(ip).version}"
        if i >= len(families):
            if family != FAMILY:
                why = f"{family} is not configured on this cluster"
                out.append(errors.bad_value(f"spec.clusterIPs[{i}]", spec["clusterIPs"], why))
            else:
                families.append(family)
    _refuse(name, out)
    families = families or [FAMILY]
    if alone:
        if len(families) < 2 and policy != "SingleStack":
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
    else:
        if policy == "RequireDualStack":
            why = "this cluster is not configured for dual-stack services"
            out.append(errors.bad_value("spec.ipFamilyPolicy", policy, why))
        for i, family in enumerate(families):
            if family != FAMILY:
                out.append(errors.bad_value(f"spec.ipFamilies[{i}]", family, "not configured on this cluster"))
    _refuse(name, out)
    spec["ipFamilies"] = families


def _refuse(name: str, causes: list[Cause]) -> None:
    if causes:
        raise errors.invalid("", "Service", name, causes)


def _check_address(name: str, ips: list[str], meta: Object, ctx: Context) -> None:
    """An address that a client chose is one of the network, and free.  Raises StatusError 422."""
    why = ""
    if ipaddress.ip_address(ips[0]) not in SERVICE_NETWORK:
        why = f"the provided IP ({ips[0]}) is not in the valid range. The range of valid IPs is {SERVICE_NETWORK}"
    elif ips[0] in _used_addresses(meta, ctx):
        why = "provided IP is already allocated"
    if why:
        _refuse(name, [errors.bad_value("spec.clusterIPs", ips, f"failed to allocate IP {ips[0]}: {why}")])


def _used_addresses(meta: Object, ctx: Context) -> set[Any]:
    me = (meta.get("namespace", ""), meta["name"])
    stored = ctx.reader.list("", "services")
    return {at(s.object, "spec", "clusterIP") for s in stored if (s.key.namespace, s.key.name) != me}


def _free_address(meta: Object, ctx: Context) -> str:
    """An address by the service's name, so that servers that don't know each other rarely choose the same one."""
    used = _used_addresses(meta, ctx)
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
            if port := at(s.object, "spec", "healthCheckNodePort"):
                out[port] = s.key.name
    return out


def _needs_ports(spec: Object) -> bool:
    return spec["type"] == "NodePort" or (spec["type"] == "LoadBalancer" and bool(spec["allocateLoadBalancerNodePorts"]))


def _give_ports(obj: Object, ctx: Context) -> None:
    """A node port for each port without one, and those that a client chose are looked at.  Equal numbers of two protocols
    share one, as DNS has it.  Raises StatusError 422."""
    spec = obj["spec"]
    ports = spec.get("ports") or []
    chosen = spec["type"] in ("LoadBalancer", "NodePort") and any(p.get("nodePort") for p in ports)
    if not ports or not (chosen or _needs_ports(spec)):
        return
    taken = _taken(ctx, obj["metadata"])
    seen: dict[int, Any] = {}
    for i, port in enumerate(ports):
        number = port.get("nodePort")
        if not number:
            continue
        why = ""
        if number not in NODE_PORTS:
            why = f"provided port is not in the valid range. The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
        elif number in taken or seen.get(number, port.get("port")) != port.get("port"):
            why = "provided port is already allocated"
        if why:
            _refuse(obj["metadata"]["name"], [errors.bad_value(f"spec.ports[{i}].nodePort", number, why)])
        seen[number] = port.get("port")
    used = {*taken, *(p.get("nodePort") for p in ports)}
    for port in [p for p in ports if not p.get("nodePort")] if _needs_ports(spec) else []:
        twin = next((p["nodePort"] for p in ports if p.get("nodePort") and p.get("port") == port.get("port")), None)
        port["nodePort"] = twin or _free_port(obj["metadata"], port, used)
        used.add(port["nodePort"])


def _free_port(meta: Object, port: Object, used: set[int | None]) -> int:
    start = zlib.crc32(f"{meta.get('namespace', '')}/{meta['name']}/{port.get('port')}".encode()) % len(NODE_PORTS)
    for i in range(len(NODE_PORTS)):
        found = NODE_PORTS[(start + i) % len(NODE_PORTS)]
        if found not in used:
            return found
    raise errors.internal(f"no free node port from {NODE_PORTS[0]} to {NODE_PORTS[-1]}")
