"""Disruption budgets: how many may go, and what an eviction is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus.kube.errors import StatusError
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, condition, deployment, pod

Object = dict[str, Any]


def budget(name: str = "pdb", app: str = "web", **spec: Any) -> Object:
    meta = {"name": name}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
    }


async def evict(cluster: Cluster, name: str, **options: Any) -> None:
    meta = {"name": name, "namespace": "default"}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta, "deleteOptions": options}
    await cluster.registry.create("", "pods", "default", body, how=HOW, name=name, subresource="eviction")


async def status(cluster: Cluster, name: str = "pdb") -> tuple[int, int, int, int]:
    await cluster.quiet()
    s = (await cluster.get("policy", "poddisruptionbudgets", name))["status"]
    return s["expectedPods"], s["desiredHealthy"], s["currentHealthy"], s["disruptionsAllowed"]


@pytest.fixture
async def web(cluster: Cluster) -> Cluster:
    await cluster.node("a")
    await cluster.node("b")
    await cluster.create("apps", "deployments", deployment(replicas=4))
    await cluster.settle()
    return cluster


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({"minAvailable": 3}, (4, 3, 4, 1)),
        ({"minAvailable": "50%"}, (4, 2, 4, 2)),
        ({"minAvailable": "51%"}, (4, 3, 4, 1)),
        ({"maxUnavailable": 1}, (4, 3, 4, 1)),
        ({"maxUnavailable": "30%"}, (4, 2, 4, 2)),
        ({"minAvailable": 5}, (4, 5, 4, 0)),
        ({"maxUnavailable": 9}, (4, 0, 4, 4)),
        ({}, (4, 0, 4, 4)),
    ],
)
async def test_how_many_may_go(web: Cluster, spec: Object, counts: tuple[int, int, int, int]) -> None:
    await web.create("policy", "poddisruptionbudgets", budget(**spec))
    assert await status(web) == counts
    said = condition(await web.get("policy", "poddisruptionbudgets", "pdb"), "DisruptionAllowed")
    assert said["status"] == str(counts[3] > 0)


async def test_an_eviction_takes_from_the_budget_and_a_replacement_gives_back(web: Cluster) -> None:
    await web.create("policy", "poddisruptionbudgets", budget(minAvailable=3))
    await web.quiet()
    first, second, *_ = [p["metadata"]["name"] for p in await web.list("", "pods")]
    await evict(web, first, dryRun=["All"])
    await evict(web, first)
    why = condition(await web.get("", "pods", first), "DisruptionTarget")
    assert (why["status"], why["reason"]) == ("True", "EvictionByEvictionAPI")
    with pytest.raises(StatusError) as refused:
        await evict(web, second)
    assert refused.value.code == 429
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    await web.quiet()
    with pytest.raises(StatusError) as refused:
        await evict(web, second)
    (cause,) = refused.value.details["causes"]
    assert cause["message"] == "The disruption budget pdb needs 3 healthy pods and has 3 currently"
    await web.settle()
    assert await status(web) == (4, 3, 4, 1)
    await evict(web, second)


async def test_two_drains_at_once_take_no_more_than_there_are(web: Cluster) -> None:
    await web.create("policy", "poddisruptionbudgets", budget(minAvailable=2))
    await web.quiet()
    names = [p["metadata"]["name"] for p in await web.list("", "pods")]
    done = await asyncio.gather(*(evict(web, n) for n in names), return_exceptions=True)
    assert [d.code for d in done if isinstance(d, StatusError)] == [429, 429] and done.count(None) == 2


async def test_pods_that_serve_nobody_are_in_no_budget(cluster: Cluster) -> None:
    await cluster.create("", "pods", pod("waits", metadata={"labels": {"app": "web"}}))
    await cluster.create("policy", "poddisruptionbudgets", budget(minAvailable=1))
    await cluster.quiet()
    await evict(cluster, "waits")
    await cluster.quiet()
    assert await cluster.list("", "pods") == []


@pytest.mark.parametrize(("policy", "goes"), [("AlwaysAllow", True), ("IfHealthyBudget", False), (None, False)])
async def test_a_pod_that_is_broken_anyway(cluster: Cluster, policy: str | None, goes: bool) -> None:
    await cluster.node("a")
    await cluster.create("apps", "deployments", deployment(replicas=2))
    await cluster.settle(healthy=lambda p: False)
    own = {"unhealthyPodEvictionPolicy": policy} if policy else {}
    await cluster.create("policy", "poddisruptionbudgets", budget(minAvailable=1, **own))
    assert await status(cluster) == (2, 1, 0, 0)
    name = (await cluster.list("", "pods"))[0]["metadata"]["name"]
    if goes:
        await evict(cluster, name)
    else:
        with pytest.raises(StatusError, match="disruption budget"):
            await evict(cluster, name)


async def test_two_budgets_for_one_pod_are_one_too_many(web: Cluster) -> None:
    for name in ("a", "b"):
        await web.create("policy", "poddisruptionbudgets", budget(name, minAvailable=1))
    await web.quiet()
    with pytest.raises(StatusError, match="more than one PodDisruptionBudget"):
        await evict(web, (await web.list("", "pods"))[0]["metadata"]["name"])


async def test_a_share_of_what_has_no_scale_is_told(cluster: Cluster) -> None:
    await cluster.node("a")
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}
    ds = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}}
    await cluster.create("apps", "daemonsets", {**ds, "spec": {"selector": {"matchLabels": labels}, "template": template}})
    await cluster.settle()
    await cluster.create("policy", "poddisruptionbudgets", budget(maxUnavailable=1))
    assert (await status(cluster))[3] == 0
    said = condition(await cluster.get("policy", "poddisruptionbudgets", "pdb"), "DisruptionAllowed")
    assert (said["reason"], said["message"]) == ("SyncFailed", "daemonsets does not implement the scale subresource")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"minAvailable": 1, "maxUnavailable": 1}, "cannot be both set"),
        ({"minAvailable": -1}, "must be greater than or equal to 0"),
        ({"maxUnavailable": "101%"}, "must not be greater than 100%"),
        ({"maxUnavailable": "x"}, "a valid percent string"),
        ({"unhealthyPodEvictionPolicy": "Maybe"}, 'supported values: "AlwaysAllow", "IfHealthyBudget"'),
    ],
)
async def test_budgets_that_make_no_sense(cluster: Cluster, spec: Object, why: str) -> None:
    with pytest.raises(StatusError, match=why):
        await cluster.create("policy", "poddisruptionbudgets", budget(**spec))
