"""From what a client sent to an object that the rules can trust, and between the versions of a custom resource."""

from __future__ import annotations

from typing import Any

from bus.kube import catalog, conversions, errors, invariants, jsontext, structural, typed
from bus.kube.catalog import Resource, Version
from bus.kube.storage import Object

_META_NODE = {"$ref": typed.META + "ObjectMeta"}
UNKNOWN_SHOWN_MAX = 20
SCHEME = "pkg/api/legacyscheme/scheme.go:30"  # what the real server calls the list of what it knows
DOUBLE_PLAIN_MAX = 1e21  # from which on Go writes doubles with an exponent
SYSTEM_FIELDS = {"apiVersion", "kind", "metadata"}


def clone(value: Any) -> Any:
    """A deep copy of plain JSON, several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {k: clone(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clone(v) for v in value]
    return value


def read(
    raw: Any,
    resource: Resource,
    version: Version,
    *,
    validation: str = "Ignore",
    warnings: list[str] | None = None,
    patched: Any = None,
) -> Object:
    """The object in the form of its kind; ``validation`` is fieldValidation: Ignore, Warn or Strict.

    ``patched``: the patch that made it; what is wrong is then the patch's fault.
    Raises StatusError 400 for another kind or version, a wrong type, and (Strict) unknown fields (422 for a patch)."""
    if not isinstance(raw, dict):
        raise errors.bad_request(f"an object is needed, got {type(raw).__name__}")
    api_version = resource.api_version(version.name)
    given_version, given_kind = str(raw.get("apiVersion") or api_version), str(raw.get("kind") or resource.kind)
    if (given_version, given_kind) != (api_version, resource.kind):
        raise _other_kind(given_version, given_kind, resource, api_version)
    refused = f'{resource.kind} in version "{version.name}" cannot be handled as a {resource.kind}'
    unknown: list[str] = []
    try:
        obj = _custom(raw, version, unknown) if resource.custom else typed.decode(raw, version.schema, "", unknown)
        if not isinstance(obj.setdefault("metadata", {}), dict):
            raise typed.DecodeError("metadata is not an object")
    except typed.DecodeError as e:
        if patched:
            raise errors.invalid("", "", "", [errors.bad_value("patch", patched, str(e))]) from e
        raise errors.bad_request(f"{refused}: {e}") from e
    obj["apiVersion"], obj["kind"] = api_version, resource.kind
    if validation == "Ignore":
        return obj
    problems = _strict(raw, unknown, patched)[:UNKNOWN_SHOWN_MAX]
    if problems and validation == "Strict":
        said = "strict decoding error: " + ", ".join(problems)
        if patched:
            raise errors.invalid("", "", "", [errors.bad_value("patch", patched, said)])
        raise errors.bad_request(f"{refused}: {said}")
    if warnings is not None:
        warnings += problems
    return obj


_OPERATION = ("op", "path", "from", "value")


def _strict(raw: Any, unknown: list[str], patched: Any) -> list[str]:
    """What a strict reading minds, in the order in which the real server comes upon it: of the patch, then of the object,
    whose keys are sorted where a patch made it."""
    if patched is None:
        twice = jsontext.duplicates(raw)
        return _merged(raw, twice, unknown) if twice else [f'unknown field "{u}"' for u in unknown]
    if isinstance(patched, list):
        out = []
        for i, op in enumerate(patched):
            out += [f'json patch duplicate field "{d}"' for d in jsontext.duplicates(op, f"[{i}]")]
            out += [f'json patch unknown field "[{i}].{k}"' for k in op or () if k not in _OPERATION]
    else:
        out = [f'duplicate field "{d}"' for d in jsontext.duplicates(patched)]
    return out + [f'unknown field "{u}"' for u in sorted(unknown)]


def _merged(raw: Any, twice: list[str], unknown: list[str]) -> list[str]:
    """Both kinds in the order of the document; what is unknown is not looked into."""
    strange, doubled, out = set(unknown), set(twice), []
    todo: list[tuple[str, Any]] = [("", raw)]
    while todo:
        at, value = todo.pop()
        if at in strange:
            out.append(f'unknown field "{at}"')
            continue
        if at in doubled:
            out.append(f'duplicate field "{at}"')
        if isinstance(value, dict):
            todo += reversed([(f"{at}.{k}" if at else k, v) for k, v in value.items()])
        elif isinstance(value, list):
            todo += reversed([(f"{at}[{i}]", v) for i, v in enumerate(value)])
    return out


def require_version(raw: Any, resource: Resource, version: Version) -> None:
    """A custom resource says itself what it is; a built-in kind may leave that to the path.  Raises StatusError 400."""
    if resource.custom and isinstance(raw, dict) and not raw.get("apiVersion"):
        raise errors.bad_request(_mismatch("", resource.api_version(version.name)))


def _other_kind(version: str, kind: str, resource: Resource, expected: str) -> errors.StatusError:
    """For an object that is not what belongs to its address."""
    group, _, name = version.rpartition("/")
    head = f'{kind[:80]} in version "{name[:80]}" cannot be handled as a {resource.kind}: '
    if resource.custom:
        same = (group, kind) == (resource.group, resource.kind)
        if same and name in resource.versions:
            return errors.bad_request(_mismatch(version, expected))
        said = f"no kind {errors.show(kind[:80])} is registered for version {errors.show(version[:80])}"
        return errors.bad_request(f"{head}{said} in scheme")
    served = {(r.group, r.kind) for r in catalog.builtin().values() if name in r.versions}
    if (group, kind) == (resource.group, resource.kind) and name in resource.versions:
        return errors.bad_request(_mismatch(version, expected))
    if (group, kind) in served:
        package = (resource.group or "core").partition(".")[0]
        return errors.bad_request(f"{head}converting ({name}.{kind}) to ({package}.{resource.kind}): unknown conversion")
    said = f'no kind {errors.show(kind[:80])} is registered for version {errors.show(version[:80])} in scheme "{SCHEME}"'
    return errors.bad_request(head + said)


def _mismatch(given: str, expected: str) -> str:
    return f"the API version in the data ({given[:80]}) does not match the expected API version ({expected})"


def _custom(raw: Object, version: Version, unknown: list[str]) -> Object:
    obj: Object = _numbers(raw)
    meta = obj.pop("metadata", None)
    schema = version.schema
    own = {k: v for k, v in schema.get("properties", {}).items() if k not in SYSTEM_FIELDS}
    structural.prune(obj, {**schema, "properties": {**own, "apiVersion": {}, "kind": {}}}, "", unknown)
    invariants.coerce(obj, schema)
    dropped: list[str] = []
    obj["metadata"] = typed.decode({} if meta is None else meta, _META_NODE, "", dropped)
    unknown += [f"metadata.{field}" for field in dropped]
    unknown.sort()
    return obj


def _numbers(value: Any) -> Any:
    """A deep copy in which whole doubles are written as whole numbers, and too long ones are as near as doubles come."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < DOUBLE_PLAIN_MAX:
        return int(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return _numbers(float(value)) if abs(value) < DOUBLE_PLAIN_MAX else float(value)
    return value


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
