"""Nodes that can't run pods, or can't be heard: who leaves, when, and who stays."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cloud.standalone.controllers import autonomy, node_lifecycle, podgc, taint_eviction, taints
from cloud.standalone.controllers.base import NODES, PODS
from cloud.standalone.view import IndexedView
from schemas import times
from schemas.subjects import ObjectKey
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, condition, deployment, pod

Object = dict[str, Any]
ALWAYS = {"key": taints.NOT_READY, "operator": "Exists", "effect": "NoExecute"}


async def said(cluster: Cluster, name: str, status: str, reason: str, *, ago_s: int = 0) -> None:
    since = times.rfc3339(time.time_ns() // 1000 - ago_s * times.US_PER_S)
    ready = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": since}
    node = await cluster.get("", "nodes", name, "")
    node["status"]["conditions"] = [ready]
    await cluster.registry.update("", "nodes", "", name, node, how=HOW, subresource="status")
    await cluster.quiet()


async def driving(cluster: Cluster, name: str) -> list[str]:
    return [t["key"] for t in taints.driving(await cluster.get("", "nodes", name, ""))]


async def taint(cluster: Cluster, name: str, *given: Object) -> None:
    await cluster.patch("", "nodes", name, {"spec": {"taints": list(given)}}, "")
    await cluster.quiet()


def plan(cluster: Cluster, module: Any, key: ObjectKey, *, after_s: int) -> Any:
    view = IndexedView(cluster.storage, cluster.registry.catalog)
    return module.reconcile(view, key, time.time_ns() // 1000 + after_s * times.US_PER_S)


async def test_a_node_that_is_cut_off_keeps_its_pods_however_long_it_lasts(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.create("", "pods", pod("p"))
    await cluster.settle()
    await said(cluster, "a", "Unknown", "LinkLost", ago_s=365 * 86400)
    assert await driving(cluster, "a") == []
    later = plan(cluster, node_lifecycle, ObjectKey(*NODES, "", "a"), after_s=10**8)
    assert not later.writes and later.again_us is None
    assert not (await cluster.get("", "pods", "p"))["metadata"].get("deletionTimestamp")


async def test_after_the_autonomy_that_was_agreed_it_is_given_up(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.create("apps", "deployments", deployment(replicas=1))
    await cluster.settle()
    (there,) = await cluster.list("", "pods")
    cluster.cut = ["a"]
    await cluster.node("b")
    await cluster.patch("", "nodes", "a", {"metadata": {"annotations": {autonomy.ANNOTATION: "1h"}}}, "")
    await said(cluster, "a", "Unknown", "LinkLost", ago_s=1800)
    assert await driving(cluster, "a") == []
    waiting = plan(cluster, node_lifecycle, ObjectKey(*NODES, "", "a"), after_s=0)
    assert 1795 < waiting.again_us / 1e6 <= 1801
    await said(cluster, "a", "Unknown", "LinkLost", ago_s=3605)
    assert await driving(cluster, "a") == [taints.UNREACHABLE]
    key = ObjectKey(*PODS, "default", there["metadata"]["name"])
    assert 295 < plan(cluster, taint_eviction, key, after_s=0).again_us / 1e6 <= 300  # the pod's own time begins
    verbs = [(w.verb, w.key.resource) for w in plan(cluster, taint_eviction, key, after_s=301).writes]
    assert verbs == [("create", "events"), ("status", "pods"), ("delete", "pods")]


async def test_a_node_that_is_heard_again_in_time_loses_nothing(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.create("apps", "deployments", deployment(replicas=2))
    await cluster.settle()
    before = [p["metadata"]["uid"] for p in await cluster.list("", "pods")]
    await cluster.patch("", "nodes", "a", {"metadata": {"annotations": {autonomy.ANNOTATION: "5m"}}}, "")
    await said(cluster, "a", "Unknown", "LinkLost", ago_s=301)
    assert await driving(cluster, "a") == [taints.UNREACHABLE]
    await said(cluster, "a", "True", "EdgeReady")
    assert await driving(cluster, "a") == []
    await cluster.settle()
    assert [p["metadata"]["uid"] for p in await cluster.list("", "pods")] == before


async def test_a_node_that_says_it_is_not_ready_is_tainted_and_left_after_the_default_time(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.create("", "pods", pod("p"))
    await cluster.create("", "pods", pod("stays", tolerations=[ALWAYS]))
    await cluster.create("", "pods", pod("soon", tolerations=[{**ALWAYS, "tolerationSeconds": 0}]))
    await cluster.settle()
    await said(cluster, "a", "False", "EngineDown")
    assert await driving(cluster, "a") == [taints.NOT_READY]
    await cluster.settle()
    assert [p["metadata"]["name"] for p in await cluster.list("", "pods")] == ["p", "stays"]
    assert plan(cluster, taint_eviction, ObjectKey(*PODS, "default", "p"), after_s=302).writes
    assert not plan(cluster, taint_eviction, ObjectKey(*PODS, "default", "stays"), after_s=10**8).writes
    (event,) = [e for e in await cluster.list("", "events") if e["reason"] == "TaintManagerEviction"]
    assert event["involvedObject"]["name"] == "soon" and event["type"] == "Normal"


async def test_what_people_taint_is_left_at_once(cluster: Cluster) -> None:
    await cluster.node("a")
    for name, tolerations in (
        ("p", []),
        ("hour", [{"key": "repair", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3600}]),
        ("other", [{"key": "repair", "value": "x", "effect": "NoExecute"}]),
        ("all", [{"operator": "Exists"}]),
    ):
        await cluster.create("", "pods", pod(name, tolerations=tolerations))
    await cluster.settle()
    await taint(cluster, "a", {"key": "repair", "effect": "NoExecute"})
    leaving = [p for p in await cluster.list("", "pods") if p["metadata"].get("deletionTimestamp")]
    assert [p["metadata"]["name"] for p in leaving] == ["other", "p"]
    why = condition(leaving[1], "DisruptionTarget")
    assert (why["status"], why["reason"]) == ("True", "DeletionByTaintManager")
    (given,) = taints.driving(await cluster.get("", "nodes", "a", ""))
    assert given["timeAdded"]  # from which tolerationSeconds count, whoever restarts meanwhile
    key = ObjectKey(*PODS, "default", "hour")
    assert not plan(cluster, taint_eviction, key, after_s=3590).writes
    assert plan(cluster, taint_eviction, key, after_s=3605).writes
    await taint(cluster, "a")
    assert not plan(cluster, taint_eviction, key, after_s=10**8).writes


async def test_out_of_service_frees_what_a_dead_node_would_have_to_confirm(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.create("", "pods", pod("p"))
    await cluster.settle()
    await said(cluster, "a", "Unknown", "LinkLost", ago_s=60)
    dead = {"key": taints.OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    await taint(cluster, "a", dead)
    assert (await cluster.get("", "pods", "p"))["metadata"]["deletionTimestamp"]
    (freed,) = plan(cluster, podgc, ObjectKey(*PODS, "default", "p"), after_s=0).writes
    assert (freed.verb, freed.grace_s) == ("delete", 0)
    await said(cluster, "a", "True", "EdgeReady")  # it lives after all: it will confirm by itself
    assert not plan(cluster, podgc, ObjectKey(*PODS, "default", "p"), after_s=0).writes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8h", 28800),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("8", None),
        ("h", None),
        ("-1h", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert autonomy.duration_us(text) == (None if seconds is None else round(seconds * 1e6))


async def test_a_bad_autonomy_is_told_and_means_for_ever(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.patch("", "nodes", "a", {"metadata": {"annotations": {autonomy.ANNOTATION: "soon"}}}, "")
    await said(cluster, "a", "Unknown", "LinkLost", ago_s=10**6)
    assert await driving(cluster, "a") == []
    (event,) = await cluster.list("", "events")
    assert event["reason"] == "BadAutonomy" and '"soon" is no duration' in event["message"]
