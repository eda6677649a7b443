"""Pods of more importance make room for themselves: who goes, who stays, and who doesn't get the room instead."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.standalone.controllers import preempt, scheduler
from tests.unit.cloud_controllers.kubelets import Cluster, condition, pod

Object = dict[str, Any]


def ranked(name: str, priority: int, cpu: str = "1", **spec: Any) -> Object:
    return pod(name, priority=priority, container={"resources": {"requests": {"cpu": cpu}}}, **spec)


async def make(cluster: Cluster, *pods: Object) -> None:
    for p in pods:
        await cluster.create("", "pods", p)
        await cluster.quiet()


async def state(cluster: Cluster) -> dict[str, str]:
    """Where each pod is; ``-`` before it when it is asked to go."""
    await cluster.quiet()
    out = {}
    for p in await cluster.list("", "pods"):
        going = "-" if p["metadata"].get("deletionTimestamp") else ""
        out[p["metadata"]["name"]] = going + str(p["spec"].get("nodeName"))
    return out


async def test_the_least_important_goes_and_the_room_is_kept(cluster: Cluster) -> None:
    await cluster.node("a", cpu="2")
    await make(cluster, ranked("low", 1), ranked("mid", 5))
    await cluster.kubelets()
    await make(cluster, ranked("high", 10))
    assert await state(cluster) == {"low": "-a", "mid": "a", "high": "None"}
    high = await cluster.get("", "pods", "high")
    assert high["status"]["nominatedNodeName"] == "a"
    why = condition(await cluster.get("", "pods", "low"), "DisruptionTarget")
    assert (why["reason"], why["message"]) == ("PreemptionByScheduler", scheduler.PREEMPTED)
    (event,) = [e for e in await cluster.list("", "events") if e["reason"] == "Preempted"]
    assert event["message"] == f"Preempted by pod {high['metadata']['uid']} on node a"
    # While the victim has its grace, nobody of less importance takes the room that will be.
    await make(cluster, ranked("thief", 1))
    await cluster.settle()
    assert await state(cluster) == {"mid": "a", "high": "a", "thief": "None"}


async def test_a_pod_waits_for_the_grace_of_its_victims_and_takes_no_more(cluster: Cluster) -> None:
    await cluster.node("a", cpu="2")
    await make(cluster, ranked("low1", 1), ranked("low2", 1))
    await cluster.kubelets()
    await make(cluster, ranked("high", 10))
    going = [n for n, where in (await state(cluster)).items() if where == "-a"]
    assert len(going) == 1
    await cluster.patch("", "nodes", "a", {"metadata": {"labels": {"woken": "again"}}}, "")
    assert [n for n, where in (await state(cluster)).items() if where == "-a"] == going
    said = condition(await cluster.get("", "pods", "high"), "PodScheduled")
    assert said["message"].endswith("preemption: " + preempt.WAITS)


async def test_of_two_nodes_the_one_with_the_less_important_pods(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await cluster.node("b", cpu="1")
    await make(cluster, ranked("x", 5), ranked("y", 3))
    await make(cluster, ranked("high", 10))
    assert await state(cluster) == {"x": "a", "y": "-b", "high": "None"}


async def test_budgets_are_broken_last(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await cluster.node("b", cpu="1")
    guarded = ranked("guarded", 1, metadata={"labels": {"app": "db"}})
    await make(cluster, guarded, ranked("plain", 9))
    await cluster.kubelets()
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "db"}}
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}}
    await cluster.create("policy", "poddisruptionbudgets", {**budget, "spec": spec})
    await make(cluster, ranked("high", 10))
    assert (await state(cluster))["plain"].startswith("-") and not (await state(cluster))["guarded"].startswith("-")
    # But when nothing else helps, they are.
    await make(cluster, ranked("higher", 11))
    await cluster.settle()
    assert sorted(await state(cluster)) == ["high", "higher"]


async def test_equals_are_left_alone(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await make(cluster, ranked("there", 10), ranked("late", 10))
    assert await state(cluster) == {"there": "a", "late": "None"}
    said = condition(await cluster.get("", "pods", "late"), "PodScheduled")["message"]
    assert said == (
        "0/1 nodes are available: 1 Insufficient cpu. "
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


async def test_who_never_preempts_waits(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await make(cluster, ranked("there", 1), ranked("polite", 10, preemptionPolicy="Never"))
    assert await state(cluster) == {"there": "a", "polite": "None"}
    said = condition(await cluster.get("", "pods", "polite"), "PodScheduled")["message"]
    assert said.endswith("preemption: not eligible due to preemptionPolicy=Never.")


async def test_nobody_goes_for_a_pod_that_would_not_fit_anyway(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await cluster.node("b", cpu="1", taints=[{"key": "k", "effect": "NoSchedule"}])
    await make(cluster, ranked("there", 1), ranked("big", 10, cpu="3"))
    assert await state(cluster) == {"there": "a", "big": "None"}


async def test_a_pod_that_keeps_others_away_goes_too(cluster: Cluster) -> None:
    await cluster.node("a", labels={"zone": "a"})
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "zone"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    await make(cluster, ranked("guard", 1, affinity=apart))
    await cluster.kubelets()
    await make(cluster, ranked("high", 10, metadata={"labels": {"app": "x"}}))
    assert await state(cluster) == {"guard": "-a", "high": "None"}
    await cluster.settle()
    assert await state(cluster) == {"high": "a"}


async def test_the_most_important_is_looked_at_first(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await make(cluster, ranked("there", 100), *(ranked(f"p{i}", i) for i in (1, 9, 5)))
    await cluster.delete("", "pods", "there", grace_s=0)
    found = await state(cluster)
    assert found == {"p1": "None", "p9": "a", "p5": "None"}


async def test_pods_of_one_shape_cost_one_look(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand replicas that find no room are judged once, until something gives room."""
    await cluster.node("a", cpu="1")
    await make(cluster, ranked("there", 1))
    looks = 0
    whole = preempt.choose

    def counted(*args: Any) -> preempt.Choice:
        nonlocal looks
        looks += 1
        return whole(*args)

    monkeypatch.setattr(preempt, "choose", counted)
    for i in range(20):
        await cluster.create("", "pods", ranked(f"p{i}", 1))
    assert set((await state(cluster)).values()) == {"a", "None"} and looks == 1
    assert condition(await cluster.get("", "pods", "p19"), "PodScheduled")["status"] == "False"
    await cluster.node("b", cpu="20")
    assert (await state(cluster))["p19"] == "b", "and what they wait for wakes all of them"
