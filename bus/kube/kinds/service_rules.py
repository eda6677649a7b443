"""What a service must hold (pkg/apis/core/validation), in the order and the words of the real server."""

from __future__ import annotations

import ipaddress
from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.kinds.base import at
from bus.kube.storage import Object

NONE = "None"  # the address of a headless service
AFFINITY_S_MAX = 86_400
PROTOCOLS = ("SCTP", "TCP", "UDP")
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
NEAR = ("PreferClose", "PreferSameZone", "PreferSameNode")
RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_BALANCED = "may only be used when `type` is 'LoadBalancer'"
_LOCAL = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
_ONCE = "may not change once set"


def headless(spec: Object) -> bool:
    return spec.get("clusterIP") == NONE


def externally(spec: Object) -> bool:
    """Whether it can be reached from outside."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_health_port(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def service(obj: Object) -> list[Cause]:
    spec = obj["spec"]
    out = _type(spec)
    ports, seen = spec.get("ports") or [], set[str]()
    for i, port in enumerate(ports):
        out += _port(port, f"spec.ports[{i}]", len(ports) > 1, seen)
    out += checks.labels("spec.selector", spec.get("selector"))
    out += _affinity(spec)
    if spec.get("type") != "ExternalName":
        out += addresses(spec)
    for i, ip in enumerate(spec.get("externalIPs") or []):
        wrong = checks.address(f"spec.externalIPs[{i}]", ip)
        out += wrong or special(f"spec.externalIPs[{i}]", ip)
    out += checks.one_of("spec.type", spec.get("type"), TYPES)
    out += _ports_together(spec, ports)
    out += _ranges(obj)
    if spec.get("allocateLoadBalancerNodePorts") is not None and spec.get("type") != "LoadBalancer":
        out.append(errors.not_permitted("spec.allocateLoadBalancerNodePorts", _BALANCED))
    out += _class(spec)
    return out + _traffic(spec)


def _type(spec: Object) -> list[Cause]:
    kind, out = spec.get("type"), []
    if not spec.get("ports") and not headless(spec) and kind != "ExternalName":
        out.append(errors.required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless(spec):
        out.append(errors.bad_value("spec.clusterIPs[0]", NONE, f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field):
                out.append(errors.not_permitted(f"spec.{field}", "may not be set for ExternalName services"))
        name = (spec.get("externalName") or "").removesuffix(".")
        if not name:
            out.append(errors.required("spec.externalName"))
        else:
            out += checks.text("spec.externalName", name, names.dns_subdomain)
    return out


def _port(port: Object, path: str, name_needed: bool, seen: set[str]) -> list[Cause]:
    out, name = [], port.get("name") or ""
    if name:
        out += checks.text(f"{path}.name", name, names.dns_label)
        if name in seen:
            out.append(errors.duplicate(f"{path}.name", name))
        seen.add(name)
    elif name_needed:
        out.append(errors.required(f"{path}.name"))
    out += checks.port_number(f"{path}.port", port.get("port") or 0)
    out += checks.one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    out += checks.port(f"{path}.targetPort", port.get("targetPort"))
    if port.get("appProtocol") is not None:
        out += checks.text(f"{path}.appProtocol", port["appProtocol"], names.label_key)
    return out


def _affinity(spec: Object) -> list[Cause]:
    kind, path = spec.get("sessionAffinity"), "spec.sessionAffinityConfig"
    out = checks.one_of("spec.sessionAffinity", kind, ("ClientIP", "None"))
    if kind == "ClientIP":
        seconds = at(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds")
        if not 0 < (seconds or 0) <= AFFINITY_S_MAX:
            why = f"must be greater than 0 and less than {AFFINITY_S_MAX}"
            out.append(errors.bad_value(f"{path}.clientIP.timeoutSeconds", seconds, why))
    elif kind == "None" and spec.get("sessionAffinityConfig") is not None:
        out.append(errors.not_permitted(path, "must not be set when session affinity is None"))
    return out


def addresses(spec: Object) -> list[Cause]:
    """Addresses and families, each for itself and together."""
    one, many, out = spec.get("clusterIP") or "", spec.get("clusterIPs") or [], []
    if one and not many:
        out.append(errors.required("spec.clusterIPs"))
    elif one and many[0] != one:
        out.append(errors.bad_value("spec.clusterIPs", many, "first value must match `clusterIP`"))
    elif many and not one:
        out.append(errors.bad_value("spec.clusterIPs", many, "must be empty when `clusterIP` is not specified"))
    families = spec.get("ipFamilies") or []
    for i, family in enumerate(families):
        out += checks.listed(f"spec.ipFamilies[{i}]", family, ("IPv4", "IPv6"))
        if family in families[:i]:
            out.append(errors.duplicate(f"spec.ipFamilies[{i}]", family))
    if spec.get("ipFamilyPolicy"):
        out += checks.listed("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], POLICIES)
    wrong: list[Cause] = []
    for i, ip in enumerate(many):
        if i == 0 and ip == NONE:
            if len(many) > 1:
                wrong.append(errors.bad_value("spec.clusterIPs", many, "'None' must be the first and only value"))
            continue
        wrong += checks.address(f"spec.clusterIPs[{i}]", ip)
    out += wrong
    if len(many) > 2:
        out.append(errors.bad_value("spec.clusterIPs", many, "may only hold up to 2 values"))
    if wrong or headless(spec):
        return out
    versions = [ipaddress.ip_address(ip).version for ip in many]
    if len(many) > 1 and len({*versions}) != 2:
        why = "may specify no more than one IP for each IP family"
        out.append(errors.bad_value("spec.clusterIPs", many, why))
    for i, (ip, version, family) in enumerate(zip(many, versions, families, strict=False)):
        if family in ("IPv4", "IPv6") and family != f"IPv{version}":
            why = f"expected an {family} value as indicated by `ipFamilies[{i}]`"
            out.append(errors.bad_value(f"spec.clusterIPs[{i}]", ip, why))
    return out


def special(path: str, ip: str) -> list[Cause]:
    """Addresses that lead nowhere, or to oneself; ``ip`` is one."""
    address = ipaddress.ip_address(ip)
    multicast = ipaddress.ip_network("224.0.0.0/24" if address.version == 4 else "ff02::/16")
    found = (
        (address.is_unspecified, f"may not be unspecified ({ip})"),
        (address.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (address in multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    )
    return [errors.bad_value(path, ip, why) for bad, why in found if bad]


def _ports_together(spec: Object, ports: list[Object]) -> list[Cause]:
    out = []
    if spec.get("type") == "ClusterIP":
        why = "may not be used when `type` is 'ClusterIP'"
        out += [errors.not_permitted(f"spec.ports[{i}].nodePort", why) for i, p in enumerate(ports) if p.get("nodePort")]
    seen: set[Any] = set()
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("nodePort"))
        if port.get("nodePort") and key in seen:
            out.append(errors.duplicate(f"spec.ports[{i}].nodePort", port["nodePort"]))
        seen.add(key)
    seen = set()
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            shown = {"Name": "", "Protocol": key[0], "AppProtocol": None, "Port": key[1], "TargetPort": 0, "NodePort": 0}
            out.append(Cause(f"spec.ports[{i}]", "FieldValueDuplicate", f"Duplicate value: {errors.in_order(shown)}"))
        seen.add(key)
    return out


def _ranges(obj: Object) -> list[Cause]:
    spec = obj["spec"]
    given, path = spec.get("loadBalancerSourceRanges") or [], "spec.LoadBalancerSourceRanges"
    places = [(f"{path}[{i}]", text.strip()) for i, text in enumerate(given)]
    if not given:
        noted = (obj["metadata"].get("annotations") or {}).get(RANGES)
        if noted is None:
            return []
        path = f"metadata.annotations[{RANGES}]"
        places = [(path, text.strip()) for text in noted.split(",")] if noted.strip() else []
    out = [] if spec.get("type") == "LoadBalancer" else [errors.not_permitted(path, _BALANCED)]
    for where, text in places:
        out += cidr(where, text)
    return out


def cidr(path: str, text: str) -> list[Cause]:
    try:
        if "/" not in text:
            raise ValueError(text)
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return [errors.bad_value(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    return []


def _class(spec: Object) -> list[Cause]:
    given = spec.get("loadBalancerClass")
    if given is None:
        return []
    if spec.get("type") != "LoadBalancer":
        return [errors.not_permitted("spec.loadBalancerClass", _BALANCED)]
    return checks.text("spec.loadBalancerClass", given, names.label_key)


def _traffic(spec: Object) -> list[Cause]:
    policy, port, out = spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort"), []
    if externally(spec):
        out += checks.one_of("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    elif policy:
        why = "may only be set for externally-accessible services"
        out.append(errors.bad_value("spec.externalTrafficPolicy", policy, why))
    if not needs_health_port(spec):
        if port:
            out.append(errors.bad_value("spec.healthCheckNodePort", port, _LOCAL))
    elif not port:
        out.append(errors.required("spec.healthCheckNodePort"))
    else:
        out += checks.port_number("spec.healthCheckNodePort", port)
    inside, kind = spec.get("internalTrafficPolicy"), spec.get("type")
    if inside is None and kind in ("ClusterIP", "LoadBalancer", "NodePort"):
        out.append(errors.required("spec.internalTrafficPolicy"))
    elif inside is not None:
        out += checks.listed("spec.internalTrafficPolicy", inside, ("Cluster", "Local"))
    if spec.get("trafficDistribution") is not None:
        out += checks.listed("spec.trafficDistribution", spec["trafficDistribution"], NEAR)
    return out


def changed(spec: Object, before: Object) -> list[Cause]:
    """What an update may not change."""
    out = _addresses_kept(spec, before) + _families_kept(spec, before)
    given, balanced = spec.get("loadBalancerClass"), spec.get("type") == before.get("type") == "LoadBalancer"
    if balanced and given != before.get("loadBalancerClass"):
        out.append(errors.bad_value("spec.loadBalancerClass", given, _ONCE))
    out += _class(spec)
    port, health = "healthCheckNodePort", needs_health_port(spec) and needs_health_port(before)
    if health and spec.get(port) != before.get(port):
        out.append(errors.not_permitted(f"spec.{port}", "field is immutable"))
    return out


def _addresses_kept(spec: Object, before: Object) -> list[Cause]:
    if "ExternalName" in (spec.get("type"), before.get("type")) or (headless(spec) and headless(before)):
        return []
    old, new = before.get("clusterIPs") or [], spec.get("clusterIPs") or []
    path = "spec.clusterIPs"
    if len(old) == len(new):
        changes = [i for i, (was, now) in enumerate(zip(old, new, strict=True)) if was != now]
        return [errors.bad_value(f"{path}[{i}]", new, _ONCE) for i in changes]
    if not new:
        return [errors.bad_value(f"{path}[0]", new, "primary clusterIP can not be unset")]
    return [errors.bad_value(f"{path}[0]", new, _ONCE)] if old and old[0] != new[0] else []


def _families_kept(spec: Object, before: Object) -> list[Cause]:
    if "ExternalName" in (spec.get("type"), before.get("type")) or headless(spec) or headless(before):
        return []
    old, new = before.get("ipFamilies") or [], spec.get("ipFamilies") or []
    changes = [i for i, (was, now) in enumerate(zip(old, new, strict=False)) if was != now]
    return [errors.bad_value("spec.ipFamilies[0]", new, _ONCE) for _ in changes]


def balancer(status: Object, spec: Object) -> list[Cause]:
    """The status that a load balancer writes."""
    path, listed, out = "status.loadBalancer.ingress", at(status, "loadBalancer", "ingress") or [], []
    if spec.get("type") != "LoadBalancer":
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        return [errors.not_permitted(path, why)] if listed else []
    for i, ingress in enumerate(listed):
        ip, mode, host = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
        if ip:
            out += checks.address(f"{path}[{i}].ip", ip)
        if mode is None and ip:
            out.append(errors.required(f"{path}[{i}].ipMode", "must be specified when `ip` is set"))
        elif mode is not None and not ip:
            out.append(errors.not_permitted(f"{path}[{i}].ipMode", "may not be specified when `ip` is not set"))
        elif mode is not None:
            out += checks.listed(f"{path}[{i}].ipMode", mode, ("Proxy", "VIP"))
        if host:
            out += checks.text(f"{path}[{i}].hostname", host, names.dns_subdomain)
            if not checks.address("", host):
                out.append(errors.bad_value(f"{path}[{i}].hostname", host, "must be a DNS name, not an IP address"))
    return out
