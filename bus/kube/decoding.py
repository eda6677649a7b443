"""From what a client sent to an object that the rules can trust, and between the versions of a custom resource."""

from __future__ import annotations

from typing import Any

from bus.kube import catalog, conversions, errors, structural, typed
from bus.kube.catalog import Resource, Version
from bus.kube.storage import Object

_META_NODE = {"$ref": typed.META + "ObjectMeta"}
UNKNOWN_SHOWN_MAX = 20
SYSTEM_FIELDS = {"apiVersion", "kind", "metadata"}


def clone(value: Any) -> Any:
    """A deep copy of plain JSON, several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {k: clone(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clone(v) for v in value]
    return value


def read(
    raw: Any, resource: Resource, version: Version, *, validation: str = "Ignore", warnings: list[str] | None = None
) -> Object:
    """The object in the form of its kind; ``validation`` is fieldValidation: Ignore, Warn or Strict.

    Raises StatusError 400 for another kind or version, a wrong type, and (Strict) unknown fields."""
    if not isinstance(raw, dict):
        raise errors.bad_request(f"an object is needed, got {type(raw).__name__}")
    api_version = resource.api_version(version.name)
    given_version, given_kind = raw.get("apiVersion", api_version), raw.get("kind", resource.kind)
    if given_kind != resource.kind:
        raise errors.bad_request(
            f"{str(given_kind)[:80]} in version {str(given_version)[:80]!r} cannot be handled as a {resource.kind}"
        )
    if given_version != api_version:
        raise errors.bad_request(
            f"the API version in the data ({str(given_version)[:80]}) does not match the expected API version"
            f" ({api_version})"
        )
    refused = f'{resource.kind} in version "{version.name}" cannot be handled as a {resource.kind}'
    unknown: list[str] = []
    try:
        obj = _custom(raw, version, unknown) if resource.custom else typed.decode(raw, version.schema, "", unknown)
        if not isinstance(obj.setdefault("metadata", {}), dict):
            raise typed.DecodeError("metadata is not an object")
    except typed.DecodeError as e:
        raise errors.bad_request(f"{refused}: {e}") from e
    obj["apiVersion"], obj["kind"] = api_version, resource.kind
    if unknown and validation == "Strict":
        said = ", ".join(f'unknown field "{u}"' for u in unknown[:UNKNOWN_SHOWN_MAX])
        raise errors.bad_request(f"{refused}: strict decoding error: {said}")
    if validation == "Warn" and warnings is not None:
        warnings += [f'unknown field "{u}"' for u in unknown[:UNKNOWN_SHOWN_MAX]]
    return obj


def _custom(raw: Object, version: Version, unknown: list[str]) -> Object:
    obj: Object = clone(raw)
    meta = obj.pop("metadata", None)
    schema = version.schema
    own = {k: v for k, v in schema.get("properties", {}).items() if k not in SYSTEM_FIELDS}
    structural.prune(obj, {**schema, "properties": {**own, "apiVersion": {}, "kind": {}}}, "", unknown)
    obj["metadata"] = typed.decode({} if meta is None else meta, _META_NODE, "metadata", unknown)
    return obj


def convert(obj: Object, resource: Resource, version: str) -> Object:
    """A stored object in another version: conversion strategy "None" changes apiVersion and prunes.  May share with
    ``obj``."""
    if not resource.custom:
        other = conversions.of(resource.group, resource.resource, version)
        return other.show(obj) if other is not None else obj
    api_version = resource.api_version(version)
    if obj.get("apiVersion") == api_version:
        return obj
    target = resource.versions[version]
    out: Object = clone(obj)
    meta = out.pop("metadata", {})
    structural.prune(
        out, {**target.schema, "properties": {**target.schema.get("properties", {}), "apiVersion": {}, "kind": {}}}
    )
    return {
        "apiVersion": api_version,
        "kind": resource.kind,
        "metadata": meta,
        **{k: v for k, v in out.items() if k not in SYSTEM_FIELDS},
    }


def hub(obj: Object, resource: Resource, version: Version) -> tuple[Object, Version]:
    """A built-in object that was spoken in ``version``, as the rules of its kind see it: in the form that is stored."""
    other = None if resource.custom else conversions.of(resource.group, resource.resource, version.name)
    if other is None:
        return obj, version
    home = catalog.builtin()[resource.place]
    return other.store(obj), home.versions[home.storage_version]


def stored_form(obj: Object, resource: Resource) -> Object:
    """What the rules have passed, as it is stored."""
    return convert(obj, resource, resource.storage_version) if resource.custom else obj
