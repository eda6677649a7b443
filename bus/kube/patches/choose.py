"""Which patch is which: from a content type to a function of the current object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus.kube import errors, typed
from bus.kube.catalog import Resource, Version
from bus.kube.patches import jsonpatch, merge, strategic
from bus.kube.storage import Object

KINDS = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
PATCH_TYPES = tuple(KINDS)


def go_kind(value: Any) -> str:
    """What Go's JSON decoder calls it."""
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _unmarshal(value: Any) -> str:
    return f"json: cannot unmarshal {go_kind(value)}"


def patcher(patch: Any, kind: str, resource: Resource, version: Version) -> Callable[[Object], Any]:
    """What the patch does to an object; the function raises StatusError 400, 413 or 422 when it can't."""
    if kind == "json":
        return lambda current: jsonpatch.apply(current, patch)
    if not isinstance(patch, dict):
        raise errors.bad_request(
            f"error decoding patch: {_unmarshal(patch)} into Go value of type map[string]interface {{}}"
        )
    if kind == "merge":
        return lambda current: merge.apply(current, patch)
    if kind != "strategic" or resource.custom:
        raise errors.unsupported_media_type([t for t, k in KINDS.items() if k != "strategic"])
    return lambda current: strategic.apply(current, patch, version.schema, typed.types())
