"""A node whose link is cut for longer than its pods tolerate, under the cluster's own node lifecycle and taint eviction."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from bus import stamp
from bus.kube import times
from schemas import times as schema_times
from tests.contract.any_cluster.conftest import Site, sleeper, template, workload

pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]
UNREACHABLE = "node.kubernetes.io/unreachable"
TOLERATED_S = 3
SOON = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_S}


@contextlib.contextmanager
def another_node(site: Site) -> Iterator[str]:
    """One that is alive: a cluster all of whose nodes are silent evicts nothing (its own rule)."""
    name = f"plain-{secrets.token_hex(4)}"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as a test says"}
    site.make({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    over = threading.Event()

    def beat() -> None:
        while True:
            now = times.micro(schema_times.rfc3339(stamp.now_us()))
            status = {"status": {"conditions": [{**ready, "lastHeartbeatTime": now[:19] + "Z"}]}}
            site.run("patch", "node", name, "--subresource=status", "--type=merge", "-p", yaml.safe_dump(status))
            if over.wait(5):
                return

    thread = threading.Thread(target=beat, name="another node")
    thread.start()
    try:
        yield name
    finally:
        over.set()
        thread.join()
        site.ok("delete", "node", name)


def taints(site: Site, node: str) -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in site.get("node", node)["spec"].get("taints") or ()}


def lives(site: Site, namespace: str) -> dict[str, Any]:
    """Container -> (id, start)."""
    found = site.world.containers(site.node)
    names = {p["metadata"]["name"] for p in site.get("-n", namespace, "pods").get("items", [])}
    return {k: v for k, v in found.items() if k.split("/")[0] in names}


def test_pods_stay_through_a_cut_and_are_not_rebuilt(site: Site) -> None:
    with site.namespace() as n, another_node(site) as plain:
        for app, node in (("stays", site.node), ("goes", plain)):
            pod = template(app, sleeper(), tolerations=[SOON], nodeSelector={"kubernetes.io/hostname": node})
            if node == plain:  # it has no kubelet to run it, and no labels to be chosen by
                pod["spec"] |= {"nodeName": plain, "nodeSelector": {}}
            site.make(workload("Deployment", n, app, pod))
        before = site.ready(n, "stays", 1)[0]
        site.until("the other is bound", lambda: len(site.pods_of(n, "goes")) == 1)
        goes = site.pods_of(n, "goes")[0]["metadata"]["name"]
        site.until("the toleration", lambda: _seconds(site, n) == [None])
        running = lives(site, n)
        assert len(running) == 2, "a sandbox and a container"
        site.wire.cut()
        try:
            site.node_is("Unknown")
            both = {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
            site.until("the cluster's own taints", lambda: both <= taints(site, site.node))
            # The other node gets the same taint later, and its pod with the same toleration goes: time enough has passed.
            site.ok("taint", "node", plain, f"{UNREACHABLE}=:NoExecute")
            site.until("the other is evicted", lambda: not _there(site, n, goes))
            now = site.pods_of(n, "stays")
            assert [p["metadata"]["uid"] for p in now] == [before["metadata"]["uid"]]
            assert "deletionTimestamp" not in now[0]["metadata"]
            site.ok("-n", n, "scale", "deployment/goes", "--replicas=0")
            site.ok("-n", n, "annotate", "pod", now[0]["metadata"]["name"], "example.com/said=meanwhile")
        finally:
            site.wire.heal()
        site.node_is("True")
        site.until("the taints are gone", lambda: not taints(site, site.node))
        after = site.ready(n, "stays", 1)[0]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert lives(site, n) == running, "the same containers, never stopped"
        assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def test_an_autonomy_that_is_over_gives_the_pods_back_to_the_cluster(site: Site) -> None:
    with site.namespace() as n, another_node(site):
        site.ok("annotate", "node", site.node, "skerry.io/autonomy=4s")
        try:
            pod = template("app", sleeper(), tolerations=[SOON], terminationGracePeriodSeconds=1)
            site.make(workload("Deployment", n, "app", pod))
            before = site.ready(n, "app", 1)[0]["metadata"]
            site.until("the toleration", lambda: _seconds(site, n) == [4 + TOLERATED_S])
            site.wire.cut()
            try:
                site.until("it is evicted", lambda: _ending(site, n, before["name"]))
                site.until("another waits for a node", lambda: len(site.pods_of(n, "app")) == 2)
                assert lives(site, n), "what runs behind the cut goes on"
            finally:
                site.wire.heal()
            site.until("the old one is gone", lambda: not _there(site, n, before["name"]))
            assert site.ready(n, "app", 1)[0]["metadata"]["uid"] != before["uid"]
        finally:
            site.ok("annotate", "node", site.node, "skerry.io/autonomy-")


def _seconds(site: Site, namespace: str) -> list[Any]:
    return [
        t.get("tolerationSeconds")
        for p in site.get("-n", namespace, "pods").get("items", [])
        if p["spec"].get("nodeName") == site.node
        for t in p["spec"]["tolerations"]
        if t.get("key") == UNREACHABLE
    ]


def _there(site: Site, namespace: str, pod: str) -> bool:
    return bool(site.get("-n", namespace, "pod", pod))


def _ending(site: Site, namespace: str, pod: str) -> bool:
    return "deletionTimestamp" in site.get("-n", namespace, "pod", pod).get("metadata", {})
