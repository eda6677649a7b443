"""How answers are written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from bus.kube.errors import StatusError
from bus.kube.http.negotiation import Output
from bus.kube.storage import Object

WARNINGS_MAX = 20
WARNING_CHARS_MAX = 256


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def respond(value: Any, code: int = 200, output: Output | None = None, warnings: Iterable[str] = ()) -> web.Response:
    output = output or Output()
    if output.yaml:
        import yaml

        body = yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()
    else:
        body = encode(value)
    response = web.Response(status=code, body=body, content_type=output.content_type)
    response.headers["Cache-Control"] = "no-cache, private"
    warn(response, warnings)
    return response


def warn(response: web.StreamResponse, warnings: Iterable[str]) -> None:
    """As headers, which kubectl shows."""
    for warning in list(dict.fromkeys(warnings))[:WARNINGS_MAX]:
        plain = "".join(c if c.isprintable() else " " for c in warning[:WARNING_CHARS_MAX])
        text = plain.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')


def refuse(error: StatusError) -> web.Response:
    response = respond(error.as_status(), error.code)
    after = error.details.get("retryAfterSeconds")
    if after:
        response.headers["Retry-After"] = str(after)
    return response


def partial(obj: Object, version: str = "v1") -> Object:
    """Only the metadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj.get("metadata", {})}
