"""How answers are written."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from bus.kube.errors import NoPage, StatusError
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


BATCH = 250  # objects of a list that are written before others have a turn: some milliseconds


async def encode_list(head: Object, items: Sequence[Object]) -> bytes:
    """``{**head, "items": items}`` as JSON; a long one must not hold everybody else up."""
    parts = []
    for start in range(0, len(items), BATCH):
        if start:
            await asyncio.sleep(0)
        parts.append(encode(items[start : start + BATCH])[1:-1])
    return encode(head)[:-1] + b',"items":[' + b",".join(parts) + b"]}"


COMPRESSED_FROM_BYTES = 128 << 10  # as kube-apiserver: below it the time is worth more than the bytes
LEVEL = 1


async def compressed(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """A big answer, for a client that takes gzip (API concepts, "Response compression")."""
    if response.prepared or not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    if len(response.body) < COMPRESSED_FROM_BYTES or "gzip" not in request.headers.get("Accept-Encoding", "").lower():
        return response
    response.body = await asyncio.to_thread(gzip.compress, response.body, LEVEL, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    return response


def refuse(error: StatusError) -> web.Response:
    if isinstance(error, NoPage):
        return web.Response(status=error.code, text=f"{error.message}\n", headers={"X-Content-Type-Options": "nosniff"})
    response = respond(error.as_status(), error.code)
    after = error.details.get("retryAfterSeconds")
    if after:
        response.headers["Retry-After"] = str(after)
    return response


def partial(obj: Object, version: str = "v1") -> Object:
    """Only the metadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj.get("metadata", {})}
