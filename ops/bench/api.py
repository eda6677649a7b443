"""What the standalone API carries, over TLS and with its log: reads, writes, long lists, many watchers.

One API server, clients in this process: on few cores the clients take as much as the server, so these are lower bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ops.bench.latency import percentile
from ops.lab.api import Api

CLIENTS = 16
REQUESTS = 3_000
PODS = 5_000
LISTS = 10
WATCHERS, CHANGES = 1_000, 20
OBJECTS = 100_000
WAIT_S = 120.0
SPACE = "bench"
PODS_PATH, MAPS = f"/api/v1/namespaces/{SPACE}/pods", f"/api/v1/namespaces/{SPACE}/configmaps"


async def measure(api: Api, told: Callable[[dict[str, Any]], None]) -> None:
    """Rows as they come: what, how many, per second, p50 and p99 in ms."""
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": SPACE}})
    told({"what": "create a pod", **await _many(PODS, lambda i: api.call("POST", PODS_PATH, _pod(i)))})
    told({"what": "get a pod", **await _many(REQUESTS, lambda i: api.call("GET", f"{PODS_PATH}/p{i % PODS}"))})
    told({"what": f"list of {PODS} pods", **await _many(LISTS, lambda _: _list(api, PODS_PATH, PODS), clients=1)})
    told({"what": f"change told to {WATCHERS} watchers", **await _fan_out(api)})
    made = await _many(OBJECTS, lambda i: api.call("POST", MAPS, _map(f"m{i}", "x" * 100)), clients=CLIENTS * 2)
    told({"what": "create a config map", **made})
    told({"what": f"list of {OBJECTS} config maps", **await _many(3, lambda _: _list(api, MAPS, OBJECTS), clients=1)})
    told({"what": f"list of {OBJECTS} config maps by 500", **await _many(3, lambda _: _pages(api), clients=1)})


async def _many(count: int, one: Callable[[int], Awaitable[Any]], clients: int = CLIENTS) -> dict[str, Any]:
    took: list[float] = []
    numbers = iter(range(count))

    async def client() -> None:
        for i in numbers:
            began = time.perf_counter()
            await one(i)
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return _row(count, time.perf_counter() - began, took)


def _row(count: int, seconds: float, took: list[float]) -> dict[str, Any]:
    shown = {"p50_ms": round(percentile(took, 0.5) * 1000, 1), "p99_ms": round(percentile(took, 0.99) * 1000, 1)}
    return {"count": count, "per_s": round(count / seconds, 1), **shown}


async def _list(api: Api, path: str, expected: int) -> None:
    found = len((await api.call("GET", path))["items"])
    assert found >= expected, f"{found} of {expected} in {path}"


async def _pages(api: Api) -> None:
    seen, token = 0, ""
    while True:
        page = await api.call("GET", f"{MAPS}?limit=500" + (f"&continue={token}" if token else ""))
        seen += len(page["items"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert seen >= OBJECTS, f"{seen} of {OBJECTS}"


async def _fan_out(api: Api) -> dict[str, Any]:
    """From the write's beginning to each watcher's line."""
    watched = f"/api/v1/namespaces/{SPACE}/secrets"
    began: dict[str, float] = {}
    took: list[float] = []
    ready, told = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def watcher() -> None:
        async for event in api.watch(f"{watched}?watch=1&allowWatchBookmarks=true"):
            if event["type"] == "BOOKMARK":
                continue
            name = event["object"]["metadata"]["name"]
            if name == "ready":
                ready.release()
            elif name in began:
                took.append(time.perf_counter() - began[name])
                told.release()

    async def write(name: str) -> None:
        began[name] = time.perf_counter()
        await api.call("POST", watched, {"metadata": {"name": name}})

    await api.call("POST", watched, {"metadata": {"name": "ready"}})
    tasks = [asyncio.create_task(watcher()) for _ in range(WATCHERS)]
    try:
        async with asyncio.timeout(WAIT_S):
            for _ in range(WATCHERS):
                await ready.acquire()
            start = time.perf_counter()
            for i in range(CHANGES):
                await write(f"s{i}")
                for _ in range(WATCHERS):
                    await told.acquire()
            return _row(CHANGES * WATCHERS, time.perf_counter() - start, took)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _pod(i: int) -> dict[str, Any]:
    """Like one of a deployment; nobody schedules it."""
    container = {"name": "main", "image": "busybox:1.36", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
    spec = {"schedulerName": "nobody", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{i}", "labels": {"app": "bench"}}, "spec": spec}


def _map(name: str, text: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": text}}
