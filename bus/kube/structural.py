"""Structural schemas of custom resources: prune and default.

Source: Kubernetes "Extend the Kubernetes API with CustomResourceDefinitions" (structural schemas, pruning, defaulting).
Whether what is left is valid: validity.py; CEL rules (``x-kubernetes-validations``): cel_rules.py.
"""

from __future__ import annotations

import copy
from typing import Any

Node = dict[str, Any]


def prune(value: Any, node: Node, path: str = "", dropped: list[str] | None = None) -> None:
    """Remove what the schema doesn't specify, in place; paths of what went are added to ``dropped``."""
    if isinstance(value, dict):
        if node.get("x-kubernetes-embedded-resource"):
            node = {**node, "properties": {"apiVersion": {}, "kind": {}, "metadata": _ANY, **node.get("properties", {})}}
        fields = node.get("properties", {})
        more = node.get("additionalProperties")
        keep = node.get("x-kubernetes-preserve-unknown-fields") or more is True
        for name in list(value):
            at = f"{path}.{name}" if path else name
            if name in fields:
                prune(value[name], fields[name], at, dropped)
            elif isinstance(more, dict):
                prune(value[name], more, at, dropped)
            elif not keep:
                del value[name]
                if dropped is not None:
                    dropped.append(at)
    elif isinstance(value, list):
        items = node.get("items")
        if isinstance(items, dict):
            for i, item in enumerate(value):
                prune(item, items, f"{path}[{i}]", dropped)


_ANY: Node = {"x-kubernetes-preserve-unknown-fields": True}


def default(value: Any, node: Node) -> None:
    """Fill in defaults in place; a null where null is not allowed counts as absent."""
    if isinstance(value, dict):
        fields = node.get("properties", {})
        for name, field in fields.items():
            if name in value and value[name] is None and not field.get("nullable"):
                del value[name]
            if name not in value and "default" in field:
                value[name] = copy.deepcopy(field["default"])
            if name in value:
                default(value[name], field)
        more = node.get("additionalProperties")
        if isinstance(more, dict):
            for name, item in list(value.items()):
                if name not in fields:
                    if item is None and not more.get("nullable"):
                        del value[name]
                    default(item, more)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for item in value:
            default(item, node["items"])


def has_defaults(node: Any) -> bool:
    if isinstance(node, dict):
        return "default" in node or any(has_defaults(v) for v in node.values())
    return isinstance(node, list) and any(has_defaults(v) for v in node)
