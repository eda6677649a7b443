"""The types that are served, as OpenAPI v3: what ``kubectl apply`` validates and merges by, and ``kubectl explain`` shows.

One document a group version, made from the same types that decode objects, so it can't promise anything else.  Descriptions
are data of their own (``data/descriptions.json.gz``), read when the first document is made.  kubectl asks for the index,
compares hashes with its cache, and looks for ``fieldValidation`` at PATCH.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from importlib import resources
from typing import Any

from bus.kube import errors, typed
from bus.kube.catalog import Catalog, Resource, Version
from bus.kube.http import answers
from bus.kube.patches import choose
from bus.kube.storage import Object

_REF = "#/components/schemas/"
_META = typed.META + "ObjectMeta"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_FORMATS = {
    "quantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "date-time": typed.META + "Time",
    "micro-time": typed.META + "MicroTime",
}
# Types that objects are decoded by as scalars, under the names by which clients know them.
_SCALARS: dict[str, Object] = {
    _INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    _FORMATS["quantity"]: {"oneOf": [{"type": "string"}, {"type": "number"}]},
    _FORMATS["date-time"]: {"type": "string", "format": "date-time"},
    _FORMATS["micro-time"]: {"type": "string", "format": "date-time"},
}
_PATCH_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


class Documents:
    """Documents by group version, made when first asked for and kept until the served resources change."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._state: object = None
        self._made: dict[str, bytes] = {}

    def _fresh(self) -> dict[str, bytes]:
        state = self._catalog.state()
        if state != self._state:
            self._made, self._state = {}, state
        return self._made

    def index(self) -> Object:
        paths = {}
        for res in self._catalog.all():
            for version in res.preferred:
                path = f"apis/{res.group}/{version}" if res.group else f"api/{version}"
                if path not in paths:
                    digest = hashlib.sha256(self.document(res.group, version)).hexdigest()[:32].upper()
                    paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return {"paths": paths}

    def document(self, group: str, version: str) -> bytes:
        """JSON bytes; raises StatusError 404."""
        made, name = self._fresh(), f"{group}/{version}"
        if name not in made:
            served = [(r, r.versions[version]) for r in self._catalog.all() if r.group == group and version in r.preferred]
            if not served:
                raise errors.no_such_path()
            made[name] = answers.encode(_document(served, f"{group or 'core'}/{version}"))
        return made[name]


def _document(served: list[tuple[Resource, Version]], title: str) -> Object:
    schemas: dict[str, Any] = {}
    paths: Object = {}
    for res, ver in served:
        gvk = {"group": res.group, "kind": res.kind, "version": ver.name}
        name = _schema_name(res, ver)
        if res.custom:
            _custom(name, res, ver, schemas)
        else:
            _closure(name, schemas)
        schemas[name] = {**schemas[name], "x-kubernetes-group-version-kind": [gvk]}
        paths.update(_paths(res, ver, gvk, name))
    return {
        "openapi": "3.0.0",
        "info": {"title": f"Kubernetes {title}", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(res: Resource, ver: Version) -> str:
    if res.custom:
        return ".".join([*reversed(res.group.split(".")), ver.name, res.kind])
    return typed.types().kinds[f"{res.group}/{ver.name}/{res.kind}"]


@functools.cache
def _descriptions() -> dict[str, dict[str, str]]:
    """Of each type and its fields; the type's own is under "" (made by ``ops/kube_data.py``)."""
    raw = gzip.decompress(resources.files("bus.kube").joinpath("data/descriptions.json.gz").read_bytes())
    found: dict[str, dict[str, str]] = json.loads(raw)
    return found


def _closure(name: str, schemas: dict[str, Any]) -> None:
    """A built-in type and all that it refers to."""
    todo = [name]
    while todo:
        at = todo.pop()
        if at in schemas:
            continue
        if at in _SCALARS:
            schemas[at] = _SCALARS[at]
            continue
        said = _descriptions().get(at, {})
        made = _node(typed.types().definitions[at], todo)
        for field, node in made.get("properties", {}).items():
            if field in said:
                made["properties"][field] = {"description": said[field], **_extensible(node)}
        schemas[at] = {"description": said[""], **made} if "" in said else made


def _extensible(node: Object) -> Object:
    """A node that something can be said beside: next to a bare reference nothing counts."""
    return {"allOf": [node]} if "$ref" in node else node


def _node(node: Any, todo: list[str]) -> Any:
    """A type node as OpenAPI has it; names that it refers to are added to ``todo``."""
    if not isinstance(node, dict):
        return node
    out: Object = {}
    scalar = _INT_OR_STRING if "x-kubernetes-int-or-string" in node else _FORMATS.get(node.get("format", ""))
    if scalar is not None:
        todo.append(scalar)
        return {"$ref": _REF + scalar}
    for word, value in node.items():
        if word == "$ref":
            todo.append(value)
            out["allOf"] = [{"$ref": _REF + value}]
        elif word == "properties":
            out[word] = {k: _node(v, todo) for k, v in value.items()}
        elif word in ("items", "additionalProperties"):
            out[word] = _node(value, todo)
        elif word != typed.ZEROS:
            out[word] = value
    return {"$ref": out["allOf"][0]["$ref"]} if set(out) == {"allOf"} else out


def _custom(name: str, res: Resource, ver: Version, schemas: dict[str, Any]) -> None:
    _closure(_META, schemas)
    fields = {k: v for k, v in ver.schema.get("properties", {}).items() if k != "metadata"}
    own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"allOf": [{"$ref": _REF + _META}]}}
    schemas[name] = {**ver.schema, "type": "object", "properties": {**own, **fields}}


def _paths(res: Resource, ver: Version, gvk: Object, name: str) -> Object:
    root = f"/apis/{res.group}/{ver.name}" if res.group else f"/api/{ver.name}"
    collection = f"{root}/namespaces/{{namespace}}/{res.resource}" if res.namespaced else f"{root}/{res.resource}"
    body = {"content": {"application/json": {"schema": {"$ref": _REF + name}}}}
    answer = {"responses": {"200": {"description": "OK", **body}}}

    def operation(action: str, parameters: tuple[str, ...] = (), **more: Any) -> Object:
        listed = [{"name": p, "in": "query", "schema": {"type": "string"}} for p in parameters]
        return {
            **more,
            **answer,
            "parameters": listed,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        }

    types = [t for t, kind in choose.KINDS.items() if not (res.custom and kind == "strategic")]
    patches = {"content": {t: {"schema": {"type": "object"}} for t in types}}
    return {
        collection: {
            "get": operation("list", ("labelSelector", "fieldSelector", "limit", "continue", "watch")),
            "post": operation("post", _PATCH_PARAMETERS[:3], requestBody=body),
        },
        f"{collection}/{{name}}": {
            "get": operation("get"),
            "put": operation("put", _PATCH_PARAMETERS[:3], requestBody=body),
            "patch": operation("patch", _PATCH_PARAMETERS, requestBody=patches),
            "delete": operation("delete", ("dryRun", "gracePeriodSeconds", "propagationPolicy")),
        },
    }
