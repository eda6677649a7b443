"""StatefulSets through the API: numbers, order, rollouts from the top, partitions, and numbers behind a cut link."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.errors import StatusError
from tests.unit.cloud_controllers.kubelets import Cluster, Object


def stateful(replicas: int = 3, image: str = "busybox:1", **spec: Any) -> Object:
    labels = {"app": "db"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec = {"serviceName": "db", "replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}


@pytest.fixture
async def two(cluster: Cluster) -> Cluster:
    await cluster.node("edge-1")
    await cluster.node("edge-2")
    return cluster


async def images(cluster: Cluster) -> dict[str, str]:
    pods = [p for p in await cluster.list("", "pods") if not p["metadata"].get("deletionTimestamp")]
    return {p["metadata"]["name"]: p["spec"]["containers"][0]["image"].removeprefix("busybox:") for p in pods}


async def spec(cluster: Cluster, **changed: Any) -> None:
    await cluster.patch("apps", "statefulsets", "db", {"spec": changed})


async def status(cluster: Cluster) -> Object:
    found: Object = (await cluster.get("apps", "statefulsets", "db"))["status"]
    return found


async def test_pods_come_in_order_and_go_in_the_opposite_one(two: Cluster) -> None:
    await two.create("apps", "statefulsets", stateful())
    for expected in (["db-0"], ["db-0", "db-1"], ["db-0", "db-1", "db-2"]):
        await two.quiet()
        assert sorted(await images(two)) == expected
        await two.kubelets()
    await two.settle()
    s = await status(two)
    assert (s["replicas"], s["readyReplicas"], s["currentReplicas"], s["updatedReplicas"]) == (3, 3, 3, 3)
    assert s["currentRevision"] == s["updateRevision"]
    pod = await two.get("", "pods", "db-1")
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
    assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    await spec(two, replicas=1)
    await two.quiet()
    assert sorted(await images(two)) == ["db-0", "db-1"], "db-1 waits until db-2 is gone"
    await two.settle()
    assert sorted(await images(two)) == ["db-0"]


async def test_in_parallel_nobody_waits(two: Cluster) -> None:
    await two.create("apps", "statefulsets", stateful(podManagementPolicy="Parallel", ordinals={"start": 5}))
    await two.quiet()
    assert sorted(await images(two)) == ["db-5", "db-6", "db-7"]
    await two.settle()
    await spec(two, replicas=0)
    await two.quiet()
    assert await images(two) == {}


async def test_a_rollout_goes_from_the_top_and_stops_at_what_is_not_ready(two: Cluster) -> None:
    await two.create("apps", "statefulsets", stateful())
    await two.settle()
    await spec(two, template=stateful(image="busybox:2")["spec"]["template"])
    healthy = {"healthy": lambda p: p["metadata"]["name"] != "db-1" or p["spec"]["containers"][0]["image"] == "busybox:1"}
    await two.settle(**healthy)
    assert await images(two) == {"db-0": "1", "db-1": "2", "db-2": "2"}
    s = await status(two)
    assert s["currentRevision"] != s["updateRevision"] and (s["currentReplicas"], s["updatedReplicas"]) == (1, 2)
    await two.delete("", "pods", "db-1")
    await two.settle()
    assert set((await images(two)).values()) == {"2"}
    s = await status(two)
    assert s["currentRevision"] == s["updateRevision"] and s["currentReplicas"] == 3


async def test_below_the_partition_the_old_template_stays(two: Cluster) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    await two.create("apps", "statefulsets", stateful(updateStrategy=rolling))
    await two.settle()
    await spec(two, template=stateful(image="busybox:2")["spec"]["template"])
    await two.settle()
    assert await images(two) == {"db-0": "1", "db-1": "1", "db-2": "2"}
    await two.delete("", "pods", "db-0")
    await two.settle()
    assert (await images(two))["db-0"] == "1", "made again as it was"
    await spec(two, updateStrategy={"rollingUpdate": {"partition": 0}})
    await two.settle()
    assert set((await images(two)).values()) == {"2"}


async def test_on_delete_only_the_deleted_is_new(two: Cluster) -> None:
    await two.create("apps", "statefulsets", stateful(updateStrategy={"type": "OnDelete"}))
    await two.settle()
    await spec(two, template=stateful(image="busybox:2")["spec"]["template"])
    await two.delete("", "pods", "db-1")
    await two.settle()
    assert await images(two) == {"db-0": "1", "db-1": "2", "db-2": "1"}


async def test_a_number_behind_a_cut_link_is_not_given_away(two: Cluster) -> None:
    await two.create("apps", "statefulsets", stateful())
    await two.settle()
    pod = await two.get("", "pods", "db-1")
    two.cut = [pod["spec"]["nodeName"]]
    await two.ready(two.cut[0], "Unknown")
    await two.delete("", "pods", "db-1")
    await two.settle()
    still = await two.get("", "pods", "db-1")
    assert still["metadata"]["uid"] == pod["metadata"]["uid"] and still["metadata"]["deletionTimestamp"]
    two.cut = []
    await two.ready(still["spec"]["nodeName"])
    await two.settle()
    assert (await two.get("", "pods", "db-1"))["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_each_pod_has_its_own_claims(two: Cluster) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await two.create("apps", "statefulsets", stateful(volumeClaimTemplates=[claim], podManagementPolicy="Parallel"))
    await two.quiet()
    claims = {c["metadata"]["name"]: c for c in await two.list("", "persistentvolumeclaims")}
    assert sorted(claims) == ["data-db-0", "data-db-1", "data-db-2"]
    assert claims["data-db-0"]["metadata"]["labels"] == {"app": "db"}
    pod = await two.get("", "pods", "db-1")
    assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]


async def test_what_may_not_change(two: Cluster) -> None:
    await two.create("apps", "statefulsets", stateful())
    with pytest.raises(StatusError, match="updates to statefulset spec for fields other than 'replicas'"):
        await spec(two, serviceName="other")
    with pytest.raises(StatusError, match="podManagementPolicy"):
        await two.create("apps", "statefulsets", {**stateful(podManagementPolicy="Any"), "metadata": {"name": "x"}})
