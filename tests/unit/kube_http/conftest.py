"""The API over HTTP, in this process, on a port of its own."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from bus.kube import cache, memory, registry, server, upkeep
from bus.kube.auth import users
from bus.kube.http.context import Limits
from bus.kube.storage import Origin


class Http:
    def __init__(self, api: registry.Registry, storage: memory.MemoryStorage, url: str, client: Any) -> None:
        self.api, self.storage, self.url = api, storage, url
        self.client: aiohttp.ClientSession = client

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(code, document); ``body`` is JSON unless it is text or bytes.  Header names have _ for -."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        text = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        data = io.BytesIO(text.encode() if isinstance(text, str) else text) if text is not None else None
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        async with self.client.request(method, self.url + path, data=data, headers=named) as r:
            raw = await r.read()
            return r.status, json.loads(raw) if "json" in r.content_type else raw.decode()

    @asynccontextmanager
    async def watch(self, path: str, **headers: str) -> AsyncIterator[Callable[[], Any]]:
        """Gives a coroutine function for the next event (None at the end)."""
        sep = "&" if "?" in path else "?"
        async with self.client.get(f"{self.url}{path}{sep}watch=1", headers=headers) as r:
            assert r.status == 200, await r.text()

            async def next_event() -> Any:
                line = await r.content.readline()
                return json.loads(line) if line else None

            yield next_event


@asynccontextmanager
async def started(
    limits: Limits | None = None,
    authenticate: Callable[[Mapping[str, str]], users.User | None] | None = None,
    storage: memory.MemoryStorage | None = None,
    **app: Any,
) -> AsyncIterator[Http]:
    storage = storage or memory.MemoryStorage(cache.WatchCache(bookmark_s=0.05))
    api = registry.Registry(storage)
    await upkeep.bootstrap(api, Origin("test"))
    running = await server.serve(server.make_app(api, limits=limits, authenticate=authenticate, **app), "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as client:
            yield Http(api, storage, f"http://127.0.0.1:{running.port}", client)
    finally:
        await running.stop()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with started() as found:
        yield found


CM = "/api/v1/namespaces/default/configmaps"


def config_map(name: str = "x", labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
