"""As much of the Docker API as bring-up needs, with the standard library only.

The edge talks to the engine through aiodocker (``edge/containers``); this module exists because bring-up runs before
anything else, blocks, and asks three questions: do you answer, who are you, have you this image.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote, urlencode

PING_TIMEOUT_S = 5.0  # a local engine answers in milliseconds; one that is starting may take a second or two
IMPORT_TIMEOUT_S = 120.0  # a few MB into a slow disk


class EngineError(Exception):
    """The engine can't be had or refuses; the message says what was tried and what the reader can do."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _connection(host: str, timeout: float) -> http.client.HTTPConnection:
    scheme, _, rest = host.partition("://")
    if scheme == "unix":
        return _UnixConnection(rest, timeout)
    if scheme in ("tcp", "http"):
        return http.client.HTTPConnection(rest.rstrip("/"), timeout=timeout)
    raise EngineError(f"DOCKER_HOST {host!r}: only unix:// and tcp:// are understood here")


def request(
    host: str,
    method: str,
    path: str,
    body: bytes | None = None,
    timeout: float = PING_TIMEOUT_S,
    *,
    json_body: bool = False,
) -> tuple[int, bytes]:
    """(HTTP status, body) of one call; raises EngineError when the engine can't be reached."""
    connection = _connection(host, timeout)
    try:
        kind = "application/json" if json_body else "application/x-tar"
        headers = {"Content-Type": kind} if body is not None else {}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise EngineError(f"{host}: {method} {path}: {type(e).__name__}: {e}") from e
    finally:
        connection.close()


def version(host: str) -> dict[str, Any]:
    """What the engine says of itself; raises EngineError when nothing that speaks the Docker API answers there."""
    status, body = request(host, "GET", "/version")
    try:
        answer = json.loads(body)
    except ValueError as e:
        raise EngineError(f"{host}: /version: not JSON, so not a Docker-compatible engine") from e
    if status != 200 or not isinstance(answer, dict):
        raise EngineError(f"{host}: /version: HTTP {status}: {body[:200]!r}")
    return answer


def has_image(host: str, name: str) -> bool:
    status, body = request(host, "GET", f"/images/{quote(name, safe=':/')}/json")
    if status in (200, 404):
        return status == 200
    raise EngineError(f"{host}: image {name}: HTTP {status}: {body[:200]!r}")


def _create(host: str, what: str, query: list[tuple[str, str]], body: bytes | None) -> None:
    status, answer = request(host, "POST", f"/images/create?{urlencode(query)}", body, IMPORT_TIMEOUT_S)
    # Progress comes as JSON lines under status 200; an error may be among them.
    errors = [line for line in answer.decode(errors="replace").splitlines() if '"error"' in line]
    if status != 200 or errors:
        raise EngineError(f"{host}: {what}: HTTP {status}: {(errors or [answer[:300].decode(errors='replace')])[0]}")


def import_image(host: str, repo: str, tag: str, tar: bytes, changes: list[str]) -> None:
    """`docker import`: one layer from a tar, with Dockerfile instructions on top."""
    query = [("fromSrc", "-"), ("repo", repo), ("tag", tag), *(("changes", c) for c in changes)]
    _create(host, f"import of {repo}:{tag}", query, tar)


def pull_image(host: str, repo: str, tag: str) -> None:
    _create(host, f"pull of {repo}:{tag}", [("fromImage", repo), ("tag", tag)], None)
