"""DaemonSets through the API: a pod on every node that may have one, and rollouts that pass by nodes without a link."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bus.kube.errors import StatusError
from cloud.standalone.controllers import daemonset as controller
from cloud.standalone.view import IndexedView
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, Object, condition


def daemon(name: str = "agent", image: str = "busybox:1", pod: Object | None = None, **spec: Any) -> Object:
    labels = {"app": name}
    containers = [{"name": "c", "image": image}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **(pod or {})}}
    selector = {"matchLabels": labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": selector, "template": template, **spec},
    }


@pytest.fixture
async def three(cluster: Cluster) -> Cluster:
    for i in range(3):
        await cluster.node(f"edge-{i}", labels={"site": f"s{i}"})
    return cluster


async def where(cluster: Cluster) -> dict[str, str]:
    """Node -> image of its only live pod."""
    pods = [p for p in await cluster.list("", "pods") if not p["metadata"].get("deletionTimestamp")]
    counted = Counter(p["spec"].get("nodeName", "") for p in pods)
    assert all(n == 1 for n in counted.values()), counted
    return {p["spec"]["nodeName"]: p["spec"]["containers"][0]["image"] for p in pods}


async def roll(cluster: Cluster, image: str) -> None:
    await cluster.patch("apps", "daemonsets", "agent", {"spec": {"template": daemon(image=image)["spec"]["template"]}})


async def status(cluster: Cluster) -> Object:
    found: Object = (await cluster.get("apps", "daemonsets", "agent"))["status"]
    return found


async def test_a_pod_on_every_node_and_on_each_that_comes(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon())
    await three.settle()
    assert set(await where(three)) == {"edge-0", "edge-1", "edge-2"}
    await three.node("edge-3")
    await three.settle()
    assert set(await where(three)) == {"edge-0", "edge-1", "edge-2", "edge-3"}
    assert await status(three) == {
        "observedGeneration": 1,
        "desiredNumberScheduled": 4,
        "currentNumberScheduled": 4,
        "numberMisscheduled": 0,
        "numberReady": 4,
        "numberAvailable": 4,
        "updatedNumberScheduled": 4,
    }
    (pod, *_) = await three.list("", "pods")
    tolerated = {(t["key"], t["effect"]) for t in pod["spec"]["tolerations"]}
    assert ("node.kubernetes.io/unreachable", "NoExecute") in tolerated and len(tolerated) == 6
    (rev,) = await three.list("apps", "controllerrevisions")
    assert rev["revision"] == 1
    assert pod["metadata"]["labels"]["controller-revision-hash"] == rev["metadata"]["labels"]["controller-revision-hash"]


async def test_selectors_and_taints_of_nodes_decide(three: Cluster) -> None:
    await three.node("dedicated", taints=[{"key": "only", "value": "x", "effect": "NoSchedule"}])
    await three.node("cordoned", unschedulable=True)
    await three.create("apps", "daemonsets", daemon())
    await three.settle()
    assert set(await where(three)) == {"edge-0", "edge-1", "edge-2", "cordoned"}
    await three.patch("", "nodes", "edge-1", {"spec": {"taints": [{"key": "out", "effect": "NoExecute"}]}}, "")
    await three.settle()
    assert set(await where(three)) == {"edge-0", "edge-2", "cordoned"}
    await three.patch("", "nodes", "edge-2", {"spec": {"taints": [{"key": "full", "effect": "NoSchedule"}]}}, "")
    await three.settle()
    assert set(await where(three)) == {"edge-0", "edge-2", "cordoned"}, "NoSchedule evicts nobody"
    assert (await status(three))["numberMisscheduled"] == 1
    await three.patch("", "nodes", "dedicated", {"spec": {"taints": None}}, "")
    await three.settle()
    assert set(await where(three)) == {"edge-0", "edge-2", "cordoned", "dedicated"}
    await three.create("apps", "daemonsets", daemon("one", pod={"nodeSelector": {"site": "s0"}}))
    await three.settle()
    one = [p for p in await three.list("", "pods") if p["metadata"]["labels"]["app"] == "one"]
    assert [p["spec"]["nodeName"] for p in one] == ["edge-0"]


async def test_a_rollout_takes_one_node_at_a_time(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon())
    await three.settle()
    await roll(three, "busybox:2")
    for _ in range(30):
        await three.quiet()
        ready = [p for p in await three.list("", "pods") if condition(p, "Ready").get("status") == "True"]
        assert sum(not p["metadata"].get("deletionTimestamp") for p in ready) >= 2
        if not await three.kubelets():
            break
    assert set((await where(three)).values()) == {"busybox:2"}
    assert sorted(r["revision"] for r in await three.list("apps", "controllerrevisions")) == [1, 2]
    await roll(three, "busybox:1")
    await three.settle()
    assert set((await where(three)).values()) == {"busybox:1"}
    assert sorted(r["revision"] for r in await three.list("apps", "controllerrevisions")) == [2, 3]
    ds = await three.get("apps", "daemonsets", "agent")
    assert ds["metadata"]["annotations"]["deprecated.daemonset.template.generation"] == "3"


async def test_a_node_without_a_link_keeps_its_pod_and_stops_no_rollout(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon())
    await three.settle()
    three.cut = ["edge-1"]
    await three.ready("edge-1", "Unknown")
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    await three.patch("", "nodes", "edge-1", {"spec": {"taints": [taint]}}, "")
    await three.settle()
    assert len(await where(three)) == 3
    await roll(three, "busybox:2")
    await three.settle()
    assert await where(three) == {"edge-0": "busybox:2", "edge-1": "busybox:1", "edge-2": "busybox:2"}
    assert (await status(three))["updatedNumberScheduled"] == 2
    three.cut = []
    await three.patch("", "nodes", "edge-1", {"spec": {"taints": None}}, "")
    await three.ready("edge-1")
    await three.settle()
    assert set((await where(three)).values()) == {"busybox:2"}


async def test_on_delete_waits_for_the_user(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon(updateStrategy={"type": "OnDelete"}))
    await three.settle()
    await roll(three, "busybox:2")
    await three.settle()
    assert set((await where(three)).values()) == {"busybox:1"}
    pod = next(p for p in await three.list("", "pods") if p["spec"]["nodeName"] == "edge-2")
    await three.delete("", "pods", pod["metadata"]["name"])
    await three.settle()
    assert await where(three) == {"edge-0": "busybox:1", "edge-1": "busybox:1", "edge-2": "busybox:2"}


async def test_with_surge_the_new_one_is_ready_before_the_old_one_goes(three: Cluster) -> None:
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    await three.create("apps", "daemonsets", daemon(updateStrategy={"rollingUpdate": rolling}))
    await three.settle()
    await roll(three, "busybox:2")
    for _ in range(30):
        await three.quiet()
        live = [p for p in await three.list("", "pods") if not p["metadata"].get("deletionTimestamp")]
        ready = {p["spec"]["nodeName"] for p in live if condition(p, "Ready").get("status") == "True"}
        assert len(ready) == 3 and len(live) <= 4
        if not await three.kubelets():
            break
    assert set((await where(three)).values()) == {"busybox:2"}


async def test_history_is_kept_to_its_limit(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon(revisionHistoryLimit=1))
    for i in range(2, 6):
        await three.settle()
        await roll(three, f"busybox:{i}")
    await three.settle()
    assert sorted(r["revision"] for r in await three.list("apps", "controllerrevisions")) == [4, 5]


async def test_deleting_it_takes_pods_and_revisions_along(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon())
    await three.settle()
    await three.delete("apps", "daemonsets", "agent", propagation="Foreground")
    await three.settle()
    assert await three.list("", "pods") == [] == await three.list("apps", "controllerrevisions")
    assert await three.list("apps", "daemonsets") == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}, "spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, "spec.updateStrategy.rollingUpdate.maxSurge"),
        ({"updateStrategy": {"type": "Recreate"}}, "spec.updateStrategy"),
        ({"selector": {"matchLabels": {"app": "other"}}}, "spec.template.metadata.labels"),
        ({"minReadySeconds": -1}, "spec.minReadySeconds"),
        ({"pod": {"restartPolicy": "Never"}}, "spec.template.spec.restartPolicy"),
    ],
)
async def test_what_is_invalid(three: Cluster, spec: Object, field: str) -> None:
    with pytest.raises(StatusError) as e:
        await three.create("apps", "daemonsets", daemon(**spec))
    assert e.value.code == 422 and [c["field"] for c in e.value.details["causes"]] == [field]


async def test_a_revision_never_changes_its_data(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon())
    await three.quiet()
    (rev,) = await three.list("apps", "controllerrevisions")
    name = rev["metadata"]["name"]
    with pytest.raises(StatusError, match="immutable"):
        await three.registry.patch("apps", "controllerrevisions", "default", name, {"data": {"x": 1}}, kind="merge", how=HOW)


async def test_what_a_node_says_of_containers_wakes_nobody(three: Cluster) -> None:
    await three.create("apps", "daemonsets", daemon())
    await three.settle()
    key = ("apps", "daemonsets")
    (pod, *_) = three.storage.list("", "pods")
    (ds,) = three.storage.list(*key)
    view = IndexedView(three.storage, three.registry.catalog)
    chatty = {**pod.object, "status": {**pod.object["status"], "containerStatuses": [{"name": "c", "ready": True}]}}
    unready = {**pod.object, "status": {**pod.object["status"], "conditions": []}}
    assert list(controller.concerns(view, replace(pod, object={**chatty}), pod)) != []  # the first count of restarts
    told = replace(pod, object=chatty)
    again = {**chatty, "status": {**chatty["status"], "containerStatuses": [{"name": "c", "ready": False}]}}
    assert list(controller.concerns(view, replace(pod, object=again), told)) == []
    assert set(controller.concerns(view, replace(pod, object=unready), pod)) == {ds.key}
    assert set(controller.concerns(view, None, pod)) == {ds.key}
