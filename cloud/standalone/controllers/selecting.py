"""Which objects a LabelSelector or a node's requirements pick, and which versions of templates are the same.

Source: Kubernetes API reference, LabelSelector, NodeSelectorTerm; "Labels and Selectors".
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cloud.standalone.controllers.base import Object, at, labels, maps

_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own alphabet for generated names: it spells no words


def selects(selector: object, of: Mapping[str, str]) -> bool:
    """A LabelSelector over labels.  None selects nothing; an empty one everything."""
    if not isinstance(selector, dict):
        return False
    wanted = selector.get("matchLabels") or {}
    if any(of.get(k) != v for k, v in wanted.items()):
        return False
    return all(_holds(e, of) for e in maps(selector.get("matchExpressions")))


def _holds(requirement: Object, of: Mapping[str, str]) -> bool:
    key, operator, values = requirement.get("key", ""), requirement.get("operator"), requirement.get("values") or []
    have = of.get(key)
    match operator:
        case "In":
            return have in values and have is not None
        case "NotIn":
            return have is None or have not in values
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case "Gt" | "Lt":
            try:
                left, right = int(have or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return left > right if operator == "Gt" else left < right
    return False


def node_matches(pod: Object, node: Object) -> bool:
    """``nodeSelector`` and required node affinity: terms are alternatives, what is in one term is needed together."""
    wanted = at(pod, "spec", "nodeSelector") or {}
    have = labels(node)
    if any(have.get(k) != v for k, v in wanted.items()):
        return False
    required = at(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(t, node) for t in maps(at(required, "nodeSelectorTerms")))


def term_matches(term: Object, node: Object) -> bool:
    """A NodeSelectorTerm: labels, and the fields that there are (metadata.name)."""
    expressions, fields = maps(term.get("matchExpressions")), maps(term.get("matchFields"))
    if not expressions and not fields:
        return False  # an empty term matches nothing
    names = {"metadata.name": str(at(node, "metadata", "name"))}
    return all(_holds(e, labels(node)) for e in expressions) and all(_holds(f, names) for f in fields)


def template_hash(template: Object, collisions: int) -> str:
    """A short name for a pod template; ``collisions`` makes another one for the same template."""
    value = 0x811C9DC5  # FNV-1a, 32 bits
    for byte in f"{json.dumps(template, sort_keys=True)}{collisions or ''}".encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_SAFE[ord(d) % len(_SAFE)] for d in str(value))
