"""What a custom resource must hold beside its schema's own words: embedded resources that are some, and lists of the types
set and map without doubles (apiextensions' pkg/apiserver/schema/objectmeta and .../listtype)."""

from __future__ import annotations

import json
from typing import Any

from bus.kube import errors, names, objectmeta, typed
from bus.kube.errors import Cause
from bus.kube.validity import Node

_META = {"$ref": typed.META + "ObjectMeta"}


def embedded(value: Any, node: Node, path: str = "") -> list[Cause]:
    """What is wrong with the resources inside ``value``, which is an object's whole body."""
    out: list[Cause] = []
    if isinstance(value, dict):
        if node.get("x-kubernetes-embedded-resource"):
            out += _resource(value, path)
        fields, more = node.get("properties") or {}, node.get("additionalProperties")
        for name, item in value.items():
            if name in fields:
                out += embedded(item, fields[name], f"{path}.{name}" if path else name)
            elif isinstance(more, dict):
                out += embedded(item, more, f"{path}[{name}]")
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for i, item in enumerate(value):
            out += embedded(item, node["items"], f"{path}[{i}]")
    return out


def _resource(value: dict[str, Any], path: str) -> list[Cause]:
    out = [errors.required(f"{path}.{field}") for field in ("apiVersion", "kind") if field not in value]
    for field in ("apiVersion", "kind"):
        if field not in value:
            continue
        text, where = value[field], f"{path}.{field}"
        if not isinstance(text, str):
            out.append(errors.bad_value(where, text, "must be a string"))
        elif not text:
            out.append(errors.bad_value(where, text, "must not be empty"))
        elif field == "apiVersion" and text.count("/") > 1:
            out.append(errors.bad_value(where, text, f"unexpected GroupVersion string: {text}"))
        elif field == "kind" and (problem := names.dns_label_1035(text.lower())):
            why = f"may have mixed case, but should otherwise match: {problem}"
            out.append(errors.bad_value(where, text, why))
    if "metadata" in value:
        out += _metadata(value["metadata"], f"{path}.metadata")
    return out


def _metadata(meta: Any, path: str) -> list[Cause]:
    try:
        read = typed.decode(meta, _META, "metadata", [])
    except typed.DecodeError as e:
        return [errors.bad_value(path, meta, str(e))]
    whole = {"metadata": {**read, "name": read.get("name") or "fakename"}}
    return [
        Cause(path + c.field.removeprefix("metadata"), c.reason, c.message)
        for c in objectmeta.validate(whole, names.path_segment)
    ]


def coerce(value: Any, node: Node, path: str = "") -> None:
    """Drops what an embedded resource's metadata can't have, in place; raises typed.DecodeError for what is no metadata, no
    version or no kind."""
    if isinstance(value, dict):
        if node.get("x-kubernetes-embedded-resource"):
            _coerce_resource(value, path)
        fields, more = node.get("properties") or {}, node.get("additionalProperties")
        for name, item in value.items():
            inner = fields.get(name, more)
            if isinstance(inner, dict) and isinstance(item, dict | list):
                coerce(item, inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for i, item in enumerate(value):
            coerce(item, node["items"], f"{path}[{i}]")


def _coerce_resource(value: dict[str, Any], path: str) -> None:
    for field in ("apiVersion", "kind"):
        if field in value and not isinstance(value[field], str):
            raise typed.DecodeError(str(errors.bad_value(f"{path}.{field}", value[field], "must be a string")))
    meta = value.get("metadata")
    if meta is None:
        return
    if not isinstance(meta, dict):
        got = {str: "string", list: "array", bool: "bool"}.get(type(meta), "number")
        why = f"json: cannot unmarshal {got} into Go value of type v1.ObjectMeta"
        raise typed.DecodeError(str(errors.bad_value(f"{path}.metadata", meta, why)))
    value["metadata"] = typed.decode(meta, _META, "", [])


def doubles(value: Any, node: Node, path: str = "") -> list[Cause]:
    """Elements of sets, and keys of maps, that are there twice; of more than two, the second is named."""
    out: list[Cause] = []
    if isinstance(value, dict):
        fields, more = node.get("properties") or {}, node.get("additionalProperties")
        for name, item in value.items():
            if isinstance(more, dict):
                out += doubles(item, more, f"{path}[{name}]" if path else f"[{name}]")
            if name in fields:
                out += doubles(item, fields[name], f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        listing = node.get("x-kubernetes-list-type")
        if listing == "set":
            out += [errors.duplicate(f"{path}[{i}]", value[i]) for i in _twice([_text(item) for item in value])]
        elif listing == "map":
            out += _map(value, node.get("x-kubernetes-list-map-keys") or [], path)
        if isinstance(node.get("items"), dict):
            for i, item in enumerate(value):
                out += doubles(item, node["items"], f"{path}[{i}]")
    return out


def _map(value: list[Any], keys: list[str], path: str) -> list[Cause]:
    for i, item in enumerate(value):
        if item is not None and not isinstance(item, dict):
            return [errors.bad_value(f"{path}[{i}]", item, "must be an object for an array of list-type map")]
    named = [{k: item[k] for k in keys if k in item} if item else {} for item in value]
    return [errors.duplicate(f"{path}[{i}]", named[i]) for i in _twice([_text(n) for n in named])]


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _twice(texts: list[str]) -> list[int]:
    seen: dict[str, int] = {}
    out = []
    for i, text in enumerate(texts):
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:
            out.append(i)
    return out
