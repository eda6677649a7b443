"""Who asks a kubelet, and whether the cluster lets them: as a kubelet with webhook authentication and authorization.

    a client certificate   of the cluster's client CA: user and groups are its CN and O (the API server comes with one)
    a bearer token         a TokenReview says whose it is (metrics-server comes with one)

Either way a SubjectAccessReview then says whether they may (``nodes/proxy``, ``nodes/stats`` ...).  Answers are kept for a
while, so the API server isn't asked twice for each request of its own.  Nobody is anonymous here.
Source: Kubernetes documentation, "Kubelet authentication/authorization" (verbs, subresources, fine-grained ones).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import structlog
from aiohttp import web

from bus.kube import errors
from bus.kube.auth.users import User, authenticated
from bus.kube.errors import StatusError
from cloud.bridge.client import Client, Path

logger = structlog.get_logger(__name__)

TOKEN_S = 120.0  # kubelet --authentication-token-webhook-cache-ttl
ALLOWED_S, DENIED_S = 300.0, 30.0  # kubelet --authorization-webhook-cache-(un)authorized-ttl
KEPT_MAX = 4096  # answers
TOKEN_CHARS_MAX = 16 << 10
CA_LOOK_S = 600.0  # the cluster's client CA changes once in years
CA_RETRY_S = 10.0

TOKENS = Path("authentication.k8s.io", "v1", "tokenreviews")
ACCESS = Path("authorization.k8s.io", "v1", "subjectaccessreviews")
CA_MAP = (Path("", "v1", "configmaps", "kube-system"), "extension-apiserver-authentication")
_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

T = TypeVar("T")


class _Kept(Generic[T]):
    """Answers by question, each for its time."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        found = self._known.get(key)
        if found is None or time.monotonic() > found[0]:
            return None
        return found[1]

    def put(self, key: Hashable, answer: T, seconds: float) -> None:
        self._known[key] = time.monotonic() + seconds, answer
        self._known.move_to_end(key)
        if len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)


class Doorkeeper:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._users: _Kept[User] = _Kept()
        self._access: _Kept[str] = _Kept()  # "" for allowed, else why not

    async def who(self, request: web.Request) -> User:
        """Raises StatusError 401, 503."""
        found = of_certificate(request.get_extra_info("peercert"))
        if found is not None:
            return found
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token or len(token) > TOKEN_CHARS_MAX:
            raise errors.unauthorized()
        key = hashlib.sha256(token.encode()).digest()
        known = self._users.get(key)
        if known is None:
            known = await self._review(token)
            self._users.put(key, known, TOKEN_S)
        return known

    async def _review(self, token: str) -> User:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = _status(await self._client.create(TOKENS, body))
        user = status.get("user")
        name = user.get("username") if isinstance(user, dict) else None
        if not status.get("authenticated") or not isinstance(user, dict) or not isinstance(name, str) or not name:
            raise errors.unauthorized()
        extra = user.get("extra")
        return User(
            name,
            tuple(str(g) for g in user.get("groups") or ()),
            str(user.get("uid") or ""),
            {k: tuple(map(str, v)) for k, v in extra.items()} if isinstance(extra, dict) else {},
        )

    async def require(self, user: User, method: str, node: str, subresources: tuple[str, ...]) -> None:
        """One of the subresources of the node is enough.  Raises StatusError 403, 503."""
        verb, why = _VERBS.get(method, method.lower()), ""
        for subresource in subresources:
            why = await self._may(user, verb, node, subresource)
            if not why:
                return
        raise StatusError(403, "Forbidden", why)

    async def _may(self, user: User, verb: str, node: str, subresource: str) -> str:
        extra = tuple(sorted((k, v) for k, v in user.extra.items()))
        key = (user.name, user.groups, user.uid, extra, verb, node, subresource)
        known = self._access.get(key)
        if known is not None:
            return known
        wanted = {"verb": verb, "resource": "nodes", "subresource": subresource, "name": node}
        info = user.info()
        spec = {"user": info.pop("username"), **info, "resourceAttributes": wanted}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        status = _status(await self._client.create(ACCESS, body))
        allowed = status.get("allowed") is True and not status.get("denied")
        why = str(status.get("reason") or "")[:500]
        said = f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource={subresource}, node={node})"
        answer = "" if allowed else f"{said}: {why}" if why else said
        self._access.put(key, answer, ALLOWED_S if allowed else DENIED_S)
        return answer


def _status(answer: dict[str, Any]) -> dict[str, Any]:
    status = answer.get("status")
    return status if isinstance(status, dict) else {}


def of_certificate(peer: object) -> User | None:
    """The user that a verified client certificate names (as ``ssl`` gives it), None without one."""
    subject = peer.get("subject") if isinstance(peer, dict) else None
    pairs = [(k, v) for rdn in subject or () for k, v in rdn]
    name = next((v for k, v in pairs if k == "commonName"), "")
    return authenticated(name, tuple(v for k, v in pairs if k == "organizationName")) if name else None


async def keep_ca(client: Client, context: ssl.SSLContext) -> None:
    """Until cancelled: trusts the client CA that the cluster publishes for servers like this one.  Where it may not be
    read, only tokens open the door, which is said once."""
    trusted, said = "", False
    while True:
        wait_s = CA_LOOK_S
        try:
            found = await client.get(*CA_MAP)
            pem = (found.get("data") or {}).get("client-ca-file") if isinstance(found.get("data"), dict) else None
            if isinstance(pem, str) and pem and pem != trusted:
                context.load_verify_locations(cadata=pem)
                trusted = pem
                logger.info("kubelet.client_ca", source="the cluster's kube-system/extension-apiserver-authentication")
        except (StatusError, ssl.SSLError, ValueError) as e:
            wait_s = CA_RETRY_S
            if not said:
                said = True
                logger.warning("kubelet.no_client_ca", reason=str(e), hint="name one with --kubelet-client-ca")
        await asyncio.sleep(wait_s)
