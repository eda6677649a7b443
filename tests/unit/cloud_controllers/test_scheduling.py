"""Which node a pod gets, and what is said when it gets none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cloud_controllers.kubelets import HOW, Cluster, condition, pod


async def placed(cluster: Cluster, name: str) -> str | None:
    await cluster.quiet()
    node: str | None = (await cluster.get("", "pods", name))["spec"].get("nodeName")
    return node


def affinity(operator: str, *values: str, key: str = "zone") -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    if not values:
        del term["matchExpressions"][0]["values"]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        ({}, "a"),
        ({"nodeSelector": {"zone": "b"}}, "b"),
        ({"nodeSelector": {"zone": "none"}}, None),
        ({"affinity": affinity("In", "b", "c")}, "b"),
        ({"affinity": affinity("NotIn", "a")}, "b"),
        ({"affinity": affinity("Exists", key="gpu")}, "b"),
        ({"affinity": affinity("DoesNotExist", key="gpu")}, "a"),
        ({"affinity": affinity("Gt", "3", key="gpu")}, "b"),
        ({"affinity": affinity("Lt", "3", key="gpu")}, None),
        ({"container": {"resources": {"requests": {"cpu": "3"}}}}, "b"),
        ({"container": {"resources": {"limits": {"cpu": "3"}}}}, "b"),
        ({"container": {"resources": {"requests": {"cpu": "5"}}}}, None),
        ({"container": {"resources": {"requests": {"example.com/tpu": "1"}, "limits": {"example.com/tpu": "1"}}}}, None),
        ({"tolerations": [{"key": "only", "operator": "Exists"}], "nodeSelector": {"zone": "t"}}, "t"),
        ({"tolerations": [{"key": "only", "value": "x"}], "nodeSelector": {"zone": "t"}}, "t"),
        ({"tolerations": [{"key": "only", "value": "y"}], "nodeSelector": {"zone": "t"}}, None),
        ({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"zone": "cordoned"}}, "cordoned"),
        ({"nodeSelector": {"zone": "cordoned"}}, None),
        ({"nodeSelector": {"zone": "down"}}, None),
        ({"schedulerName": "mine"}, None),
    ],
)
async def test_which_node(cluster: Cluster, spec: dict[str, Any], node: str | None) -> None:
    await cluster.node("a", cpu="2", labels={"zone": "a"})
    await cluster.node("b", cpu="4", labels={"zone": "b", "gpu": "4"})
    await cluster.node("t", labels={"zone": "t"}, taints=[{"key": "only", "value": "x", "effect": "NoSchedule"}])
    await cluster.node("cordoned", labels={"zone": "cordoned"}, unschedulable=True)
    await cluster.node("down", labels={"zone": "down"}, ready=False)
    await cluster.create("", "pods", pod("p", **spec))
    assert await placed(cluster, "p") == node


async def test_a_pod_that_names_its_node_is_left_alone(cluster: Cluster) -> None:
    await cluster.node("a", ready=False)
    await cluster.create("", "pods", pod("p", nodeName="a"))
    assert await placed(cluster, "p") == "a"
    assert not [w for w in cluster.storage.origins.values() if w.actor == "system:controller:scheduler"]


async def test_what_is_said_when_no_node_will_do(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await cluster.node("b", taints=[{"key": "only", "value": "x", "effect": "NoExecute"}])
    await cluster.node("c", ready=False)
    await cluster.create("", "pods", pod("p", container={"resources": {"requests": {"cpu": "2", "memory": "1Ti"}}}))
    assert await placed(cluster, "p") is None
    message = (
        "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, "
        "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) had untolerated taint {only: x}."
    )
    said = condition(await cluster.get("", "pods", "p"), "PodScheduled")
    assert (said["status"], said["reason"], said["message"]) == ("False", "Unschedulable", message)
    (event,) = await cluster.list("", "events")
    assert (event["reason"], event["type"], event["message"]) == ("FailedScheduling", "Warning", message)
    assert event["involvedObject"]["name"] == "p" and event["count"] == 1
    # Room comes: the pod is looked at again by itself.
    await cluster.node("d")
    assert await placed(cluster, "p") is None
    await cluster.node("e", labels={"big": "1"})
    node = await cluster.get("", "nodes", "e", "")
    node["status"]["allocatable"]["memory"] = "2Ti"
    await cluster.registry.update("", "nodes", "", "e", node, how=HOW, subresource="status")
    assert await placed(cluster, "p") == "e"


async def test_no_node_at_all(cluster: Cluster) -> None:
    await cluster.create("", "pods", pod("p"))
    assert await placed(cluster, "p") is None
    assert condition(await cluster.get("", "pods", "p"), "PodScheduled")["message"] == "no nodes available to schedule pods"


async def test_pods_spread_and_never_take_more_than_there_is(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    await cluster.node("b", cpu="1")
    for i in range(5):
        await cluster.create("", "pods", pod(f"p{i}", container={"resources": {"requests": {"cpu": "400m"}}}))
    nodes = [await placed(cluster, f"p{i}") for i in range(5)]
    assert sorted(n for n in nodes if n) == ["a", "a", "b", "b"] and nodes.count(None) == 1
    waiting = f"p{nodes.index(None)}"
    await cluster.delete("", "pods", f"p{nodes.index('a')}", grace_s=0)
    assert await placed(cluster, waiting) == "a"


async def test_a_host_port_is_given_once_a_node(cluster: Cluster) -> None:
    await cluster.node("a")
    port = {"ports": [{"containerPort": 80, "hostPort": 8080}]}
    for name in ("p", "q"):
        await cluster.create("", "pods", pod(name, container=port))
        await cluster.quiet()
    assert [await placed(cluster, n) for n in ("p", "q")] == ["a", None]


async def test_a_link_that_is_lost_keeps_new_pods_away(cluster: Cluster) -> None:
    await cluster.node("a", taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}])
    await cluster.create("", "pods", pod("p"))
    assert await placed(cluster, "p") is None
    message = condition(await cluster.get("", "pods", "p"), "PodScheduled")["message"]
    assert message == "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }."
