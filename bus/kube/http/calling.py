"""Calls webhooks over HTTPS, within bounds: so many at once, so long, so large an answer.

Each call has a connection of its own: webhooks are rare beside the rest of a write, and there is nothing to keep in step
when a configuration or a certificate changes.  While it waits, the request gives its seat to another (fairness.py): a
webhook that hangs takes time only from those whom it is asked about.

A service is reached at the address of one of its ready endpoints: where this process is outside the pods' network, that
fails as any address does that nobody answers at, and the failure policy decides.
Words of errors as net/http and client-go have them, because people search for them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import functools
import json
import math
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bus.kube import endpoints
from bus.kube.admission.calls import CallError
from bus.kube.http import fairness
from bus.kube.storage import Object, Reader

CALLS_AT_ONCE = 256  # of all webhooks; more wait, and their time runs
CALLS_OF_ONE = 64  # so that one that hangs can't have them all
ANSWER_BYTES_MAX = 8 << 20  # a conversion's answer has as many objects as its question
TIMEOUT_S = 30.0  # where a webhook has no time of its own, as for conversions
TRUSTED_MAX = 64  # certificate bundles that are kept parsed
_SAYS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    406: "the server was unable to respond with a content type that the client supports",
    409: "the server reported a conflict",
    415: "the media type that was sent was not supported",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


class HttpCaller:
    """Implements ``admission.calls.Caller``; ``reader`` is asked for the endpoints of services."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._all = asyncio.Semaphore(CALLS_AT_ONCE)
        self._of: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    async def post(self, config: Object, body: Object, timeout_s: float | None) -> Any:
        """Raises CallError."""
        limit_s = TIMEOUT_S if timeout_s is None else timeout_s
        url, host = _address(config)
        shown = url if timeout_s is None else f"{url}?timeout={math.ceil(limit_s)}s"
        try:
            async with asyncio.timeout(limit_s), fairness.aside(), _Turn(self, url):
                connected = self._dial(config, url, shown)
                status, kind, data = await _post(shown, host, connected, _trusted(config, shown), body)
        except TimeoutError as e:
            raise CallError(f'Post "{shown}": context deadline exceeded') from e
        except (aiohttp.ClientError, OSError) as e:
            raise CallError(f'Post "{shown}": {_said(e)}') from e
        return _answer(status, kind, data)

    def _dial(self, config: Object, url: str, shown: str) -> tuple[str, int] | None:
        """Where a service is reached, None where the URL says it.  Raises CallError."""
        service = config.get("service")
        if not service:
            return None
        try:
            return endpoints.of_service(self._reader, service["namespace"], service["name"], int(service.get("port") or 443))
        except endpoints.NoEndpoint as e:
            raise CallError(f'Post "{shown}": {e}') from e


class _Turn:
    """One call of one webhook."""

    def __init__(self, caller: HttpCaller, url: str) -> None:
        self._caller, self._url = caller, url

    async def __aenter__(self) -> None:
        users, own = self._caller._users, self._caller._of
        users[self._url] = users.get(self._url, 0) + 1
        mine = own.setdefault(self._url, asyncio.Semaphore(CALLS_OF_ONE))
        try:
            await mine.acquire()
            try:
                await self._caller._all.acquire()
            except BaseException:
                mine.release()
                raise
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._caller._all.release()
        self._caller._of[self._url].release()
        self._leave()

    def _leave(self) -> None:
        users = self._caller._users
        users[self._url] -= 1
        if not users[self._url]:
            del users[self._url], self._caller._of[self._url]


def _address(config: Object) -> tuple[str, str]:
    """(URL, name that the certificate must have)."""
    service = config.get("service")
    if service:
        host = f"{service.get('name')}.{service.get('namespace')}.svc"
        path = service.get("path") or "/"
        return f"https://{host}:{service.get('port') or 443}{path if path.startswith('/') else '/' + path}", host
    url = str(config.get("url") or "")
    return url, urlsplit(url).hostname or ""


def _trusted(config: Object, shown: str) -> ssl.SSLContext:
    """Raises CallError for a bundle that is none."""
    try:
        return _context(str(config.get("caBundle") or ""))
    except (ssl.SSLError, ValueError, binascii.Error) as e:
        raise CallError(f'Post "{shown}": unable to load root certificates: unable to parse bytes as PEM block') from e


@functools.lru_cache(maxsize=TRUSTED_MAX)
def _context(bundle: str) -> ssl.SSLContext:
    """The machine's own authorities where a webhook names none."""
    text = base64.b64decode(bundle).decode().strip() if bundle else ""
    return ssl.create_default_context(cadata=text or None)


class _To(aiohttp.abc.AbstractResolver):
    """Every name is at one address."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        address, at = self._address
        found = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [{"hostname": host, "host": address, "port": at, "family": found, "proto": 0, "flags": socket.AI_NUMERICHOST}]

    async def close(self) -> None:
        pass


async def _post(
    url: str, host: str, address: tuple[str, int] | None, tls: ssl.SSLContext, body: Object
) -> tuple[int, str, bytes]:
    """(status, content type, body); raises aiohttp's errors, OSError, CallError."""
    resolver = _To(address) if address is not None else None
    connector = aiohttp.TCPConnector(ssl=tls, resolver=resolver, force_close=True, use_dns_cache=False)
    data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, */*",
        "User-Agent": "kube-apiserver-admission",
    }
    none = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=none, trust_env=False) as session,
        session.post(url, data=data, headers=headers, server_hostname=host, allow_redirects=False) as answer,
    ):
        found = bytearray()
        async for chunk in answer.content.iter_any():
            found += chunk
            if len(found) > ANSWER_BYTES_MAX:
                raise CallError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        return answer.status, answer.headers.get("Content-Type", ""), bytes(found)


def _answer(status: int, kind: str, data: bytes) -> Any:
    """The JSON in an answer; raises CallError."""
    text = data.decode("utf-8", "replace")
    if not 200 <= status < 300:
        raise CallError(_refused(status, text))
    if not data:
        raise CallError(f"0-length response with status code: {status} and content type: {kind}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _refused(status: int, text: str) -> str:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and said.get("kind") == "Status" and said.get("message"):
        return str(said["message"])
    text = text.strip()[:2048]
    if status == 403:
        return text or "forbidden"
    if status in _SAYS:
        return _SAYS[status]
    shown = json.dumps(text or "unknown", ensure_ascii=False)
    if status >= 500:
        return f"an error on the server ({shown}) has prevented the request from succeeding"
    return f"the server responded with the status code {status} but did not return more information"


def _said(e: Exception) -> str:
    """As Go says it."""
    if isinstance(e, aiohttp.ClientConnectorCertificateError):
        reason = getattr(e.certificate_error, "verify_message", "") or str(e.certificate_error)
        return f"tls: failed to verify certificate: x509: {_certificate(reason)}"
    if isinstance(e, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {e.host}: no such host"
    if isinstance(e, aiohttp.ClientConnectorError):
        where = f"{e.host}:{e.port}"
        words = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to host"}
        words |= {errno.ENETUNREACH: "network is unreachable", errno.ETIMEDOUT: "connection timed out"}
        return f"dial tcp {where}: connect: {words.get(e.errno or 0, e.strerror)}"
    if isinstance(e, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(e, aiohttp.InvalidURL):
        return f"unsupported URL {e}"
    return str(e)[:300] or type(e).__name__


def _certificate(reason: str) -> str:
    if "self-signed" in reason or "self signed" in reason or "unable to get" in reason:
        return "certificate signed by unknown authority"
    if "expired" in reason:
        return "certificate has expired or is not yet valid"
    if "mismatch" in reason or "not valid for" in reason:
        return f"certificate is not valid for the name: {reason}"
    return reason
