"""Which objects a LabelSelector or a node's requirements pick, and which versions of templates are the same.

Source: Kubernetes API reference, LabelSelector, NodeSelectorTerm; "Labels and Selectors".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloud.standalone.controllers.base import Object, at, deleting, labels, maps, meta

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


@dataclass(frozen=True, slots=True)
class Picker:
    """Which pods a term of affinity or of spread means; equal ones mean the same pods, so what they find can be kept.

    Selectors are JSON (``null`` picks nothing).  ``also``: others that have to pick the pod too.  Not ``leaving``: pods that
    are being deleted are not meant."""

    selector: str
    namespaces: tuple[str, ...]
    spaces: str  # a selector of namespaces by their labels, "" for none
    leaving: bool = True
    also: tuple[Picker, ...] = ()

    @property
    def by_namespace_labels(self) -> bool:
        return bool(self.spaces) or any(p.spaces for p in self.also)

    def joined(self, others: Sequence[Picker]) -> Picker:
        return replace(self, also=tuple(others))

    def picks(self, pod: Object, labels_of: Callable[[str], Mapping[str, str] | None]) -> bool:
        """``labels_of``: those of a namespace, None for one that there is not."""
        if not selects(_parsed(self.selector), labels(pod)) or (not self.leaving and deleting(pod)):
            return False
        space = str(meta(pod).get("namespace") or "")
        if space not in self.namespaces:
            found = labels_of(space) if self.spaces else None
            if found is None or not selects(_parsed(self.spaces), found):
                return False
        return all(p.picks(pod, labels_of) for p in self.also)


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    return json.loads(text)


def picker(term: Object, of: Object, *, leaving: bool = True) -> Picker:
    """For a PodAffinityTerm of a pod (or a spread constraint): namespaces by name, by label, or by default the pod's own;
    ``matchLabelKeys`` and ``mismatchLabelKeys`` with the pod's own values."""
    selector = term.get("labelSelector")
    own = labels(of)
    more = [
        {"key": k, "operator": operator, "values": [own[k]]}
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for k in term.get(field) or []
        if k in own
    ]
    if more and isinstance(selector, dict):
        selector = {**selector, "matchExpressions": [*maps(selector.get("matchExpressions")), *more]}
    spaces, named = term.get("namespaceSelector"), term.get("namespaces") or []
    if not named and spaces is None:
        named = [str(meta(of).get("namespace") or "")]
    return Picker(
        json.dumps(selector, sort_keys=True),
        tuple(sorted(named)),
        json.dumps(spaces, sort_keys=True) if spaces is not None else "",
        leaving,
    )


def template_hash(template: Object, collisions: int) -> str:
    """A short name for a pod template; ``collisions`` makes another one for the same template."""
    value = 0x811C9DC5  # FNV-1a, 32 bits
    for byte in f"{json.dumps(template, sort_keys=True)}{collisions or ''}".encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_SAFE[ord(d) % len(_SAFE)] for d in str(value))
