"""What a bridge costs beside a large cluster: memory, its first list, and how long a change takes into the log.

The cluster is a generator of pods (``crowd``) that is read over real HTTP, page by page; the bridge is the process that
users run, on a real hub.  It is measured twice with different crowds and the same edges: what differs is the cluster's cost.
The first list counts from the start of the process, until it leads and CLUSTER has everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from bus import connect, log
from bus.hub import init, streams
from ops.bench import crowd
from ops.bench.node import memory
from ops.lab.world import World

PODS = (10_000, 100_000)
ON_EDGES = 1_000
EDGES = 100
LOAD_S = 300.0
CHANGES_S, EDGE_RATE, OTHER_RATE = 20.0, 50.0, 500.0
OTHER_RATE_REAL = 50.0  # an API server and its etcd that share two cores with all the rest carry no more
REST_S = 3.0


async def measure(w: World, pods: int, cluster: Path | None = None) -> dict[str, Any]:
    """On a hub that nothing else uses: what a cluster doesn't have, a bridge takes out of the log.  ``cluster``: the
    kubeconfig of a real one that is filled (``filled``); none is a crowd."""
    hub = init.load_hub(w.hub)
    settings = connect.ConnectSettings(tuple(hub.urls), "bench", credentials=hub.core_creds, ca=hub.ca_path)
    core = await connect.connect(settings)
    store = log.Log(core)
    try:
        await streams.ensure_streams(store, shards=hub.shards, limits=streams.limits_of(hub.replicas))
        return await _one(w, store, pods, cluster)
    finally:
        await store.close()
        await core.close()


async def _one(w: World, store: log.Log, pods: int, cluster: Path | None) -> dict[str, Any]:
    size = ("--pods", str(pods), "--on-edges", str(ON_EDGES), "--edges", str(EDGES))
    name, of = f"crowd-{pods}", ["ops.bench.filled", "--kubeconfig", str(cluster)] if cluster else ["ops.bench.crowd"]
    child = w.processes.start(name, [sys.executable, "-m", *of, *size], pipes=True)
    said_first = await _line(child)
    kubeconfig = cluster or w.folder / f"kubeconfig-{name}"
    if cluster is None:
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(int(said_first))))
    after = (await store.info("CLUSTER")).last_seq
    begun = time.monotonic()
    where = ("--hub", str(w.hub), "--cluster", str(kubeconfig), "--part", "bridge")
    w.start("bridge", "cloud", "run", *where)
    said = w.processes.logs / "bridge.log"
    before = said.read_text().count("bridge.loaded") if said.exists() else 0
    async with asyncio.timeout(LOAD_S):
        while said.read_text().count("bridge.loaded") == before:
            await asyncio.sleep(0.05)
    first_list_s = time.monotonic() - begun
    pid = next(r.pid for r in w.processes.alive() if r.name == "bridge")
    await asyncio.sleep(REST_S)
    rest = memory(pid)
    held = (await store.info("CLUSTER")).last_seq - after
    rates = (EDGE_RATE, OTHER_RATE if cluster is None else OTHER_RATE_REAL)
    lags, told = await _changes(store, child, *rates)
    row = {
        "pods": pods,
        "on_edges": ON_EDGES,
        "edges": EDGES,
        "written": held,
        "first_list_s": round(first_list_s, 1),
        "rss_mb": rest["rss_mb"],
        "rss_after_changes_mb": memory(pid)["rss_mb"],
        "peak_mb": _peak_mb(pid),
        "changes_a_s": sum(rates),
        "told": told,
        "seen": len(lags),
        "lag_ms_p50": _share(lags, 0.5),
        "lag_ms_p99": _share(lags, 0.99),
    }
    for running in ("bridge", name):
        w.processes.stop(running)
    return row


async def _changes(
    store: log.Log, child: subprocess.Popen[bytes], edge_rate: float, other_rate: float
) -> tuple[list[float], int]:
    """Milliseconds from a change's telling to its event in the log, of every change on edges; and how many were told."""
    lags: list[float] = []
    done = asyncio.Event()
    told = 0

    async def follow() -> None:
        after = (await store.info("CLUSTER")).last_seq
        async with contextlib.aclosing(store.follow("CLUSTER", after=after)) as batches:
            async for batch in batches:
                for record in batch.records:
                    notes = ((record.event().data or {}).get("metadata") or {}).get("annotations") or {}
                    if int(notes.get(crowd.STAMP, 0)):
                        lags.append((record.time_us - int(notes[crowd.STAMP])) / 1000)
                if told and len(lags) >= told:
                    done.set()

    following = asyncio.create_task(follow())
    await asyncio.sleep(1)
    assert child.stdin is not None
    child.stdin.write(f"go {CHANGES_S} {edge_rate} {other_rate}\n".encode())
    child.stdin.flush()
    told = int((await _line(child)).split()[1])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while len(lags) < told and not done.is_set():
                await asyncio.sleep(0.1)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return lags, told


async def _line(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    return (await asyncio.to_thread(child.stdout.readline)).decode().strip()


def _kubeconfig(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024, 1)


def _share(lags: list[float], share: float) -> float:
    return round(sorted(lags)[min(len(lags) - 1, int(len(lags) * share))], 1) if lags else -1.0
