"""Endpoints and endpoint slices: defaults of ports, and addresses that are some (pkg/apis/core, pkg/apis/discovery)."""

from __future__ import annotations

import ipaddress

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.kinds.base import Context, Strategy
from bus.kube.kinds.service_rules import PROTOCOLS, special
from bus.kube.storage import Object

FAMILIES = ("FQDN", "IPv4", "IPv6")
SLICE_ENDPOINTS_MAX, SLICE_PORTS_MAX, ENDPOINT_ADDRESSES_MAX = 1000, 20_000, 100


class Endpoints(Strategy):
    create_on_update = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        for subset in obj.get("subsets") or []:
            for port in subset.get("ports") or []:
                port.setdefault("protocol", "TCP")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = []
        for i, subset in enumerate(obj.get("subsets") or []):
            path = f"subsets[{i}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                out.append(errors.required(path, "must specify `addresses` or `notReadyAddresses`"))
            for field in ("addresses", "notReadyAddresses"):
                for j, address in enumerate(subset.get(field) or []):
                    out += _address(address, f"{path}.{field}[{j}]")
            ports = subset.get("ports") or []
            for j, port in enumerate(ports):
                out += _port(port, f"{path}.ports[{j}]", len(ports) > 1)
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _address(address: Object, path: str) -> list[Cause]:
    ip = address.get("ip", "")
    wrong = checks.address(f"{path}.ip", ip)
    out = list(wrong)
    if address.get("hostname"):
        out += checks.text(f"{path}.hostname", address["hostname"], names.dns_label)
    if address.get("nodeName") is not None:
        out += checks.text(f"{path}.nodeName", address["nodeName"], names.dns_subdomain)
    if wrong:
        return [*out, errors.bad_value(f"{path}.ip", ip, "must be a valid IP address")]
    return out + special(f"{path}.ip", ip)


def _port(port: Object, path: str, name_needed: bool) -> list[Cause]:
    out: list[Cause] = []
    if port.get("name"):
        out += checks.text(f"{path}.name", port["name"], names.dns_label)
    elif name_needed:
        out.append(errors.required(f"{path}.name"))
    out += checks.port_number(f"{path}.port", port.get("port") or 0)
    out += checks.one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    if port.get("appProtocol") is not None:
        out += checks.text(f"{path}.appProtocol", port["appProtocol"], names.label_key)
    return out


class EndpointSlices(Strategy):
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        for field in ("endpoints", "ports"):
            obj[field] = obj.get(field) or None  # both are always told
        for endpoint in obj["endpoints"] or []:
            endpoint.setdefault("conditions", {})
        for port in obj["ports"] or []:
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        for endpoint in obj.get("endpoints") or []:
            endpoint.pop("deprecatedTopology", None)

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        fields = ("endpoints", "ports", "addressType")
        labels = [one["metadata"].get("labels") or {} for one in (obj, old)]
        return labels[0] == labels[1] and all(obj.get(f) == old.get(f) for f in fields)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        kind = obj.get("addressType", "")
        return checks.one_of("addressType", kind, FAMILIES) + _endpoints(obj, kind) + _ports(obj)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if obj.get("addressType") != old.get("addressType"):
            out.append(errors.bad_value("addressType", obj.get("addressType"), checks.IMMUTABLE))
        return out


def _endpoints(obj: Object, kind: str) -> list[Cause]:
    listed = obj.get("endpoints") or []
    if len(listed) > SLICE_ENDPOINTS_MAX:
        return [checks.too_many("endpoints", len(listed), SLICE_ENDPOINTS_MAX)]
    out: list[Cause] = []
    for i, endpoint in enumerate(listed):
        path, addresses = f"endpoints[{i}]", endpoint.get("addresses") or []
        if not addresses:
            out.append(errors.required(f"{path}.addresses", "must contain at least 1 address"))
        elif len(addresses) > ENDPOINT_ADDRESSES_MAX:
            out.append(checks.too_many(f"{path}.addresses", len(addresses), ENDPOINT_ADDRESSES_MAX))
        for j, address in enumerate(addresses):
            out += _slice_address(address, kind, f"{path}.addresses", j)
        if endpoint.get("nodeName") is not None:
            out += checks.text(f"{path}.nodeName", endpoint["nodeName"], names.dns_subdomain)
        if endpoint.get("hostname") is not None:
            out += checks.text(f"{path}.hostname", endpoint["hostname"], names.dns_label)
        out += _hints(endpoint.get("hints") or {}, f"{path}.hints")
    return out


def _slice_address(address: str, kind: str, path: str, at: int) -> list[Cause]:
    where = f"{path}[{at}]"
    if kind == "FQDN":
        return checks.text(where, address, names.dns_subdomain)
    wrong = checks.address(where, address)
    if wrong:
        return wrong
    out = []
    if kind != f"IPv{ipaddress.ip_address(address).version}":
        out.append(errors.bad_value(path, address, f"must be an {kind} address"))
    return out + special(where, address)


def _hints(hints: Object, path: str) -> list[Cause]:
    out, seen = [], set[tuple[str, str]]()
    for field in ("forZones", "forNodes"):
        for i, one in enumerate(hints.get(field) or []):
            name, where = one.get("name") or "", f"{path}.{field}[{i}].name"
            if (field, name) in seen:
                out.append(errors.duplicate(where, name))
            else:
                out += checks.text(where, name, names.label_value if field == "forZones" else names.dns_subdomain)
            seen.add((field, name))
    return out


def _ports(obj: Object) -> list[Cause]:
    listed = obj.get("ports") or []
    if len(listed) > SLICE_PORTS_MAX:
        return [checks.too_many("ports", len(listed), SLICE_PORTS_MAX)]
    out, seen = [], set[str]()
    for i, port in enumerate(listed):
        path, name = f"ports[{i}]", port.get("name") or ""
        if name:
            out += checks.text(f"{path}.name", name, names.dns_label)
        if name in seen:
            out.append(errors.duplicate(f"{path}.name", name))
        seen.add(name)
        out += checks.one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
        if port.get("appProtocol") is not None:
            out += checks.text(f"{path}.appProtocol", port["appProtocol"], names.label_key)
    return out
