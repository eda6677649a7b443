"""What a lane that was killed left: processes, containers, mounts, network namespaces, its folder.

A lane writes into its folder who it is and what it made; whoever finds a folder whose lane is dead takes all of that down.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ops.chaos import netns
from ops.lab import setting
from ops.lab.nodes import Lab
from ops.lab.processes import started_of

PREFIX = "skerry-chaos-"  # of a lane's folder
OWNER = "lane.json"
COMMAND_S_MAX = 20.0


def claim(folder: Path, *, devices: str = "") -> None:
    """``devices``: what the names of its namespaces and devices begin with."""
    pid = os.getpid()
    (folder / OWNER).write_text(json.dumps({"pid": pid, "started": started_of(pid), "devices": devices}))


def sweep(parent: Path | None = None) -> list[str]:
    """Names of the folders of dead lanes that were taken down."""
    gone = []
    for folder in sorted((parent or Path(tempfile.gettempdir())).glob(f"{PREFIX}*")):
        try:
            owner = json.loads((folder / OWNER).read_text())
            alive = started_of(int(owner["pid"])) == owner["started"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being made at this moment, or not ours
        if not alive:
            _take_down(folder, str(owner["devices"]))
            gone.append(folder.name)
    return gone


def _take_down(folder: Path, devices: str) -> None:
    lab = Lab(folder)
    lab.hub = folder / "hub-disk" / "hub"
    lab.processes.end_all_soon()
    setting.down(lab)
    if devices:
        netns.sweep(devices)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], timeout=COMMAND_S_MAX, check=False)
    shutil.rmtree(folder, ignore_errors=True)
