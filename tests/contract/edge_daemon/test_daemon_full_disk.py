"""The node's disk is full: containers go on and are started again, the node says so, also in the API; when there is room it
catches up, and what it had to say arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ops.chaos import disk
from ops.lab.nodes import Lab

pytestmark = pytest.mark.contract

DISK = "48m"
BIG = 400_000  # more than a store of this size has free inside


@pytest.fixture
def disk_of(lab: Lab) -> Iterator[Callable[[str], disk.Disk]]:
    made: list[disk.Disk] = []

    def make(node: str) -> disk.Disk:
        made.append(disk.small(lab.node_dir(node), DISK))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _pod_restarts(lab: Lab, name: str) -> int:
    statuses: list[dict[str, Any]] = (lab.get("pod", name).get("status") or {}).get("containerStatuses") or []
    return sum(int(s["restartCount"]) for s in statuses)


def test_a_full_disk_stops_no_container_and_is_no_secret(lab: Lab, disk_of: Callable[[str], disk.Disk]) -> None:
    small = disk_of(f"full-{lab.tail}")
    node = lab.join("full")
    lab.start_daemon(node)
    lab.ready(node)
    for name in ("steady", "shaky"):
        lab.pod(node, name)
    for name in ("steady", "shaky"):
        lab.runs(node, name)
    pid = lab.in_sync(node)["pid"]
    steady = {k: v for k, v in lab.containers(node).items() if k.startswith("steady/")}

    small.fill(pid)
    lab.config_map("big", BIG)
    lab.pod(node, "late", config_map="big")  # can't be applied: there is no room for it
    trouble = lab.until("the daemon says so", lambda: lab.node_status(node)["replica"]["trouble"])
    assert "free" in trouble
    assert "store: " in lab.skerry("edge", "status", "--data", str(lab.node_dir(node)))
    lab.until("the API says so", lambda: "free" in lab.condition(node)["message"])
    assert lab.condition(node)["status"] == "True"  # it does its work, as far as it knows of it
    if isinstance(small, disk.SmallDisk):
        assert lab.condition(node, "DiskPressure")["status"] == "True"
    lab.killed(node, "shaky")
    lab.until("the restart is told", lambda: _pod_restarts(lab, "shaky") == 1)  # from memory
    lab.untouched(node, steady)
    assert "late/sleep" not in lab.containers(node)

    small.free(pid)
    lab.runs(node, "late")
    status = lab.in_sync(node)
    assert (status["pid"], status["replica"]["trouble"]) == (pid, "")
    lab.until("the API says that it is over", lambda: "free" not in lab.condition(node)["message"])
    lab.until("no pressure", lambda: lab.condition(node, "DiskPressure")["status"] == "False")
    lab.untouched(node, steady)

    # A daemon that is started on a full disk takes up its pods all the same.
    small.fill(pid)
    lab.restart_daemon(node)
    lab.killed(node, "shaky")
    lab.until("the restart is told", lambda: _pod_restarts(lab, "shaky") == 2)
    lab.untouched(node, steady)
    small.free(lab.answers(node)["pid"])
    lab.in_sync(node)
    lab.processes.kill_9(node)
    lab.kill_leaf_for_good(node)
    lab.remove_containers(node)
