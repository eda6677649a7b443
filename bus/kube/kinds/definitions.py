"""CustomResourceDefinitions: accepted at once, because who serves them reads them where they are stored."""

from __future__ import annotations

import re
from typing import Any

from bus.kube import cel_rules, errors, names, structural
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
SCHEMA_DEPTH_MAX = 60
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


class Definitions(Strategy):
    unconditional_update = False
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        naming = spec.setdefault("names", {})
        if naming.get("kind"):
            naming.setdefault("singular", naming["kind"].lower())
            naming.setdefault("listKind", naming["kind"] + "List")
        spec.setdefault("conversion", {"strategy": "None"})

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = self._status(obj, [], [], ctx.now)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        before = old.get("status", {})
        obj["status"] = self._status(obj, before.get("storedVersions", []), before.get("conditions", []), ctx.now)

    def _status(self, obj: Object, stored: list[str], conditions: list[Object], now: str) -> Object:
        versions = [v.get("name") for v in at(obj, "spec", "versions") or [] if v.get("storage")]
        return {
            "acceptedNames": dict(obj["spec"]["names"]),
            "storedVersions": list(dict.fromkeys([*stored, *versions])),
            "conditions": conditions
            or [
                _condition("NamesAccepted", "NoConflicts", "no conflicts found", now),
                _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", now),
            ],
        }

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        for field in ("group", "scope"):
            if not spec.get(field):
                out.append(errors.required(f"spec.{field}"))
        for field in ("plural", "kind"):
            if not spec["names"].get(field):
                out.append(errors.required(f"spec.names.{field}"))
        if out:
            return out
        naming = spec["names"]
        want = f"{naming['plural']}.{spec['group']}"
        if obj["metadata"]["name"] != want:
            out.append(
                errors.bad_value("metadata.name", obj["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
            )
        if problem := names.dns_subdomain(spec["group"]):
            out.append(errors.bad_value("spec.group", spec["group"], problem))
        elif "." not in spec["group"]:
            out.append(errors.bad_value("spec.group", spec["group"], "should be a domain with at least one dot"))
        for field in ("plural", "singular"):
            if problem := names.dns_label_1035(naming.get(field, "")):
                out.append(errors.bad_value(f"spec.names.{field}", naming.get(field, ""), problem))
        if spec["scope"] not in ("Cluster", "Namespaced"):
            out.append(errors.not_supported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
        if at(spec, "conversion", "strategy") != "None":
            why = "only None is offered: conversion webhooks are not called"
            out.append(errors.bad_value("spec.conversion.strategy", at(spec, "conversion", "strategy"), why))
        return out + _versions(spec.get("versions") or [])

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        for field, now, before in (
            ("spec.group", at(obj, "spec", "group"), at(old, "spec", "group")),
            ("spec.scope", at(obj, "spec", "scope"), at(old, "spec", "scope")),
            ("spec.names.plural", at(obj, "spec", "names", "plural"), at(old, "spec", "names", "plural")),
            ("spec.names.kind", at(obj, "spec", "names", "kind"), at(old, "spec", "names", "kind")),
        ):
            if now != before:
                out.append(errors.bad_value(field, now, "field is immutable"))
        return out


def _condition(kind: str, reason: str, message: str, now: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}


def _versions(versions: list[Object]) -> list[Cause]:
    out = []
    if sum(bool(v.get("storage")) for v in versions) != 1:
        out.append(
            errors.bad_value("spec.versions", len(versions), "must have exactly one version marked as storage version")
        )
    seen: set[str] = set()
    for i, v in enumerate(versions):
        path, name = f"spec.versions[{i}]", v.get("name", "")
        if problem := names.dns_label_1035(name):
            out.append(errors.bad_value(f"{path}.name", name, problem))
        if name in seen:
            out.append(errors.duplicate(f"{path}.name", name))
        seen.add(name)
        schema = at(v, "schema", "openAPIV3Schema")
        at_schema = f"{path}.schema.openAPIV3Schema"
        if schema is None:
            out.append(errors.required(at_schema, "schemas are required"))
            continue
        before = len(out)
        _schema(schema, at_schema, out, 0)
        if schema.get("type") != "object" and len(out) == before:
            out.append(errors.bad_value(f"{at_schema}.type", schema.get("type", ""), "must be object at the root"))
        for j, column in enumerate(v.get("additionalPrinterColumns") or []):
            for field in ("name", "type", "jsonPath"):
                if not column.get(field):
                    out.append(errors.required(f"{path}.additionalPrinterColumns[{j}].{field}"))
        scale = at(v, "subresources", "scale")
        for field in ("specReplicasPath", "statusReplicasPath") if scale is not None else ():
            if not scale.get(field):
                out.append(errors.required(f"{path}.subresources.scale.{field}"))
    return out


def _schema(node: Any, path: str, out: list[Cause], depth: int, junctor: bool = False) -> None:
    """The rules of structural schemas that everything else here relies on; below a junctor no types are needed."""
    if not isinstance(node, dict) or depth > SCHEMA_DEPTH_MAX:
        out.append(errors.bad_value(path, node, f"must be a schema, nested at most {SCHEMA_DEPTH_MAX} deep"))
        return
    free = node.get("x-kubernetes-preserve-unknown-fields") or node.get("x-kubernetes-int-or-string")
    kind = node.get("type")
    if kind is None and not free and not junctor:
        out.append(errors.required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind is not None and kind not in _TYPES:
        out.append(errors.not_supported(f"{path}.type", kind, _TYPES))
    if "$ref" in node:
        out.append(errors.not_permitted(f"{path}.$ref", "$ref is not supported"))
    if kind == "array" and not isinstance(node.get("items"), dict) and not junctor:
        out.append(errors.required(f"{path}.items", "must be specified"))
    if "pattern" in node:
        try:
            structural.compiled(node["pattern"])
        except (re.error, TypeError, OverflowError) as e:
            out.append(errors.bad_value(f"{path}.pattern", node["pattern"], f"must be a valid regular expression: {e}"))
    if node.get("x-kubernetes-validations"):
        out += cel_rules.problems(node["x-kubernetes-validations"], f"{path}.x-kubernetes-validations")
    for name, field in _items(node.get("properties"), path, out):
        _schema(field, f"{path}.properties[{name}]", out, depth + 1, junctor)
    if isinstance(node.get("additionalProperties"), dict):
        _schema(node["additionalProperties"], f"{path}.additionalProperties", out, depth + 1, junctor)
    if "items" in node:
        _schema(node["items"], f"{path}.items", out, depth + 1, junctor)
    for word in ("allOf", "anyOf", "oneOf"):
        for i, sub in enumerate(node.get(word) or []):
            _schema(sub, f"{path}.{word}[{i}]", out, depth + 1, True)
    if "not" in node:
        _schema(node["not"], f"{path}.not", out, depth + 1, True)
    _keywords(node, path, out)
    if "default" in node and not junctor:
        for cause in structural.validate(node["default"], node, f"{path}.default") if not out else ():
            out.append(cause)


def _items(properties: Any, path: str, out: list[Cause]) -> list[tuple[str, Any]]:
    if properties is None:
        return []
    if not isinstance(properties, dict):
        out.append(errors.bad_value(f"{path}.properties", properties, "must be a map of schemas"))
        return []
    return list(properties.items())


_WORDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), (int,)),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("enum", "required", "allOf", "anyOf", "oneOf", "x-kubernetes-list-map-keys"), (list,)),
    **dict.fromkeys(("pattern", "format", "description", "title"), (str,)),
}


def _keywords(node: Object, path: str, out: list[Cause]) -> None:
    for word, python in _WORDS.items():
        if word in node and (not isinstance(node[word], python) or isinstance(node[word], bool)):
            out.append(errors.bad_value(f"{path}.{word}", node[word], f"must be {' or '.join(p.__name__ for p in python)}"))
