"""A hub restored from an older backup under a running cloud and a running node: everybody agrees again, by themselves.

Nothing but the hub is ended.  The node has seen a future that the restored log doesn't know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.lab import setting
from ops.lab.world import World, node_ready, pod_ready

pytestmark = pytest.mark.contract
NODE = "edge-restored"


def pod(name: str, word: str) -> str:
    sleep = {"name": "c", "image": "busybox:1.36", "command": ["sh", "-c", "trap exit TERM; while :; do sleep 0.2; done"]}
    spec = {"nodeName": NODE, "containers": [{**sleep, "envFrom": [{"configMapRef": {"name": "words"}}]}]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"word": word}}, "spec": spec}
    return json.dumps(manifest)


def words(word: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"WORD": word}})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    w = World(tmp_path / "lab")
    try:
        setting.hub(w)
        setting.cloud(w, "--grace", "8")
        setting.join(w, NODE)
        # A long beat: the node doesn't notice that the hub was away, only what its next beat is answered.
        setting.start_edge(w, NODE, beat_s=4)
        yield w
    finally:
        setting.down(w)


def restarts(w: World, name: str) -> int:
    statuses = (w.get("pod", name).get("status") or {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", -1))


def rows(w: World) -> int:
    return int(w.node_status(NODE)["replica"]["resets"])


def test_cloud_and_node_converge_on_an_older_backup(world: World, tmp_path: Path) -> None:
    w = world
    w.until("the node is ready", lambda: node_ready(w.get("node", NODE)) == "True", seconds=40)
    w.kubectl("apply", "-f", "-", stdin=words("before"))
    for name in ("kept", "ends"):
        w.kubectl("apply", "-f", "-", stdin=pod(name, "before"))
    for name in ("kept", "ends"):
        w.until(f"pod {name} is ready", lambda name=name: pod_ready(w.get("pod", name)), seconds=40)
    assert restarts(w, "kept") == 0
    backup = tmp_path / "hub.tar.gz"
    w.skerry("hub", "backup", str(backup), "--data", str(w.hub))

    # The future that will be lost: a container that ended and was reported, a pod that came, one that went, a change.
    first = w.containers(NODE)["kept/c"][0]
    w.docker("kill", "--signal", "KILL", first)
    w.until("the restart is in the API", lambda: restarts(w, "kept") == 1 and pod_ready(w.get("pod", "kept")), seconds=60)
    w.kubectl("apply", "-f", "-", stdin=pod("newcomer", "after"))
    w.kubectl("delete", "pod", "ends", "--wait=true")
    w.kubectl("apply", "-f", "-", stdin=words("after"))
    w.until("the newcomer is ready", lambda: pod_ready(w.get("pod", "newcomer")), seconds=40)
    second = w.containers(NODE)["kept/c"]
    before = w.node_status(NODE)["replica"]

    w.processes.stop("hub")
    said = w.skerry("hub", "restore", str(backup), "--data", str(w.hub), "--replace")
    assert "in new epochs" in said
    w.start("hub", "hub", "run", "--data", str(w.hub))

    w.until("the newcomer is not in the API", lambda: not w.get("pod", "newcomer"), seconds=60)
    w.until("the node has begun anew", lambda: rows(w) > before["resets"] and w.node_status(NODE)["replica"]["synced"])
    w.until("the newcomer's container is gone", lambda: "newcomer/c" not in w.containers(NODE), seconds=60)
    w.until("the pod that had ended runs again", lambda: pod_ready(w.get("pod", "ends")), seconds=60)
    w.until(
        "the lost report is said again", lambda: restarts(w, "kept") == 1 and pod_ready(w.get("pod", "kept")), seconds=40
    )
    w.until("the node is ready", lambda: node_ready(w.get("node", NODE)) == "True", seconds=40)
    assert w.containers(NODE)["kept/c"] == second, "a restore costs a resync, never a container"
    assert w.get("configmap", "words")["data"] == {"WORD": "before"}

    # ... and it goes on.
    w.kubectl("apply", "-f", "-", stdin=pod("later", "later"))
    w.until("a pod made after the restore is ready", lambda: pod_ready(w.get("pod", "later")), seconds=40)
    out = w.skerry("replay", "verify", NODE, "--hub", str(w.hub), "--data", str(w.node_dir(NODE)))
    assert out.splitlines()[-1].startswith("equal: ")
    after = w.node_status(NODE)["replica"]["scopes"]
    old = before["scopes"]
    assert all(after[s]["epoch"] != old[s]["epoch"] for s in old)
    assert os.stat(backup).st_mode & 0o777 == 0o600
