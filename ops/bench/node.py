"""What a node costs: memory of daemon and leaf at rest with 20 pods and 500 objects, and what a reconnect costs then."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from ops.lab.api import Api
from ops.lab.show import Show
from ops.lab.world import Wire, World

NODE = "edge-1"
PODS = 20
OBJECTS = 500
CHANGED = 10
REST_S = 30


def memory(pid: int) -> dict[str, float]:
    """MB of a process from /proc/<pid>/smaps_rollup (proc(5)): RSS, and PSS where shared pages count once."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {f"{k.lower()}_mb": round(int(rows[k].split()[0]) / 1024, 1) for k in ("Rss", "Pss")}


async def fill(api: Api) -> None:
    """PODS running pods on the node, and config maps of theirs up to OBJECTS objects in its slice."""
    maps = OBJECTS - PODS
    for n in range(maps):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{n}"}, "data": {"k": "v" * 300, "n": "0"}}
        await api.call("POST", "/api/v1/namespaces/default/configmaps", body)
    for n in range(PODS):
        sources = [{"configMapRef": {"name": f"m{i}"}} for i in range(n, maps, PODS)]
        container = {"name": "c", "image": "busybox:1.36", "command": ["sleep", "1000000"], "envFrom": sources}
        spec = {"nodeName": NODE, "terminationGracePeriodSeconds": 0, "containers": [container]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{n}"}, "spec": spec}
        await api.call("POST", "/api/v1/namespaces/default/pods", body)


async def running(api: Api) -> int:
    items = (await api.call("GET", "/api/v1/namespaces/default/pods"))["items"]
    return sum((p.get("status") or {}).get("phase") == "Running" for p in items)


def measure(w: World, show: Show, wire: Wire) -> dict[str, Any]:
    async def make() -> None:
        async with Api(w.kubeconfig) as api:
            await fill(api)
            async with asyncio.timeout(240):
                while await running(api) < PODS:
                    await asyncio.sleep(0.5)

    with show.step(f"{PODS} pods run on {NODE}, {OBJECTS} objects in its slice"):
        asyncio.run(make())
        w.until("all there", lambda: _objects(w) >= OBJECTS, seconds=60)
    with show.step(f"{REST_S} s of rest"):
        time.sleep(REST_S)
    status = w.node_status(NODE)
    daemon, leaf = memory(status["pid"]), memory(status["leaf_pid"])
    out: dict[str, Any] = {
        "memory": {"pods": PODS, "objects": _objects(w), "daemon": daemon, "leaf": leaf,
                   "together_rss_mb": round(daemon["rss_mb"] + leaf["rss_mb"], 1)},
        "full_list_bytes": sum(s["bytes"] for s in status["replica"]["scopes"].values()),
    }  # fmt: skip
    for name, changed in (("reconnect_unchanged", 0), (f"reconnect_{CHANGED}_changed", CHANGED)):
        with show.step(f"the link is cut and healed with {changed} of {OBJECTS} objects changed"):
            out[name] = _reconnect(w, wire, changed)
    return out


def _objects(w: World) -> int:
    scopes = (w.node_status(NODE).get("replica") or {}).get("scopes") or {}
    return sum(s["objects"] for s in scopes.values())


def _reconnect(w: World, wire: Wire, changed: int) -> dict[str, Any]:
    """Bytes on the wire include TLS, the leaf protocol's greeting and beats, from healing to in sync."""
    wire.cut()
    w.until("link down", lambda: w.node_status(NODE).get("link") == "down", seconds=60)

    async def change() -> None:
        async with Api(w.kubeconfig) as api:
            for n in range(changed):
                await api.merge(f"/api/v1/namespaces/default/configmaps/m{n}", {"data": {"n": str(time.time_ns())}})

    asyncio.run(change())
    before = w.node_status(NODE)["replica"]
    up, down = wire.count()
    began = time.monotonic()
    wire.heal()
    status = w.until(
        "in sync",
        lambda: s if (s := w.node_status(NODE)).get("link") == "up" and s["replica"]["synced"]
        and s["replica"]["catch_ups"] > before["catch_ups"] else None,
        seconds=60,
    )  # fmt: skip
    seconds = time.monotonic() - began
    after = status["replica"]
    up2, down2 = wire.count()
    return {
        "seconds_from_heal": round(seconds, 2),
        "events": after["page_events"] - before["page_events"],
        "catch_up_bytes": after["page_bytes"] - before["page_bytes"],
        "wire_bytes_up": up2 - up,
        "wire_bytes_down": down2 - down,
    }
