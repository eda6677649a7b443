"""The node's disk is full: containers go on and are started again, the node says so, also in the API; when there is room it
catches up, and what it had to say arrives."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.edge_daemon.lab import Lab

pytestmark = pytest.mark.contract

DISK = "48m"
BIG = 400_000  # more than a store of this size has free inside
PIECE = 64 << 10


class SmallDisk:
    """A node's folder on a file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self, _: int) -> None:
        with self.filler.open("ab", buffering=0) as f, contextlib.suppress(OSError):
            for size in (PIECE, 1):
                with contextlib.suppress(OSError):
                    while f.write(b"\0" * size):
                        pass

    def free(self, _: int) -> None:
        self.filler.unlink()


class SmallFiles:
    """Where nothing may be mounted: the kernel refuses the daemon every write to a file, as a full disk does."""

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def small_disk(lab: Lab) -> Iterator[Callable[[str], SmallDisk | SmallFiles]]:
    mounted: list[Path] = []

    def make(node: str) -> SmallDisk | SmallFiles:
        folder = lab.node_dir(node)
        folder.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            return SmallFiles()
        mounted.append(folder)
        return SmallDisk(folder)

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _pod_restarts(lab: Lab, name: str) -> int:
    statuses: list[dict[str, Any]] = (lab.get("pod", name).get("status") or {}).get("containerStatuses") or []
    return sum(int(s["restartCount"]) for s in statuses)


def test_a_full_disk_stops_no_container_and_is_no_secret(
    lab: Lab, small_disk: Callable[[str], SmallDisk | SmallFiles]
) -> None:
    disk = small_disk(f"full-{lab.tail}")
    node = lab.join("full")
    lab.start_daemon(node)
    lab.ready(node)
    for name in ("steady", "shaky"):
        lab.pod(node, name)
    for name in ("steady", "shaky"):
        lab.runs(node, name)
    pid = lab.in_sync(node)["pid"]
    steady = {k: v for k, v in lab.containers(node).items() if k.startswith("steady/")}

    disk.fill(pid)
    lab.config_map("big", BIG)
    lab.pod(node, "late", config_map="big")  # can't be applied: there is no room for it
    trouble = lab.until("the daemon says so", lambda: lab.node_status(node)["replica"]["trouble"])
    assert "free" in trouble
    assert "store: " in lab.skerry("edge", "status", "--data", str(lab.node_dir(node)))
    lab.until("the API says so", lambda: "free" in lab.condition(node)["message"])
    assert lab.condition(node)["status"] == "True"  # it does its work, as far as it knows of it
    if isinstance(disk, SmallDisk):
        assert lab.condition(node, "DiskPressure")["status"] == "True"
    lab.killed(node, "shaky")
    lab.until("the restart is told", lambda: _pod_restarts(lab, "shaky") == 1)  # from memory
    lab.untouched(node, steady)
    assert "late/sleep" not in lab.containers(node)

    disk.free(pid)
    lab.runs(node, "late")
    status = lab.in_sync(node)
    assert (status["pid"], status["replica"]["trouble"]) == (pid, "")
    lab.until("the API says that it is over", lambda: "free" not in lab.condition(node)["message"])
    lab.until("no pressure", lambda: lab.condition(node, "DiskPressure")["status"] == "False")
    lab.untouched(node, steady)

    # A daemon that is started on a full disk takes up its pods all the same.
    disk.fill(pid)
    lab.restart_daemon(node)
    lab.killed(node, "shaky")
    lab.until("the restart is told", lambda: _pod_restarts(lab, "shaky") == 2)
    lab.untouched(node, steady)
    disk.free(lab.answers(node)["pid"])
    lab.in_sync(node)
    lab.processes.kill_9(node)
    lab.kill_leaf_for_good(node)
    lab.remove_containers(node)
