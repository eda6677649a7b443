"""How long a change takes: from the API write to the replica (durably applied) and to a watcher of the API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from bus import connect, link, replica
from bus.identity import join
from bus.stores.lmdb_store import LmdbStore
from ops.lab.api import Api
from schemas import reports, subjects

NODE = "bench"
CHANGES = 300
PAUSE_S = 0.02


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def summary(values: list[float]) -> dict[str, float]:
    return {"p50_ms": round(percentile(values, 0.5) * 1000, 2), "p99_ms": round(percentile(values, 0.99) * 1000, 2)}


async def measure(api: Api, node_dir: Path) -> dict[str, Any]:
    """``node_dir`` has joined as NODE.  Changes come one at a time: this is latency, not throughput."""
    spec = {
        "nodeName": NODE,
        "containers": [{"name": "c", "image": "busybox:1.36", "envFrom": [{"configMapRef": {"name": "bench"}}]}],
    }
    pods, maps = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/configmaps"
    first = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench"}, "data": {"n": "0"}}
    await api.call("POST", maps, first)
    await api.call("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bench"}, "spec": spec})
    applied: dict[str, float] = {}
    told: dict[str, float] = {}

    def on_change(changes: list[replica.Applied]) -> None:
        now = time.perf_counter()
        for c in changes:
            if c.fact.event is not None and c.fact.key.resource == "configmaps" and c.fact.event.data is not None:
                applied[c.fact.event.data["data"]["n"]] = now

    async def watch() -> None:
        rev = (await api.call("GET", maps))["metadata"]["resourceVersion"]
        async for event in api.watch(f"{maps}?watch=1&resourceVersion={rev}"):
            told[(event["object"].get("data") or {}).get("n", "")] = time.perf_counter()

    store = LmdbStore(node_dir / "bench-store")
    identity = join.load(node_dir)
    connection = await connect.connect(
        connect.ConnectSettings(
            tuple(identity.urls),
            NODE,
            credentials=join.creds_path(node_dir),
            ca=join.ca_path(node_dir),
            inbox=subjects.inbox(NODE),
        )
    )
    node = replica.Replica(NODE, [NODE, "all"], store, on_change=on_change)
    await node.attach(connection)
    beat = link.Link(
        connection, NODE, lambda: reports.Beat(boot="bench", time=0), on_up=node.link_up, on_down=node.link_down
    )
    tasks = [asyncio.create_task(c) for c in (node.run(), beat.run(), watch())]
    written: dict[str, tuple[float, float]] = {}
    try:
        async with asyncio.timeout(30):
            while "0" not in applied:
                await asyncio.sleep(0.01)
        for n in range(1, CHANGES + 1):
            began = time.perf_counter()
            await api.merge(f"{maps}/bench", {"data": {"n": str(n)}})
            written[str(n)] = (began, time.perf_counter())
            await asyncio.sleep(PAUSE_S)
        async with asyncio.timeout(30):
            while str(CHANGES) not in applied or str(CHANGES) not in told:
                await asyncio.sleep(0.01)
    finally:
        for t in tasks:
            t.cancel()
        for t in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await t
        await connection.close()
        store.close()
    both = [n for n in written if n in applied and n in told]
    return {
        "changes": len(written),
        "write": summary([done - began for began, done in written.values()]),
        "replica_applied": summary([applied[n] - written[n][0] for n in both]),
        "watcher_told": summary([told[n] - written[n][0] for n in both]),
        "not_seen_one_by_one": len(written) - len(both),
    }
