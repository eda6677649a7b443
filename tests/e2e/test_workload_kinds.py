"""Daemon sets, jobs and stateful sets on two real nodes: from kubectl to containers, and gone again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.lab import setting
from ops.lab.world import NODES, World, node_ready, pod_ready

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

MANIFEST = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "busybox:1.36", command: [sleep, "100000"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "busybox:1.36", command: [sh, -c, "echo done"]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: "busybox:1.36"
        command: [sh, -c, "echo born >> /data/lives; sleep 100000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    w = World(tmp_path / "lab")
    try:
        setting.hub(w)
        setting.cloud(w)
        for node in NODES:
            setting.join(w, node)
            setting.start_edge(w, node, beat_s=2)
        yield w
    finally:
        setting.down(w)


def _folders(w: World) -> list[str]:
    return sorted(p.name for node in NODES for p in (w.node_dir(node) / "pods" / "volumes").glob("pvc-*"))


def _data_outlives_its_pod(w: World) -> None:
    """What a pod of a stateful set wrote is there for the next one of its name, on the node where it is."""
    before = w.get("pod", "db-0")
    w.kubectl("delete", "pod", "db-0", "--wait=false")

    def reborn() -> bool:
        now = w.get("pod", "db-0")
        return bool(now) and now["metadata"]["uid"] != before["metadata"]["uid"] and pod_ready(now)

    w.until("db-0 is made anew", reborn, seconds=60)
    assert w.kubectl("exec", "db-0", "--", "cat", "/data/lives").split() == ["born", "born"]
    claims = w.get("pvc")["items"]
    assert {c["metadata"]["name"]: c["status"]["phase"] for c in claims} == {"data-db-0": "Bound", "data-db-1": "Bound"}
    assert _folders(w) == sorted(c["spec"]["volumeName"] for c in claims)


def _who_uses_how_much(w: World) -> None:
    nodes = [line.split() for line in w.kubectl("top", "nodes", "--no-headers").splitlines()]
    assert [n[0] for n in nodes] == list(NODES) and all(n[1].endswith("m") and n[3].endswith("Mi") for n in nodes)
    pods = [line.split() for line in w.kubectl("top", "pods", "--no-headers", "--containers").splitlines()]
    assert {p[0] for p in pods} >= {"db-0", "db-1"} and {p[1] for p in pods} == {"c"}
    assert [p[0] for p in pods if p[0].startswith("once-")] == [], "what has ended uses nothing"
    assert w.kubectl("top", "pod", "db-0", "--no-headers").split()[0] == "db-0"


def test_daemon_set_job_and_stateful_set_run_on_nodes_and_go(world: World) -> None:
    w = world
    w.until("two Ready nodes", lambda: sum(node_ready(n) == "True" for n in w.get("nodes").get("items", [])) == 2)
    w.kubectl("apply", "-f", "-", stdin=MANIFEST)
    w.kubectl("rollout", "status", "daemonset/agent", "--timeout=55s")
    w.kubectl("wait", "--for=condition=complete", "job/once", "--timeout=55s")
    w.kubectl("rollout", "status", "statefulset/db", "--timeout=55s")
    pods = {p["metadata"]["name"]: p for p in w.pods()}
    assert {"db-0", "db-1"} <= set(pods) and all(pod_ready(pods[n]) for n in ("db-0", "db-1"))
    assert sorted(p["spec"]["nodeName"] for n, p in pods.items() if n.startswith("agent-")) == list(NODES)
    assert sum(p["status"]["phase"] == "Succeeded" for n, p in pods.items() if n.startswith("once-")) == 3
    assert w.kubectl("logs", "job/once").strip() == "done"
    _data_outlives_its_pod(w)
    _who_uses_how_much(w)
    w.kubectl("delete", "job/once", "daemonset/agent", "statefulset/db")
    w.until("all pods are gone", lambda: not w.pods(), seconds=60)
    w.kubectl("delete", "pvc", "--all")
    w.until("the volumes are gone, and their folders before them", lambda: not w.get("pv").get("items"), seconds=60)
    assert _folders(w) == []
    # Pods without grace are gone from the API at once, as on any cluster; their containers follow.
    w.until("and their containers with them", lambda: not any(w.containers(node) for node in NODES), seconds=60)
