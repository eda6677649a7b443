"""One request out of a seed: a path that exists (mostly), a query, a body of the kind that belongs there (mostly)."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from bus.kube.catalog import Resource
from ops.fuzz.values import NAMES, NASTY_TEXTS, Maker

QUERIES = (
    *("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "timeoutSeconds"),
    *("dryRun", "fieldManager", "fieldValidation", "force", "propagationPolicy", "gracePeriodSeconds", "orphanDependents"),
    *("pretty", "includeObject", "allowWatchBookmarks", "sendInitialEvents"),
)
GOOD = {
    "labelSelector": ("a=b", "a in (b,c)", "!a", "a", "a!=b"),
    "fieldSelector": ("metadata.name=a", "metadata.namespace!=x", "status.phase=Running"),
    "limit": ("1", "2", "500"),
    "dryRun": ("All",),
    "fieldManager": ("fuzz",),
    "fieldValidation": ("Strict", "Warn", "Ignore"),
    "force": ("true",),
    "propagationPolicy": ("Background", "Foreground", "Orphan"),
    "resourceVersionMatch": ("Exact", "NotOlderThan"),
}
PATCHES = ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
ACCEPTS = (
    *("application/json", "*/*", "application/yaml", "text/html", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    *("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf", ";;;", ""),
)


@dataclass(slots=True)
class Request:
    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = (self.body or b"")[:2000]
        return f"{self.method} {self.path} {self.headers} {shown!r}"


def make(rng: random.Random, served: list[Resource]) -> Request:
    maker = Maker(rng)
    res = rng.choice(served)
    version = rng.choice(res.preferred)
    named = rng.random() < 0.6
    path = _path(rng, res, version, named)
    methods = ("GET", "PUT", "PATCH", "DELETE", "GET", "PATCH") if named else ("POST", "POST", "POST", "GET", "DELETE")
    method = rng.choice(methods) if rng.random() < 0.96 else rng.choice(("POST", "OPTIONS", "HEAD", "TRACE", "PUT"))
    request = Request(method, path + _query(rng, method), headers={"Accept": rng.choice(ACCEPTS[:3])})
    if rng.random() < 0.1:
        request.headers["Accept"] = rng.choice(ACCEPTS)
    if method in ("POST", "PUT", "PATCH") or (method == "DELETE" and rng.random() < 0.3):
        _add_body(maker, request, res, version, path)
    return request


def _path(rng: random.Random, res: Resource, version: str, named: bool) -> str:
    def part(text: str) -> str:
        return quote(rng.choice(NASTY_TEXTS), safe="") if rng.random() < 0.02 else text

    parts = ["apis", res.group, version] if res.group else ["api", version]
    if res.namespaced:
        parts += ["namespaces", part(rng.choice(("default", "default", "nowhere")))]
    parts.append(part(res.resource))
    if named:
        parts.append(part(rng.choice(NAMES[:2])))
        subs = res.versions[version].subresources
        if subs and rng.random() < 0.25:
            parts.append(part(rng.choice(subs)))
    return "/" + "/".join(parts)


def _query(rng: random.Random, method: str) -> str:
    out = []
    for name in QUERIES:
        if rng.random() < (0.9 if name == "fieldManager" and method == "PATCH" else 0.06):
            value = rng.choice(GOOD.get(name, ("1", "true"))) if rng.random() < 0.6 else rng.choice(NASTY_TEXTS)
            out.append(f"{name}={quote(value, safe='')}")
    return "?" + "&".join(out) if out else ""


def _add_body(maker: Maker, request: Request, res: Resource, version: str, path: str) -> None:
    rng = maker.rng
    kind = "application/json"
    body: Any
    if request.method == "DELETE":
        body = {n: maker.anything() for n in ("gracePeriodSeconds", "propagationPolicy", "preconditions", "dryRun", "kind")}
    else:
        body = _object(maker, res, version, path)
    if request.method == "PATCH":
        kind = "application/" + rng.choice(PATCHES)
        if "json-patch" in kind:
            ops = ("add", "remove", "replace", "move", "copy", "test", "nope")
            paths = (
                "/metadata/labels",
                "/spec",
                "/data/a",
                "/spec/containers/0",
                "/",
                "",
                "/metadata/name",
                "/spec/x/-",
                "/~2",
            )
            body = [
                {"op": rng.choice(ops), "path": rng.choice(paths), "from": rng.choice(paths), "value": maker.anything()}
                for _ in range(rng.randint(0, 3))
            ]
        elif rng.random() < 0.2 and isinstance(body, dict):
            body["$patch"] = maker.anything()
    if rng.random() < 0.02:
        kind = rng.choice(("text/plain", "application/yaml", "application/x-www-form-urlencoded", "application/cbor", "x"))
    text = json.dumps(body)
    if rng.random() < 0.05:
        text = maker.broken(text)
    request.body = text.encode("utf-8", "surrogatepass")
    request.headers["Content-Type"] = kind


def _object(maker: Maker, res: Resource, version: str, path: str) -> Any:
    rng = maker.rng
    body = maker.of(res.versions[version].schema, wrong=rng.choice((0.0, 0.01, 0.05)))
    if not isinstance(body, dict):
        return body
    if rng.random() < 0.97:
        body |= {"apiVersion": res.api_version(version), "kind": res.kind}
    if rng.random() < 0.95:
        meta: dict[str, Any] = {"name": path.rpartition("/")[2] if rng.random() < 0.5 else rng.choice(NAMES[:2])}
        if rng.random() < 0.3:
            meta["labels"] = {rng.choice(NAMES): rng.choice(NAMES)}
        if rng.random() < 0.1:
            meta |= {
                maker.rng.choice(
                    ("finalizers", "ownerReferences", "annotations", "uid", "resourceVersion")
                ): maker.anything()
            }
        body["metadata"] = meta
    return body
