"""Rows of endpoints and endpoint slices (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence

from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object

SHOWN_MAX = 3


def _some(found: list[str]) -> str:
    if not found:
        return text.NONE
    more = f" + {len(found) - SHOWN_MAX} more..." if len(found) > SHOWN_MAX else ""
    return ",".join(found[:SHOWN_MAX]) + more


def _endpoints(obj: Object, _: Look) -> str:
    found: list[str] = []
    for subset in obj.get("subsets") or []:
        addresses = [a.get("ip", "") for a in subset.get("addresses") or []]
        ports = [p.get("port") for p in subset.get("ports") or []]
        found += [f"{a}:{p}" for p in ports for a in addresses] if ports else addresses
    return _some(found)


def _ports(obj: Object, _: Look) -> str:
    ports = obj.get("ports") or []
    return _some([str(p["port"]) if p.get("port") else "*" for p in ports]) if ports else "<unset>"


def _addresses(obj: Object, _: Look) -> str:
    found = [a for e in obj.get("endpoints") or [] for a in e.get("addresses") or []]
    return _some(found) if found else "<unset>"


COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("", "endpoints"): (NAME, Cell("Endpoints", _endpoints), AGE),
    ("discovery.k8s.io", "endpointslices"): (
        NAME,
        Cell("AddressType", lambda o, _: o.get("addressType", "")),
        Cell("Ports", _ports),
        Cell("Endpoints", _addresses),
        AGE,
    ),
}
