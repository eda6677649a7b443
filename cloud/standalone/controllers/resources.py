"""What a pod asks of a node, in numbers: CPU, memory and any extended resource.

Source: Kubernetes documentation, "Resource Management for Pods and Containers" (units), "Init Containers" and
"Sidecar Containers" (the effective request of a pod).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from cloud.standalone.controllers.base import Object, at, maps

Amounts = dict[str, int]  # in thousandths, rounded up as Kubernetes does (Quantity.MilliValue)

_QUANTITY = re.compile(
    r"([+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40}))(?:([eE][+-]?\d{1,2})|([numkMGTPE])|([KMGTPE]i))?\Z", re.ASCII
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity(value: object) -> int:
    """Thousandths of ``100m``, ``1.5Gi``, 2; what is no quantity counts as nothing (the API refuses it before)."""
    return 0 if isinstance(value, bool) else _parsed(value if isinstance(value, str) else str(value))


@functools.lru_cache(maxsize=4096)  # a fleet says the same few hundred quantities over and over
def _parsed(text: str) -> int:
    m = _QUANTITY.match(text.strip())
    if m is None:
        return 0
    number = 1000 * Fraction(m[1])
    if m[2]:
        number *= Fraction(10) ** int(m[2][1:])
    elif m[3]:
        number *= Fraction(10) ** _DECIMAL[m[3]]
    elif m[4]:
        number *= 1 << _BINARY[m[4]]
    return math.ceil(number)


def amounts(values: object) -> Amounts:
    return {str(k): quantity(v) for k, v in values.items()} if isinstance(values, dict) else {}


def requested(pod: Object) -> Amounts:
    """The most that its containers ever need at one time: all together, or one init container with the sidecars so far."""
    spec = at(pod, "spec") or {}
    running = total(_request(c) for c in maps(spec.get("containers")))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for c in maps(spec.get("initContainers")):
        if c.get("restartPolicy") == "Always":
            sidecars = total([sidecars, _request(c)])
            peak = _most(peak, sidecars)
        else:
            peak = _most(peak, total([sidecars, _request(c)]))
    most = _most(total([running, sidecars]), peak)
    return total([most, amounts(spec.get("overhead"))])


def _request(container: Object) -> Amounts:
    """A limit without a request is the request."""
    return amounts(at(container, "resources", "limits")) | amounts(at(container, "resources", "requests"))


def total(parts: Iterable[Mapping[str, int]]) -> Amounts:
    out: Amounts = {}
    for part in parts:
        for k, v in part.items():
            out[k] = out.get(k, 0) + v
    return out


def _most(a: Amounts, b: Amounts) -> Amounts:
    return {k: max(a.get(k, 0), b.get(k, 0)) for k in (*a, *b)}


def allocatable(node: Object) -> Amounts:
    """What a node has for pods; ``pods`` is a resource like the others."""
    return amounts(at(node, "status", "allocatable") or at(node, "status", "capacity"))
