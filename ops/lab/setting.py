"""The acts that demo, benchmarks and chaos runs share: a hub with its cloud, nodes that join, and taking all down again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

from ops.lab.world import NODES, Wire, World

HUB_S = 30.0
API_S = 40.0


def hub(w: World, host: str = "127.0.0.1", servers: int = 1) -> dict[str, Any]:
    """Makes a hub of one or three servers on free ports of an address and runs it; its hub.json."""
    ports = ("--port", "0", "--leaf-port", "0", "--websocket-port", "0")
    where = ("--host", host) if servers == 1 else (*("--server", host) * servers, "--route-port", "0")
    w.skerry("hub", "init", "--data", str(w.hub), *where, "--listen", host, *ports)
    run_hub(w)
    return facts(w)


def hub_name(w: World, server: int) -> str:
    """Of the process that supervises a server, counted from 1."""
    return f"hub-{server}" if facts(w)["servers"] else "hub"


def start_hub_server(w: World, server: int) -> None:
    w.start(hub_name(w, server), "hub", "run", "--data", str(w.hub), "--server", str(server))


def run_hub(w: World) -> None:
    for n in range(1, max(1, len(facts(w)["servers"])) + 1):
        start_hub_server(w, n)
    w.until("the hub answers", lambda: ": ok" in w.skerry("hub", "status", "--data", str(w.hub), check=False), seconds=HUB_S)


def facts(w: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((w.hub / "hub.json").read_text())
    return found


def start_cloud(w: World, name: str, *options: str, listen: str = "127.0.0.1:0", env: dict[str, str] | None = None) -> None:
    """A cloud process under a name; does not wait for it."""
    argv = ("cloud", "run", "--hub", str(w.hub), "--listen", listen, "--kubeconfig", str(w.kubeconfig), *options)
    w.start(name, *argv, env=env)


def cloud(w: World, *options: str) -> None:
    start_cloud(w, "cloud", *options)
    api_answers(w)


def api_answers(w: World) -> None:
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
    if (w.hub / "hub.json").exists():
        for n in range(1, max(1, len(facts(w)["servers"])) + 1):
            w.skerry("hub", "stop", "--data", str(w.hub), "--server", str(n), check=False)
    shutil.rmtree(w.folder, ignore_errors=True)
    return ended
