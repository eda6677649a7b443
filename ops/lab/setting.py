"""The acts that demo, benchmarks and chaos runs share: a hub with its cloud, nodes that join, and taking all down again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

from ops.lab.world import NODES, Wire, World

HUB_S = 30.0
API_S = 40.0


def hub(w: World, host: str = "127.0.0.1") -> dict[str, Any]:
    """Makes a hub on free ports of an address and runs it; its hub.json."""
    ports = ("--port", "0", "--leaf-port", "0", "--websocket-port", "0")
    w.skerry("hub", "init", "--data", str(w.hub), "--host", host, "--listen", host, *ports)
    run_hub(w)
    return facts(w)


def run_hub(w: World) -> None:
    w.start("hub", "hub", "run", "--data", str(w.hub))
    w.until("the hub answers", lambda: ": ok" in w.skerry("hub", "status", "--data", str(w.hub), check=False), seconds=HUB_S)


def facts(w: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((w.hub / "hub.json").read_text())
    return found


def cloud(w: World, *options: str) -> None:
    where = ("--hub", str(w.hub), "--listen", "127.0.0.1:0", "--kubeconfig", str(w.kubeconfig))
    w.start("cloud", "cloud", "run", *where, *options)
    w.until("the API is ready", lambda: w.kubeconfig.exists() and "ok" in w.kubectl("get", "--raw", "/readyz", check=False),
            seconds=API_S)  # fmt: skip
    w.until("namespace default", lambda: w.get("namespace", "default"), seconds=API_S)


def wire(w: World, node: str = NODES[0]) -> Wire:
    """A node's link to the hub, which can be cut."""
    return Wire(w, facts(w)["ports"]["leaf"], node)


def join(w: World, node: str, *, through: Wire | str | None = None) -> None:
    """``through``: a wire, or the URL that the leaf shall use."""
    token = w.skerry("token", "create", "--hub", str(w.hub), "--node", node).strip().splitlines()[-1]
    url = f"tls://127.0.0.1:{through.port}" if isinstance(through, Wire) else through
    way = ("--leaf-url", url) if url is not None else ()
    w.skerry("edge", "join", token, "--node", node, "--data", str(w.node_dir(node)), "--leaf-port", "0", *way)


def start_edge(w: World, node: str, *, beat_s: float, env: dict[str, str] | None = None, inside: Sequence[str] = ()) -> None:
    w.start(node, "edge", "run", "--data", str(w.node_dir(node)), "--beat", str(beat_s), env=env, inside=inside)


def down(w: World) -> list[str]:
    """Ends processes, leafs and containers, removes the folder; the names of the processes that were ended."""
    ended = w.processes.stop_all()
    if w.folder.exists():
        for identity in w.folder.glob("*/identity.json"):
            w.skerry("edge", "purge", "--data", str(identity.parent), "--yes", check=False)
    if w.hub.exists():
        w.skerry("hub", "stop", "--data", str(w.hub), check=False)
    shutil.rmtree(w.folder, ignore_errors=True)
    return ended
