"""What a request carries: JSON or YAML, in limits, as plain values that can be written again.

Whatever can't be stored is refused here: other media types (415), more than 3 MB (413), what doesn't parse, nests too deep,
or holds what JSON has no words for (400).
"""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web

from bus.kube import errors, jsontext
from bus.kube.http import protobuf
from schemas.codec import DEPTH_MAX

BODY_BYTES_MAX = 3 << 20  # kube-apiserver's limit
DRAINED_BYTES_MAX = 8 << 20  # read to its end and thrown away, so that the client is there to hear the 413
YAML_BYTES_MAX = 1 << 20  # YAML parses a hundred times slower than JSON; an event has at most this anyway
ACCEPTED = ("application/json", "application/yaml", protobuf.MEDIA_TYPE)
SUMMARY_BYTES_MAX = 30  # of a body that can't be read, told to who sent it
_YAML = ("application/yaml", "application/x-yaml", "application/apply-patch+yaml", "text/yaml")


def content_type(request: web.Request) -> str:
    """Without parameters; JSON when a client says nothing."""
    return request.headers.get("Content-Type", "").split(";", 1)[0].strip().lower() or "application/json"


async def read_bytes(request: web.Request) -> bytes:
    """Raises StatusError 413, 415."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise errors.unsupported_media_type(ACCEPTED)
    too_large = errors.too_large(f"Request entity too large: limit is {BODY_BYTES_MAX}")
    if (request.content_length or 0) > DRAINED_BYTES_MAX:
        raise too_large
    data, size = bytearray(), 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > DRAINED_BYTES_MAX:
            raise too_large
        if size <= BODY_BYTES_MAX:
            data += chunk
    if size > BODY_BYTES_MAX:
        raise too_large
    return bytes(data)


async def read_object(request: web.Request, kind: str) -> Any:
    """The body of a create or update, which should be a ``kind``; raises StatusError 400, 413, 415."""
    media = content_type(request)
    if media not in ACCEPTED and media not in _YAML[:2]:
        raise errors.unsupported_media_type(ACCEPTED)
    data = await read_bytes(request)
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode(data)
    try:
        value = parsed(data, yaml=media in _YAML)
        if not isinstance(value, dict):
            raise ValueError("couldn't get version/kind; json parse error: " + no_object(value))
    except ValueError as e:
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {kind}): {e} ({_summary(data)})"
        ) from e
    return value


def no_object(value: Any) -> str:
    """What Go says of a body that is JSON but no object."""
    name = (
        "array"
        if isinstance(value, list)
        else "string"
        if isinstance(value, str)
        else "bool"
        if value in (True, False)
        else "number"
    )
    fields = r'''APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\""'''
    return f"json: cannot unmarshal {name} into Go value of type struct {{ {fields} }}"


def _summary(data: bytes) -> str:
    if not data:
        return "<empty>"
    shown = data[:SUMMARY_BYTES_MAX]
    more = " ..." if len(data) > SUMMARY_BYTES_MAX else ""
    return (shown.decode(errors="replace") if data.startswith(b"{") else shown.hex()) + more


async def read_patch(request: web.Request, media: str) -> Any:
    """Raises StatusError 400, 413."""
    try:
        return parsed(await read_bytes(request), yaml=media.endswith("yaml"))
    except ValueError as e:
        said = str(e).removeprefix("couldn't get version/kind; json parse error: ")
        if "strategic" not in media:  # which is decoded elsewhere, without a word of where
            said = "error decoding YAML: " + said if media.endswith("yaml") else "error decoding patch: " + said
        raise errors.bad_request(said) from e


async def read_options(request: web.Request) -> Any:
    """The optional body of a delete."""
    data = await read_bytes(request)
    if not data.strip():
        return None
    media = content_type(request)
    if media not in ACCEPTED:
        raise errors.unsupported_media_type(ACCEPTED)
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode(data)
    try:
        return parsed(data, yaml=media in _YAML)
    except ValueError as e:
        raise errors.bad_request(str(e)) from e


def parsed(data: bytes, *, yaml: bool) -> Any:
    """A plain value; raises ValueError in the real server's words, StatusError 413."""
    try:
        text = data.decode()
        value = _yaml(text) if yaml and not text.lstrip().startswith("{") else _json(text)
        _check(value)
    except RecursionError as e:
        raise ValueError(f"exceeded max depth of {DEPTH_MAX}") from e
    except UnicodeError as e:
        raise ValueError(
            "couldn't get version/kind; json parse error: invalid character in string literal: not UTF-8"
        ) from e
    return value


def _json(text: str) -> Any:
    try:
        return jsontext.loads(text)
    except ValueError as e:
        raise ValueError(f"couldn't get version/kind; json parse error: {e}") from e


def _check(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        deeper: list[Any] = []
        for v in level:
            if isinstance(v, dict):
                for k in v:
                    k.encode()
                deeper.extend(v.values())
            elif isinstance(v, list):
                deeper.extend(v)
            elif isinstance(v, str):
                v.encode()  # a lone surrogate can't be written again: UnicodeEncodeError is a ValueError
            elif isinstance(v, float) and not math.isfinite(v):
                raise ValueError("a number is out of range")
        if not deeper:
            return
        level = deeper
    raise ValueError(f"nested deeper than {DEPTH_MAX}")


def _yaml(text: str) -> Any:
    import yaml  # only who speaks YAML pays for it

    if len(text) > YAML_BYTES_MAX:
        raise errors.too_large(f"a YAML body has at most {YAML_BYTES_MAX} bytes; send JSON")
    try:
        node = yaml.compose(text, Loader=_loader())
        return _plain(node, _loader()("")) if node is not None else None
    except yaml.YAMLError as e:
        marks = [getattr(e, name, None) for name in ("context_mark", "problem_mark")]
        line = next((m.line for m in marks if m is not None and m.line), 0)  # Go's parser counts so
        line += bool(line) and isinstance(e, yaml.scanner.ScannerError)
        where, problem = f"line {line}: " if line else "", getattr(e, "problem", None)
        raise ValueError(f"error converting YAML to JSON: yaml: {where}{problem or str(e)[:200]}") from e


def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_TAGS = {"tag:yaml.org,2002:" + t: t for t in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}


def _plain(node: Any, loader: Any) -> Any:
    """JSON of a YAML node.  Every node may be met once: an alias could make a small text a huge value."""
    if getattr(node, "met", False):
        raise ValueError("YAML aliases are not accepted")
    node.met = True
    kind = _TAGS.get(node.tag)
    if kind is None:
        raise ValueError(f"YAML tag {node.tag} is not accepted")
    if kind == "map" and isinstance(node.value, list):
        return {_key(k): _plain(v, loader) for k, v in node.value}
    if kind == "seq" and isinstance(node.value, list):
        return [_plain(v, loader) for v in node.value]
    if not isinstance(node.value, str):
        raise ValueError(f"YAML tag {node.tag} on a collection")
    if kind in ("str", "timestamp"):
        return node.value
    return loader.construct_object(node)


def _key(node: Any) -> str:
    if not isinstance(node.value, str):
        raise ValueError("a YAML key must be a scalar")
    return node.value
