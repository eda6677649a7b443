"""Ratcheting: an update may leave as it is what was stored under an older schema, and only what it changes must be valid.

Source: Kubernetes "Extend the Kubernetes API with CustomResourceDefinitions", "Validation ratcheting".  Elements of
lists are compared one by one only in lists with keys; any other list counts as one value.
"""

from __future__ import annotations

import re
from typing import Any

from bus.kube.errors import Cause

_STEP = re.compile(r"\[([0-9]{1,9})\]|([^.\[\]]+)")
ABSENT = object()


def changed(causes: list[Cause], new: Any, old: Any, schema: dict[str, Any]) -> list[Cause]:
    """Those causes that are about something that isn't what it was."""
    return [c for c in causes if not _kept(c, new, old, schema)]


def _kept(cause: Cause, new: Any, old: Any, node: dict[str, Any]) -> bool:
    steps = _STEP.findall(cause.field)
    if cause.reason == "FieldValueRequired":
        steps = steps[:-1]  # what lacks a field is at fault, not the field
    if new == old:
        return True
    for index, name in steps:
        if index:
            i = int(index)
            keys = node.get("x-kubernetes-list-map-keys") if node.get("x-kubernetes-list-type") == "map" else None
            if not keys or not isinstance(new, list) or not isinstance(old, list) or i >= len(new):
                return False
            new = new[i]
            old = next((o for o in old if _same_keys(o, new, keys)), ABSENT)
            node = node.get("items") or {}
        else:
            if not isinstance(new, dict) or not isinstance(old, dict):
                return False
            new, old = new.get(name, ABSENT), old.get(name, ABSENT)
            inner = (node.get("properties") or {}).get(name, node.get("additionalProperties"))
            node = inner if isinstance(inner, dict) else {}
        if new is ABSENT or old is ABSENT:
            return False
        if new == old:
            return True
    return False


def _same_keys(one: Any, other: Any, keys: list[str]) -> bool:
    return isinstance(one, dict) and isinstance(other, dict) and all(one.get(k) == other.get(k) for k in keys)
