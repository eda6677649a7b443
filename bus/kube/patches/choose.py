"""Which patch is which: from a content type to a function of the current object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus.kube import errors, typed
from bus.kube.catalog import Resource, Version
from bus.kube.gotext import go_kind
from bus.kube.patches import jsonpatch, merge, strategic
from bus.kube.storage import Object

KINDS = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
PATCH_TYPES = tuple(KINDS)


def _unmarshal(value: Any) -> str:
    return f"json: cannot unmarshal {go_kind(value)}"


def patcher(patch: Any, kind: str, resource: Resource, version: Version) -> Callable[[Object], Any]:
    """What the patch does to an object; the function raises StatusError 400, 413 or 422 when it can't."""
    if kind == "json":
        return lambda current: jsonpatch.apply(current, patch)
    strategic_type = kind == "strategic" and not resource.custom
    if patch is None:
        if strategic_type:
            return lambda current: current
        if kind == "merge":
            raise errors.bad_request("Invalid JSON Patch")
    if not isinstance(patch, dict):
        where = "" if strategic_type else "error decoding patch: "
        raise errors.bad_request(f"{where}{_unmarshal(patch)} into Go value of type map[string]interface {{}}")
    if kind == "merge":
        return lambda current: merge.apply(current, patch)
    if not strategic_type:
        raise errors.unsupported_media_type([t for t, k in KINDS.items() if k != "strategic"])
    known = {k: v for k, v in patch.items() if k not in ("apiVersion", "kind")}  # which no such patch can change
    return lambda current: strategic.apply(current, known, version.schema, typed.types())
