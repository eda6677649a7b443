"""Endpoints and endpoint slices: defaults of ports, and addresses that are some (pkg/apis/core, pkg/apis/discovery)."""

from __future__ import annotations

import ipaddress

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy
from bus.kube.storage import Object

FAMILIES = ("FQDN", "IPv4", "IPv6")
SLICE_ENDPOINTS_MAX = 1000


def _bad_address(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return True
    return False


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
                    if _bad_address(address.get("ip", "")):
                        why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                        out.append(errors.bad_value(f"{path}.{field}[{j}].ip", address.get("ip", ""), why))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


class EndpointSlices(Strategy):
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        for port in obj.get("ports") or []:
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        return all(obj.get(f) == old.get(f) for f in ("endpoints", "ports", "addressType"))

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = []
        kind = obj.get("addressType", "")
        if not kind:
            out.append(errors.required("addressType"))
        elif kind not in FAMILIES:
            out.append(errors.not_supported("addressType", kind, FAMILIES))
        listed = obj.get("endpoints") or []
        if len(listed) > SLICE_ENDPOINTS_MAX:
            why = f"Too many: {len(listed)}: must have at most {SLICE_ENDPOINTS_MAX} items"
            out.append(Cause("endpoints", "FieldValueTooMany", why))
        for i, endpoint in enumerate(listed):
            addresses = endpoint.get("addresses") or []
            if not addresses:
                out.append(errors.required(f"endpoints[{i}].addresses", "must contain at least 1 address"))
            for j, address in enumerate(addresses):
                if kind != "FQDN" and _bad_address(address):
                    why = f"must be an {kind} address"
                    out.append(errors.bad_value(f"endpoints[{i}].addresses[{j}]", address, why))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if obj.get("addressType") != old.get("addressType"):
            out.append(errors.bad_value("addressType", obj.get("addressType"), "field is immutable"))
        return out
