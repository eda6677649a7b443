"""The few requests to a Kubernetes API server that a bridge needs, each bounded in time and bytes.

Why not the official client: it is synchronous, keeps a whole list in memory, and its watch hides bookmarks and where a
stream ended.  A refusal is the StatusError that the server meant; a server that can't be reached is one too (503), so that
whoever writes treats both as the standalone API's.
Source: Kubernetes documentation, "API Concepts" (chunks, efficient detection of changes, resource versions).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from bus.kube import errors
from bus.kube.errors import StatusError
from cloud.bridge.credentials import Credentials, CredentialsError

REQUEST_S = 30.0  # an API server's own limit is a minute; a slower answer is worth asking again for
LIST_S = 60.0  # a page of a list
PAGE_OBJECTS = 500  # as client-go
PAGE_BYTES_MAX = 32 << 20  # more, and the page is asked for again with half as many objects
OBJECT_BYTES_MAX = 8 << 20  # etcd takes 1.5 MiB, JSON escapes may triple it
WATCH_S = (300, 600)  # a watch is ended by the server after a random time in this span, as client-go asks for
WATCH_SILENT_S = 150.0  # bookmarks come about every minute: a stream that is silent for longer is taken for dead
CONNECTIONS_MAX = 256  # watches hold one each; writes and gets share the rest

Object = dict[str, Any]
WatchType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
_TYPES: dict[str, WatchType] = {"ADDED": "ADDED", "MODIFIED": "MODIFIED", "DELETED": "DELETED", "BOOKMARK": "BOOKMARK"}


class Unreachable(StatusError):
    """No answer: the server is away, slow, or says what isn't the protocol."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "ServiceUnavailable", message)


class Garbled(Unreachable):
    """A watch told what can't be read; asked again from there, it may tell the same."""


class _PageTooLarge(Unreachable):
    """Only a list can do something about it."""


@dataclass(frozen=True, slots=True)
class Path:
    """A collection: ``namespace`` "" is all of them."""

    group: str
    version: str
    resource: str
    namespace: str = ""

    def url(self, name: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(("namespaces", self.namespace) if self.namespace else ()), self.resource, name, subresource]
        return "/".join(p for p in parts if p)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a collection; ``metadata`` asks for PartialObjectMetadata, without the objects' content."""

    labels: str = ""
    fields: str = ""
    metadata: bool = False

    def query(self) -> dict[str, str]:
        both = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {k: v for k, v in both.items() if v}

    def accept(self, kind: str) -> str:
        return f"application/json;as={kind};g=meta.k8s.io;v=v1" if self.metadata else "application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a list; ``rev`` is the whole list's resourceVersion, the same on every page."""

    items: list[Object]
    rev: int
    last: bool


@dataclass(frozen=True, slots=True)
class WatchEvent:
    type: WatchType
    object: Object
    rev: int


def revision(obj: Object) -> int:
    """The resourceVersion of an object or list.  Raises Unreachable for one that is no number (Kubernetes promises since
    1.35 that they are decimal and can be compared)."""
    meta = obj.get("metadata")
    text = meta.get("resourceVersion") if isinstance(meta, dict) else None
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Unreachable(f"the API server gave {str(text)[:40]!r} as a resourceVersion, which is no number")
    return int(text)


class Client:
    """``close`` it at the end.  Every method raises StatusError.  ``leads``: asked for each write right before its first
    byte is sent, when the connection is there."""

    def __init__(
        self, credentials: Credentials, *, page_objects: int = PAGE_OBJECTS, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._credentials, self._page = credentials, page_objects
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=credentials.tls)
        self._http = aiohttp.ClientSession(
            connector=connector, headers={"User-Agent": "skerry-bridge"}, request_class=_fenced(leads)
        )

    async def close(self) -> None:
        await self._http.close()
        await asyncio.sleep(0)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def pages(self, path: Path, what: Selection) -> AsyncGenerator[Page, None]:
        """A consistent list, page by page: never more than one in memory.  410 when it took too long."""
        token, limit = "", self._page
        while True:
            query = {**what.query(), "limit": str(limit)} | ({"continue": token} if token else {})
            try:
                body = await self._request(
                    "GET",
                    path.url(),
                    query,
                    accept=what.accept("PartialObjectMetadataList"),
                    timeout_s=LIST_S,
                    bytes_max=PAGE_BYTES_MAX,
                )
            except _PageTooLarge as e:
                if limit == 1:
                    raise Unreachable(f"{path.url()}: one object has more than {PAGE_BYTES_MAX} bytes") from e
                limit = max(1, limit // 2)
                continue
            items = body.get("items") or []
            if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
                raise Unreachable(f"{path.url()}: not a list")
            token = body["metadata"].get("continue") or "" if isinstance(body.get("metadata"), dict) else ""
            yield Page(items, revision(body), not token)
            if not token:
                return

    async def watch(self, path: Path, what: Selection, after: int) -> AsyncGenerator[WatchEvent, None]:
        """Changes above ``after`` until the server ends the stream (ask again from the last revision).  StatusError 410
        when ``after`` is too old."""
        query = {**what.query(), "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": str(after)}
        query["timeoutSeconds"] = str(random.randint(*WATCH_S))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_S, sock_read=WATCH_SILENT_S)
        try:
            async with await self._send(
                "GET", path.url(), query, accept=what.accept("PartialObjectMetadata"), timeout=timeout
            ) as r:
                if r.status >= 400:
                    raise _refusal(r, await _body(r, OBJECT_BYTES_MAX))
                rest = bytearray()
                async for chunk in r.content.iter_any():
                    *lines, tail = (bytes(rest) + chunk).split(b"\n") if b"\n" in chunk else ((rest + chunk),)
                    rest = bytearray(tail)
                    if len(rest) > OBJECT_BYTES_MAX:
                        raise Garbled(f"{path.url()}: an event has more than {OBJECT_BYTES_MAX} bytes")
                    for line in lines:
                        if line.strip():
                            yield _event(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise Unreachable(f"watch {path.url()}: {e!r}") from e

    async def revision_now(self, path: Path) -> int:
        """The cluster's revision, by a consistent list of one object at most, without its content."""
        kind = Selection(metadata=True).accept("PartialObjectMetadataList")
        return revision(await self._request("GET", path.url(), {"limit": "1"}, accept=kind))

    async def get(self, path: Path, name: str) -> Object:
        return await self._request("GET", path.url(name))

    # --- writing ---------------------------------------------------------------------------------------------------

    async def create(self, path: Path, obj: Object, *, name: str = "", subresource: str = "", manager: str = "") -> Object:
        """``name`` goes with a subresource (``token`` of a service account)."""
        return await self._request("POST", path.url(name, subresource), _manager(manager), obj)

    async def update(self, path: Path, name: str, obj: Object, *, subresource: str = "", manager: str = "") -> Object:
        return await self._request("PUT", path.url(name, subresource), _manager(manager), obj)

    async def patch(self, path: Path, name: str, merge: Object, *, subresource: str = "", manager: str = "") -> Object:
        """A JSON merge patch (RFC 7386)."""
        kind = "application/merge-patch+json"
        return await self._request("PATCH", path.url(name, subresource), _manager(manager), merge, content=kind)

    async def apply(
        self, path: Path, obj: Object, *, manager: str, force: bool = False, dry_run: bool = False, subresource: str = ""
    ) -> Object:
        """Server-side apply of a whole object; 409 names whose fields it would take, unless ``force``."""
        query = {**_manager(manager), "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        name = obj["metadata"]["name"]
        return await self._request("PATCH", path.url(name, subresource), query, obj, content="application/apply-patch+yaml")

    async def delete(self, path: Path, name: str, options: Object) -> Object:
        """The object as it is now or was last, or a Status."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        return await self._request("DELETE", path.url(name), {}, body)

    # --- underneath ------------------------------------------------------------------------------------------------

    async def _request(
        self,
        method: str,
        url: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        *,
        accept: str = "application/json",
        content: str = "application/json",
        timeout_s: float = REQUEST_S,
        bytes_max: int = OBJECT_BYTES_MAX,
    ) -> Object:
        data = None if body is None else json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            for attempt in (1, 2):
                async with await self._send(
                    method, url, query or {}, accept=accept, timeout=timeout, data=data, content=content
                ) as r:
                    if r.status == 401 and attempt == 1:
                        self._credentials.forget()
                        continue
                    raw = await _body(r, bytes_max)
                    if r.status >= 400:
                        raise _refusal(r, raw)
                    return _object(raw, f"{method} {url}")
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise Unreachable(f"{method} {url}: {e!r}") from e
        raise AssertionError("the second attempt returns or raises")

    async def _send(
        self,
        method: str,
        url: str,
        query: dict[str, str],
        *,
        accept: str,
        timeout: aiohttp.ClientTimeout,
        data: bytes | None = None,
        content: str = "application/json",
    ) -> aiohttp.ClientResponse:
        c = self._credentials
        try:
            headers = {"Accept": accept, **await c.headers()}
        except CredentialsError as e:
            raise Unreachable(str(e)) from e
        if data is not None:
            headers["Content-Type"] = content
        return await self._http.request(
            method,
            c.url + url,
            params=query,
            headers=headers,
            data=data,
            timeout=timeout,
            proxy=c.proxy,
            server_hostname=c.server_name,
            allow_redirects=False,
        )


def _fenced(leads: Callable[[], bool]) -> type[aiohttp.ClientRequest]:
    class Fenced(aiohttp.ClientRequest):
        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            if self.method not in ("GET", "HEAD") and not leads():
                raise errors.unavailable("another process leads the bridge")
            return await super().send(conn)

    return Fenced


def _manager(name: str) -> dict[str, str]:
    return {"fieldManager": name} if name else {}


async def _body(r: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    out = bytearray()
    async for chunk in r.content.iter_any():
        out += chunk
        if len(out) > bytes_max:
            raise _PageTooLarge(f"{r.url.path}: the answer has more than {bytes_max} bytes")
    return bytes(out)


def _object(raw: bytes, what: str) -> Object:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise Unreachable(f"{what}: the answer is no JSON: {raw[:80]!r}") from e
    if not isinstance(found, dict):
        raise Unreachable(f"{what}: the answer is no object: {raw[:80]!r}")
    return found


def _event(line: bytes) -> WatchEvent:
    try:
        said = _object(line, "watch")
        obj = said.get("object")
        if not isinstance(obj, dict):
            raise Garbled(f"watch: an event without an object: {line[:80]!r}")
        if said.get("type") == "ERROR":
            raise _status(obj.get("code"), obj)
        kind = _TYPES.get(str(said.get("type")))
        if kind is None:
            raise Garbled(f"watch: an event of type {str(said.get('type'))[:40]!r}")
        return WatchEvent(kind, obj, revision(obj))
    except Unreachable as e:
        raise Garbled(e.message) from e


def _refusal(r: aiohttp.ClientResponse, raw: bytes) -> StatusError:
    try:
        said = _object(raw, "")
    except Unreachable:
        said = {"message": raw[:200].decode("utf8", "replace")}  # a proxy in between speaks no Status
    refused = _status(r.status, said)
    after = r.headers.get("Retry-After", "")
    if after.isascii() and after.isdigit():
        refused.details = {**refused.details, "retryAfterSeconds": int(after[:9])}
    return refused


def retry_after_s(refused: StatusError) -> float:
    """What a busy server asks for, 0 for nothing."""
    asked = refused.details.get("retryAfterSeconds")
    return float(asked) if isinstance(asked, int | float) and asked > 0 else 0.0


def _status(code: object, said: Object) -> StatusError:
    details = said.get("details")
    return StatusError(
        code if isinstance(code, int) else 500,
        str(said.get("reason") or ""),
        str(said.get("message") or f"HTTP {code}")[:1000],
        details if isinstance(details, dict) else None,
    )
