"""A real cluster that is filled with very many pods, in the place of ``crowd``: the same lines are understood.

    python -m ops.bench.filled --kubeconfig FILE --pods 100000 --on-edges 1000 --edges 100

It prints ``full`` when everything is made; what a run before has made is found and kept.  A change is a patch through the
API server, which writes it to its etcd, so its time counts from before that.  The cluster should run no controllers that
look after pods and nodes: these pods have no kubelets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path as File
from typing import Any

from bus.kube.errors import StatusError
from cloud.bridge import credentials
from cloud.bridge.client import Client, Path, Selection
from ops.bench.crowd import NAMESPACES, STAMP, Crowd

AT_ONCE = 48
Object = dict[str, Any]


class Filled:
    def __init__(self, client: Client, pods: int, on_edges: int, edges: int) -> None:
        self._client, self._crowd = client, Crowd(pods, on_edges, edges)
        self.pods, self.share = pods, pods // on_edges

    async def fill(self) -> None:
        for n in range(NAMESPACES):
            await self._made(Path("", "v1", "namespaces"), {"metadata": {"name": f"ns-{n}"}})
            await self._account(f"ns-{n}")
        for n in range(self._crowd.edges):
            await self._made(Path("", "v1", "nodes"), bare(self._crowd.node(n)))
        there = await self._there()
        made = (self._crowd.pod(n, 0) for n in range(self.pods))
        await spread((p for p in made if p["metadata"]["name"] not in there), self._pod)

    async def _there(self) -> set[str]:
        found: set[str] = set()
        async with contextlib.aclosing(self._client.pages(Path("", "v1", "pods"), Selection(metadata=True))) as pages:
            async for page in pages:
                found |= {p["metadata"]["name"] for p in page.items}
        return found

    async def _made(self, path: Path, obj: Object) -> None:
        try:
            await self._client.create(path, obj)
        except StatusError as e:
            if e.code != 409:
                raise

    async def _account(self, namespace: str) -> None:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(StatusError):
                    await self._client.get(Path("", "v1", "serviceaccounts", namespace), "default")
                    return
                await asyncio.sleep(0.2)

    async def _pod(self, pod: Object) -> None:
        made = bare(pod)
        made["spec"]["automountServiceAccountToken"] = False
        await self._made(Path("", "v1", "pods", pod["metadata"]["namespace"]), made)

    async def go(self, seconds: float, edge_rate: float, other_rate: float) -> int:
        """How many changes on edges there were, all of them done."""
        begun, told, passed = time.monotonic(), 0, 0
        limit = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while (now := time.monotonic() - begun) < seconds:
                while told < now * edge_rate:
                    tasks.create_task(self._tell(told * self.share % self.pods, limit))
                    told += 1
                while passed < now * other_rate:
                    tasks.create_task(self._tell((passed * self.share + 1) % self.pods, limit))
                    passed += 1
                await asyncio.sleep(0.002)
        return told

    async def _tell(self, n: int, limit: asyncio.Semaphore) -> None:
        async with limit:
            meta = self._crowd.pod(n, 0)["metadata"]
            stamp = str(time.time_ns() // 1000)
            path = Path("", "v1", "pods", meta["namespace"])
            await self._client.patch(path, meta["name"], {"metadata": {"annotations": {STAMP: stamp}}})


def bare(obj: Object) -> Object:
    """As a client writes it."""
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("uid", "resourceVersion")}
    return {**{k: v for k, v in obj.items() if k != "status"}, "metadata": meta}


async def spread(items: Iterable[Object], work: Callable[[Object], Awaitable[None]]) -> None:
    """AT_ONCE at a time."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(worker())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=File, required=True)
    for name in ("pods", "on-edges", "edges"):
        parser.add_argument(f"--{name}", type=int, required=True)
    said = parser.parse_args()
    client = Client(credentials.load(said.kubeconfig))
    try:
        filled = Filled(client, said.pods, said.on_edges, said.edges)
        await filled.fill()
        print("full", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            _, seconds, edge_rate, other_rate = line.split()
            print("gone", await filled.go(float(seconds), float(edge_rate), float(other_rate)), flush=True)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
