"""A served API with roles: the token of a request is the name of its user, with groups after a colon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from bus.identity import api_keys
from bus.kube import cache, memory, server, upkeep
from bus.kube.auth import jws, policy, users
from bus.kube.storage import Origin
from cloud.standalone import rules
from tests.unit.kube_http.conftest import Http

ME = Origin("test")
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def user_of(headers: Mapping[str, str]) -> users.User | None:
    """``Bearer jane:dev,ops``; nobody without a header, refused for ``Bearer bad``."""
    text = headers.get("Authorization", "").removeprefix("Bearer ")
    if not text:
        return users.NOBODY
    name, _, groups = text.partition("/")
    return (
        None
        if name == "bad" or jws.looks_like(text)
        else users.authenticated(name, tuple(g for g in groups.split(",") if g))
    )


class Roles(Http):
    """``as_`` is the user of a call."""

    async def ask(self, as_: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return await self.call(method, path, body, Authorization=f"Bearer {as_}", **headers)

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        code, got = await self.ask(f"root/{users.MASTERS}", method, path, body)
        assert code < 300, got
        return got

    async def role(self, name: str, *granted: dict[str, Any], namespace: str = "") -> None:
        kind, path = ("Role", f"/namespaces/{namespace}/roles") if namespace else ("ClusterRole", "/clusterroles")
        await self.admin("POST", RBAC + path, {"kind": kind, "metadata": {"name": name}, "rules": list(granted)})

    async def bind(self, role: str, *subjects: str, namespace: str = "", kind: str = "ClusterRole") -> None:
        """``subjects`` are ``User/jane``, ``Group/dev``, ``ServiceAccount/ns/name``."""
        listed = []
        for s in subjects:
            of, *names = s.split("/")
            listed.append({"kind": of, "name": names[-1], **({"namespace": names[0]} if len(names) > 1 else {})})
        space, path = ("", f"/namespaces/{namespace}/rolebindings") if namespace else ("Cluster", "/clusterrolebindings")
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
        meta = {"generateName": f"{role}-"}
        await self.admin(
            "POST", RBAC + path, {"kind": f"{space}RoleBinding", "metadata": meta, "roleRef": ref} | {"subjects": listed}
        )

    async def can(self, as_: str, verb: str, resource: str, namespace: str = "", name: str = "", group: str = "") -> bool:
        """By the API's own word."""
        whole, _, sub = resource.partition("/")
        attributes = {
            "verb": verb,
            "resource": whole,
            "subresource": sub,
            "namespace": namespace,
            "name": name,
            "group": group,
        }
        body = {"spec": {"resourceAttributes": attributes}}
        code, got = await self.ask(as_, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        assert code == 201, got
        allowed: bool = got["status"]["allowed"]
        return allowed


@pytest.fixture
async def api() -> AsyncIterator[Roles]:
    storage = memory.MemoryStorage(cache.WatchCache(bookmark_s=0.05))
    registry = rules.make_registry(storage, issuer=rules.make_issuer(storage, api_keys.lone()))
    await upkeep.bootstrap(registry, ME)
    await policy.reconcile(registry, ME)
    running = await server.serve(rules.make_app(registry, authenticate=user_of), "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as client:
            yield Roles(registry, storage, f"http://127.0.0.1:{running.port}", client)
    finally:
        await running.stop()
