"""A cluster's API server with very many pods, as far as a bridge asks: lists in pages, watches with bookmarks, over HTTP.

    python -m ops.bench.crowd --pods 100000 --on-edges 1000 --edges 100

It prints its port.  A line ``go SECONDS EDGE_RATE OTHER_RATE`` on its input makes it tell of that many changes a second,
each with the time at which it was told; it answers ``gone N`` with how many there were on edges.  Pods are made while they
are sent, so that it needs no memory that would count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from aiohttp import web

STAMP = "bench.skerry.io/told-us"
FILLER = "x" * 3000  # a pod with its managed fields has some 4 kB
BOOKMARK_S = 10.0
NAMESPACES = 10
Object = dict[str, Any]


class Crowd:
    def __init__(self, pods: int, on_edges: int, edges: int) -> None:
        self.pods, self.on_edges, self.edges = pods, on_edges, edges
        self.rev = pods + edges + 1
        self.watching: set[asyncio.Queue[bytes]] = set()
        self.others: set[asyncio.Event] = set()

    # --- objects

    def node(self, n: int) -> Object:
        meta = {"name": f"edge-{n:05}", "uid": f"n{n}", "resourceVersion": str(n + 1)}
        return {"metadata": {**meta, "labels": {"node-role.kubernetes.io/edge": ""}}, "spec": {}, "status": {}}

    def pod(self, n: int, rev: int, told_us: int = 0) -> Object:
        """The first ``on_edges`` of every thousand or so are spread over the whole list."""
        share = self.pods // self.on_edges
        edge = n % share == 0
        where = f"edge-{n // share % self.edges:05}" if edge else f"cloud-{n % 500}"
        notes = {"filler": FILLER, STAMP: str(told_us)}
        meta = {"name": f"p-{n:07}", "namespace": f"ns-{n % NAMESPACES}", "uid": f"u{n}", "resourceVersion": str(rev)}
        spec = {"nodeName": where, "containers": [{"name": "c", "image": "i"}], "tolerations": [{"operator": "Exists"}]}
        return {"metadata": {**meta, "annotations": notes}, "spec": spec, "status": {"phase": "Running"}}

    # --- requests

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, request.query
        if request.method != "GET":
            body = await request.json()
            self.rev += 1
            body.setdefault("metadata", {})["resourceVersion"] = str(self.rev)
            return web.json_response(body, status=201)
        if path.rsplit("/", 1)[-1] == "skerry-bridge":
            status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "none yet"}
            return web.json_response(status, status=404)
        if query.get("watch") == "1":
            return await self._watch(request)
        if path == "/api/v1/pods":
            return self._page(query)
        items = [self.node(n) for n in range(self.edges)] if path == "/api/v1/nodes" and "labelSelector" in query else []
        return web.json_response({"metadata": {"resourceVersion": str(self.rev)}, "items": items})

    def _page(self, query: Any) -> web.Response:
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
        wanted = query.get("fieldSelector", "")
        if wanted.startswith("spec.nodeName=edge"):  # of one node alone: a new edge's
            return web.json_response({"metadata": {"resourceVersion": str(self.rev)}, "items": []})
        end = min(start + limit, self.pods)
        meta = {"resourceVersion": str(self.rev)} | ({"continue": str(end)} if end < self.pods else {})
        return web.json_response({"metadata": meta, "items": [self.pod(n, n + 1) for n in range(start, end)]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue(100_000)
        if request.path == "/api/v1/pods":
            self.watching.add(queue)
        try:
            with contextlib.suppress(ConnectionResetError):
                while True:
                    try:
                        async with asyncio.timeout(BOOKMARK_S):
                            lines = [await queue.get()]
                        while not queue.empty():
                            lines.append(queue.get_nowait())
                    except TimeoutError:
                        mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.rev)}}}
                        lines = [json.dumps(mark).encode() + b"\n"]
                    await response.write(b"".join(lines))
        finally:
            self.watching.discard(queue)
        return response

    # --- changes

    def tell(self, n: int) -> None:
        self.rev += 1
        event = {"type": "MODIFIED", "object": self.pod(n, self.rev, time.time_ns() // 1000)}
        line = json.dumps(event).encode() + b"\n"
        for queue in self.watching:
            queue.put_nowait(line)

    async def go(self, seconds: float, edge_rate: float, other_rate: float) -> int:
        share = self.pods // self.on_edges
        edges, others = _round(0, self.pods, share), _round(1, self.pods, share)
        begun, told, passed = time.monotonic(), 0, 0
        while (now := time.monotonic() - begun) < seconds:
            while told < now * edge_rate:
                self.tell(next(edges))
                told += 1
            while passed < now * other_rate:
                self.tell(next(others))
                passed += 1
            await asyncio.sleep(0.002)
        return told


def _round(start: int, end: int, step: int) -> Iterator[int]:
    while True:
        yield from range(start, end, step)


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("pods", "on-edges", "edges"):
        parser.add_argument(f"--{name}", type=int, required=True)
    said = parser.parse_args()
    crowd = Crowd(said.pods, said.on_edges, said.edges)
    app = web.Application(client_max_size=16 << 20)
    app.router.add_route("*", "/{path:.*}", crowd.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, seconds, edge_rate, other_rate = line.split()
        print("gone", await crowd.go(float(seconds), float(edge_rate), float(other_rate)), flush=True)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
