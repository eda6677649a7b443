"""`./just bench [--only latency,replay,scheduling,bridge,node]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

from bus import connect, stamp
from bus.hub import init
from ops.bench import api as api_bench
from ops.bench import bridge, latency, node, replay, scheduling
from ops.lab import setting
from ops.lab.api import Api
from ops.lab.show import Show, StepFailed
from ops.lab.world import World

ROOT = Path(__file__).resolve().parents[2] / ".skerry" / "bench"
PARTS = ("latency", "replay", "scheduling", "bridge", "api", "node")


def machine() -> dict[str, Any]:
    cpu = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    return {"cpus": os.cpu_count(), "cpu": cpu, "python": platform.python_version(), "skerry": stamp.VERSION}


async def _latency(w: World) -> dict[str, Any]:
    async with Api(w.kubeconfig) as api:
        return await latency.measure(api, w.node_dir(latency.NODE))


async def _replay(w: World) -> dict[str, Any]:
    hub = init.load_hub(w.hub)
    settings = connect.ConnectSettings(tuple(hub.urls), "bench", credentials=hub.core_creds, ca=hub.ca_path)
    core = await connect.connect(settings)
    try:
        return await replay.measure(core, hub.shards)
    finally:
        await core.close()


async def _api(w: World, show: Show, rows: list[dict[str, Any]]) -> None:
    def told(row: dict[str, Any]) -> None:
        rows.append({"bench": "api", **row})
        show.say(json.dumps(row))

    async with Api(w.kubeconfig, connections=api_bench.WATCHERS + 64) as api:
        await api_bench.measure(api, told)


async def _bridges(w: World, cluster: Path | None) -> list[dict[str, Any]]:
    rows = []
    for pods in bridge.PODS if cluster is None else bridge.PODS[-1:]:
        own = World(w.folder / f"bridge-{pods}")
        own.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(setting.hub, own)
        try:
            rows.append({"bench": "bridge-real" if cluster else "bridge", **await bridge.measure(own, pods, cluster)})
        finally:
            if "SKERRY_KEEP" not in os.environ:
                await asyncio.to_thread(setting.down, own)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated: {','.join(PARTS)}")
    parser.add_argument(
        "--cluster", type=Path, help="kubeconfig of a real cluster without controllers, filled for the bridge: spare it"
    )
    said = parser.parse_args()
    wanted = said.only.split(",")
    if unknown := [p for p in wanted if p not in PARTS]:
        parser.error(f"unknown {unknown}; there are {', '.join(PARTS)}")
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # a warning for each TLS connection that nats-py ends
    show, world = Show(), World(ROOT)
    setting.down(world)
    rows: list[dict[str, Any]] = [{"bench": "machine", **machine()}]
    try:
        with show.step("hub and cloud"):
            setting.hub(world)
            if set(wanted) - {"bridge"}:
                setting.cloud(world)
        if "latency" in wanted:
            with show.step("latency of a change"):
                setting.join(world, latency.NODE)
                rows.append({"bench": "latency", **asyncio.run(_latency(world))})
        if "replay" in wanted:
            with show.step("speed of replay"):
                rows.append({"bench": "replay", **asyncio.run(_replay(world))})
        if "scheduling" in wanted:
            with show.step("pods that look for a node"):
                rows += [{"bench": "scheduling", **row} for row in asyncio.run(scheduling.measure())]
        if "bridge" in wanted:
            with show.step("a bridge beside many pods"):
                rows += asyncio.run(_bridges(world, said.cluster))
        if "api" in wanted:
            with show.step("what the API carries"):
                asyncio.run(_api(world, show, rows))
        if "node" in wanted:
            wire = setting.wire(world)
            setting.join(world, node.NODE, through=wire)
            setting.start_edge(world, node.NODE, beat_s=1)
            rows.append({"bench": "node", **node.measure(world, show, wire)})
    except StepFailed as e:
        show.say(f"FAILED: {e}; logs: {world.processes.logs}")
        return 1
    finally:
        if "SKERRY_KEEP" not in os.environ:
            setting.down(world)
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
