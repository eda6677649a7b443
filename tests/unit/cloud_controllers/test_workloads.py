"""Deployments and ReplicaSets through the API: made, scaled, rolled, rolled back, stuck, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import event as events
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, Object, condition, deployment, pod


async def images(cluster: Cluster) -> list[str]:
    pods = [p for p in await cluster.list("", "pods") if not p["metadata"].get("deletionTimestamp")]
    return sorted(p["spec"]["containers"][0]["image"] for p in pods)


@pytest.fixture
async def two(cluster: Cluster) -> Cluster:
    await cluster.node("edge-1")
    await cluster.node("edge-2")
    return cluster


async def web(cluster: Cluster) -> Object:
    return await cluster.get("apps", "deployments", "web")


async def test_a_deployment_becomes_running_pods_on_both_nodes(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=4))
    await two.settle()
    pods = await two.list("", "pods")
    assert sorted(p["spec"]["nodeName"] for p in pods) == ["edge-1", "edge-1", "edge-2", "edge-2"]
    (rs,) = await two.list("apps", "replicasets")
    d = await web(two)
    assert {k: v for k, v in d["status"].items() if k != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 4,
        "updatedReplicas": 4,
        "readyReplicas": 4,
        "availableReplicas": 4,
    }
    assert condition(d, "Available")["status"] == "True"
    assert condition(d, "Progressing")["reason"] == "NewReplicaSetAvailable"
    assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    owner = pods[0]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ReplicaSet", rs["metadata"]["uid"], True)
    hashed = rs["metadata"]["labels"]["pod-template-hash"]
    assert rs["metadata"]["name"] == f"web-{hashed}" and pods[0]["metadata"]["name"].startswith(f"web-{hashed}-")
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hashed}


async def test_writes_name_who_made_them_and_why(two: Cluster) -> None:
    """One chain from the user's write to the pod on its node."""
    made = await two.create("apps", "deployments", deployment(replicas=1))
    await two.quiet()
    (p,) = two.storage.list("", "pods")
    first = events.uuid7(rev := int(made["metadata"]["resourceVersion"]) * 1000, (rev // 1000).to_bytes(10, "big"))
    assert p.object["spec"]["nodeName"] and p.trace == first
    actors = {o.actor for o in two.storage.origins.values()}
    assert {"admin", "system:controller:deployment", "system:controller:replicaset", "system:controller:scheduler"} <= actors


async def test_a_deleted_pod_is_made_again_and_scaling_removes_the_least_needed(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=3))
    await two.settle()
    gone = (await two.list("", "pods"))[0]["metadata"]["name"]
    await two.delete("", "pods", gone)
    await two.quiet()
    running = {p["metadata"]["name"] for p in await two.list("", "pods") if p["status"].get("phase") == "Running"}
    await two.patch("apps", "deployments", "web", {"spec": {"replicas": 2}})
    await two.settle()
    left = {p["metadata"]["name"] for p in await two.list("", "pods")}
    assert left == running - {gone}, "the replacement, not yet running, went first"


async def test_a_rolling_update_never_falls_below_what_is_allowed(two: Cluster) -> None:
    roll = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    await two.create("apps", "deployments", deployment(replicas=4, strategy=roll))
    await two.settle()
    await two.patch("apps", "deployments", "web", {"metadata": {"annotations": {"kubernetes.io/change-cause": "b"}}})
    patch = deployment(image="busybox:2")["spec"]["template"]
    await two.patch("apps", "deployments", "web", {"spec": {"template": patch}})
    for _ in range(40):
        await two.quiet()
        pods = [p for p in await two.list("", "pods") if not p["metadata"].get("deletionTimestamp")]
        ready = [p for p in pods if condition(p, "Ready").get("status") == "True"]
        assert len(ready) >= 3 and len(pods) <= 5
        if not await two.kubelets():
            break
    assert await images(two) == ["busybox:2"] * 4
    sets = {rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs for rs in await two.list("apps", "replicasets")}
    assert (sets["busybox:1"]["spec"]["replicas"], sets["busybox:2"]["spec"]["replicas"]) == (0, 4)
    assert sets["busybox:2"]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    assert sets["busybox:2"]["metadata"]["annotations"]["kubernetes.io/change-cause"] == "b"
    # And back: the old set is used again, as revision 3.
    await two.patch("apps", "deployments", "web", {"spec": {"template": deployment()["spec"]["template"]}})
    await two.settle()
    assert await images(two) == ["busybox:1"] * 4 and len(await two.list("apps", "replicasets")) == 2
    assert (await web(two))["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


async def test_a_rollout_that_does_not_come_up_stops_and_says_so(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=4, progressDeadlineSeconds=1, minReadySeconds=0))
    await two.settle()
    await two.patch("apps", "deployments", "web", {"spec": {"template": deployment(image="bad")["spec"]["template"]}})
    await two.settle(healthy=lambda p: p["spec"]["containers"][0]["image"] != "bad")
    assert (await images(two)).count("busybox:1") == 3, "25 % of four may be missing, no more"

    def late() -> bool:
        d = two.storage.list("apps", "deployments")[0].object
        return bool(condition(d, "Progressing")["reason"] == "ProgressDeadlineExceeded")

    await two.until(late)
    assert condition(await web(two), "Available")["status"] == "True"


async def test_recreate_ends_the_old_before_the_new_begins(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=2, strategy={"type": "Recreate"}))
    await two.settle()
    await two.patch("apps", "deployments", "web", {"spec": {"template": deployment(image="busybox:2")["spec"]["template"]}})
    await two.quiet()
    assert await images(two) == [] and len(await two.list("", "pods")) == 2, "still ending"
    await two.settle()
    assert await images(two) == ["busybox:2"] * 2


async def test_old_revisions_are_forgotten_beyond_the_limit(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=1, revisionHistoryLimit=2))
    for i in range(2, 7):
        await two.settle()
        template = deployment(image=f"busybox:{i}")["spec"]["template"]
        await two.patch("apps", "deployments", "web", {"spec": {"template": template}})
    await two.settle()
    kept = [rs["spec"]["template"]["spec"]["containers"][0]["image"] for rs in await two.list("apps", "replicasets")]
    assert sorted(kept) == ["busybox:4", "busybox:5", "busybox:6"]


async def test_a_paused_deployment_scales_but_does_not_roll(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=1))
    await two.settle()
    template = deployment(image="busybox:2")["spec"]["template"]
    await two.patch("apps", "deployments", "web", {"spec": {"paused": True, "template": template}})
    await two.settle()
    assert await images(two) == ["busybox:1"]
    await two.patch("apps", "deployments", "web", {"spec": {"paused": False}})
    await two.settle()
    assert await images(two) == ["busybox:2"]


async def test_a_hash_that_is_taken_is_counted_past(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=1))
    await two.settle()
    (rs,) = await two.list("apps", "replicasets")
    other = deployment("other")
    await two.delete("apps", "deployments", "web", propagation="Foreground")
    await two.settle()
    squatter = {**rs, "metadata": {"name": rs["metadata"]["name"]}, "spec": {**other["spec"], "replicas": 0}}
    await two.create("apps", "replicasets", {k: v for k, v in squatter.items() if k != "status"})
    await two.create("apps", "deployments", deployment(replicas=1))
    await two.settle()
    assert (await web(two))["status"]["collisionCount"] == 1 and await images(two) == ["busybox:1"]


async def test_a_replica_set_adopts_what_it_picks_and_lets_go_of_what_it_does_not(two: Cluster) -> None:
    await two.create("", "pods", pod("stray", metadata={"labels": {"app": "rs"}}))
    spec: dict[str, Any] = deployment("rs", replicas=2)["spec"]
    rs = await two.create(
        "apps", "replicasets", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs"}, "spec": spec}
    )
    await two.settle()
    assert len(await two.list("", "pods")) == 2
    stray = await two.get("", "pods", "stray")
    assert stray["metadata"]["ownerReferences"][0]["uid"] == rs["metadata"]["uid"]
    await two.patch("", "pods", "stray", {"metadata": {"labels": {"app": "mine-now"}}})
    await two.settle()
    assert "ownerReferences" not in (await two.get("", "pods", "stray"))["metadata"]
    assert len(await two.list("", "pods")) == 3


async def test_a_replication_controller_keeps_its_pods(two: Cluster) -> None:
    await two.create("", "pods", pod("stray", metadata={"labels": {"app": "rc"}}))
    template = deployment("rc")["spec"]["template"]
    rc = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc"}}
    made = await two.create("", "replicationcontrollers", {**rc, "spec": {"replicas": 3, "template": template}})
    assert made["spec"]["selector"] == {"app": "rc"}
    await two.settle()
    pods = await two.list("", "pods")
    assert {p["metadata"]["ownerReferences"][0]["uid"] for p in pods} == {made["metadata"]["uid"]}
    status = (await two.get("", "replicationcontrollers", "rc"))["status"]
    assert status == {
        **dict.fromkeys(("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"), 3),
        "observedGeneration": 1,
    }
    await two.patch("", "replicationcontrollers", "rc", {"spec": {"replicas": 1}})
    await two.settle()
    assert len(await two.list("", "pods")) == 1


async def test_sets_are_told_how_many_the_whole_has(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=3))
    await two.settle()
    for replicas in (3, 5):
        await two.patch("apps", "deployments", "web", {"spec": {"replicas": replicas}})
        await two.settle()
        (rs,) = await two.list("apps", "replicasets")
        told = {k.rpartition("/")[2]: v for k, v in rs["metadata"]["annotations"].items()}
        surge = -(-replicas // 4)
        assert told == {"revision": "1", "desired-replicas": str(replicas), "max-replicas": str(replicas + surge)}


async def test_a_pod_behind_a_cut_link_is_neither_replaced_nor_available(two: Cluster) -> None:
    await two.create("apps", "deployments", deployment(replicas=2))
    await two.settle()
    cut = (await two.list("", "pods"))[0]
    status = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "LinkLost"}]}
    await two.registry.patch("", "pods", "default", cut["metadata"]["name"], {"status": status}, kind="merge",
                             how=HOW, subresource="status")  # fmt: skip
    await two.settle()
    d = await web(two)
    assert (d["status"]["replicas"], d["status"]["availableReplicas"], d["status"]["unavailableReplicas"]) == (2, 1, 1)
    assert len(await two.list("", "pods")) == 2


async def test_min_ready_seconds_are_waited_for(two: Cluster) -> None:
    await two.create(
        "apps", "deployments", deployment(replicas=1, minReadySeconds=2**31 - 2, progressDeadlineSeconds=2**31 - 1)
    )
    await two.settle()
    d = await web(two)
    assert d["status"]["readyReplicas"] == 1 and "availableReplicas" not in d["status"]
    assert condition(d, "Available")["status"] == "False"
