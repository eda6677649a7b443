"""Takes a node's containers and mounts off a machine, for `skerry edge purge`: what has the labels of node and hub."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import quote

from ops import engine, engine_api

NODE = "io.skerry.node"
HUB = "io.skerry.hub"  # nodes of the same name but of different hubs may share an engine
REMOVE_TIMEOUT_S = 30.0


def remove(node: str, hub: str) -> int:
    """``hub`` is its id.  How many were removed; 0 without an engine (then there are none).  Raises EngineError."""
    host = engine.find()
    if host is None:
        return 0
    filters = quote(json.dumps({"label": [f"{NODE}={node}", f"{HUB}={hub}"]}))
    status, body = engine_api.request(host, "GET", f"/containers/json?all=true&filters={filters}")
    if status != 200:
        raise engine_api.EngineError(f"{host}: listing containers: HTTP {status}: {body[:200]!r}")
    ids = [str(c["Id"]) for c in json.loads(body)]
    for container in ids:
        path = f"/containers/{container}?force=true&v=true"
        status, body = engine_api.request(host, "DELETE", path, timeout=REMOVE_TIMEOUT_S)
        if status not in (204, 404, 409):  # 409: its removal is already in progress
            raise engine_api.EngineError(f"{host}: removing {container[:12]}: HTTP {status}: {body[:200]!r}")
    return len(ids)


def unmount(folder: Path) -> None:
    """Everything that is mounted below a folder (volumes in memory), the innermost first."""
    prefix = f"{folder.resolve()}/"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(prefix)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=REMOVE_TIMEOUT_S)
