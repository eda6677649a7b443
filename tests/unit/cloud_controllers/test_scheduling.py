"""Which node a pod gets, and what is said when it gets none."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.standalone.controllers import resources, scheduler
from schemas.subjects import ObjectKey
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, condition, deployment, pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


async def placed(cluster: Cluster, name: str) -> str | None:
    await cluster.quiet()
    node: str | None = (await cluster.get("", "pods", name))["spec"].get("nodeName")
    return node


def affinity(operator: str, *values: str, key: str = "zone") -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    if not values:
        del term["matchExpressions"][0]["values"]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def fields(operator: str, *values: str) -> dict[str, Any]:
    term = {"matchFields": [{"key": "metadata.name", "operator": operator, "values": list(values)}]}
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}}


def prefers(key: str, value: str, weight: int = 1) -> dict[str, Any]:
    preference = {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
    return {"nodeAffinity": {PREFERRED: [{"weight": weight, "preference": preference}]}}


def term(app: str, topology: str = "kubernetes.io/hostname", **more: Any) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": topology, **more}


def app(name: str, app: str, *, near: Any = None, apart: Any = None, **spec: Any) -> dict[str, Any]:
    affinity = {k: {REQUIRED: [t]} for k, t in (("podAffinity", near), ("podAntiAffinity", apart)) if t}
    return pod(name, metadata={"labels": {"app": app}}, affinity=affinity, **spec)


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
        ({"affinity": fields("In", "b")}, "b"),
        ({"affinity": fields("NotIn", "a")}, "b"),
        ({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}}}, None),
        ({"affinity": prefers("zone", "b")}, "b"),
        ({"affinity": prefers("zone", "t")}, "a"),
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
        "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) had untolerated taint {only: x}. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
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
    assert message == (
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }. "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


async def on_nodes(cluster: Cluster) -> list[str]:
    await cluster.quiet()
    return sorted(str(p["spec"].get("nodeName")) for p in await cluster.list("", "pods"))


async def two_zones(cluster: Cluster) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        await cluster.node(name, labels={"kubernetes.io/hostname": name, "zone": zone})


async def test_two_replicas_land_on_two_nodes_even_when_one_is_fuller(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.node("b")
    for i in range(3):
        await cluster.create("", "pods", pod(f"busy{i}", nodeName="a", container={"resources": {"requests": {"cpu": "1"}}}))
    await cluster.create("apps", "deployments", deployment(replicas=2))
    assert await on_nodes(cluster) == ["a", "a", "a", "a", "b"]


async def test_pods_without_an_owner_but_with_the_same_labels_are_replicas_too(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.node("b")
    await cluster.create("", "pods", pod("busy", nodeName="a"))
    for i in range(2):
        await cluster.create("", "pods", app(f"p{i}", "x"))
    assert await on_nodes(cluster) == ["a", "a", "b"]


async def test_a_batch_spreads_like_pods_that_come_one_by_one(cluster: Cluster) -> None:
    for n in range(4):
        await cluster.node(f"n{n}")
    await cluster.create("apps", "deployments", deployment(replicas=100))
    assert await on_nodes(cluster) == [f"n{n}" for n in range(4) for _ in range(25)]


async def test_of_two_nodes_the_one_with_more_room_then_the_first_by_name(cluster: Cluster) -> None:
    await cluster.node("a", cpu="2")
    await cluster.node("b", cpu="4")
    want = {"resources": {"requests": {"cpu": "500m"}}}
    await cluster.create("", "pods", pod("p", container=want))
    assert await placed(cluster, "p") == "b", "an eighth of it, not a quarter"
    await cluster.node("c", cpu="4", taints=[{"key": "old", "effect": "PreferNoSchedule"}])
    await cluster.create("", "pods", pod("q", container=want))
    assert await placed(cluster, "q") == "a", "c is empty, but not liked"
    await cluster.create("", "pods", pod("r", container=want, tolerations=[{"key": "old", "operator": "Exists"}]))
    assert await placed(cluster, "r") == "c"


async def test_a_finished_pod_takes_no_room_and_those_that_wait_are_told(cluster: Cluster) -> None:
    await cluster.node("a", cpu="1")
    want = {"resources": {"requests": {"cpu": "1"}}}
    for name in ("p", "q"):
        await cluster.create("", "pods", pod(name, container=want))
        await cluster.quiet()
    assert await placed(cluster, "q") is None
    p = await cluster.get("", "pods", "p")
    p["status"]["phase"] = "Succeeded"
    await cluster.registry.update("", "pods", "default", "p", p, how=HOW, subresource="status")
    assert await placed(cluster, "q") == "a"


async def test_replicas_that_refuse_each_other(cluster: Cluster) -> None:
    await two_zones(cluster)
    for i in range(4):
        await cluster.create("", "pods", app(f"p{i}", "x", apart=term("x")))
        await cluster.quiet()
    assert await on_nodes(cluster) == ["None", "a1", "a2", "b1"]
    said = condition(await cluster.get("", "pods", "p3"), "PodScheduled")["message"]
    assert said.startswith("0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: ")
    await cluster.create("", "pods", app("alone", "y", apart=term("x", "zone")))
    assert await placed(cluster, "alone") is None, "a whole zone, not a node"
    # Both ways: who doesn't mind itself is kept away by who minds it.
    await cluster.node("b2", labels={"kubernetes.io/hostname": "b2", "zone": "c"})
    assert await placed(cluster, "p3") == "b2"
    await cluster.create("", "pods", app("plain", "x"))
    said = condition(await cluster.get("", "pods", "plain"), "PodScheduled")
    await cluster.quiet()
    said = condition(await cluster.get("", "pods", "plain"), "PodScheduled")["message"]
    assert said.startswith("0/4 nodes are available: 4 node(s) didn't satisfy existing pods anti-affinity rules. pre")


async def test_a_pod_that_wants_company_waits_for_it(cluster: Cluster) -> None:
    await two_zones(cluster)
    await cluster.create("", "pods", app("p", "web", near=term("db", "zone")))
    assert await placed(cluster, "p") is None
    said = condition(await cluster.get("", "pods", "p"), "PodScheduled")["message"]
    assert said.startswith("0/3 nodes are available: 3 node(s) didn't match pod affinity rules. preemption: ")
    await cluster.create("", "pods", app("other", "db", nodeSelector={"zone": "b"}))
    assert await placed(cluster, "other") == "b1"
    assert await placed(cluster, "p") == "b1", "woken by the pod that came"


async def test_the_first_of_a_group_may_go_anywhere_and_the_rest_go_there(cluster: Cluster) -> None:
    await two_zones(cluster)
    for i in range(3):
        await cluster.create("", "pods", app(f"p{i}", "x", near=term("x", "zone")))
    assert await on_nodes(cluster) == ["a1", "a1", "a2"]


@pytest.mark.parametrize(
    ("more", "node"),
    [
        ({}, None),
        ({"namespaces": ["kube-system"]}, "b1"),
        ({"namespaceSelector": {}}, "b1"),
        ({"namespaceSelector": {"matchLabels": {"team": "x"}}}, None),
        ({"namespaceSelector": {}, "matchLabelKeys": ["none"]}, "b1"),
        ({"namespaceSelector": {}, "labelSelector": {}, "mismatchLabelKeys": ["app"]}, "b1"),
    ],
)
async def test_where_company_is_looked_for(cluster: Cluster, more: dict[str, Any], node: str | None) -> None:
    await two_zones(cluster)
    await cluster.create("", "pods", app("db", "db", nodeName="b1"), "kube-system")
    await cluster.create("", "pods", app("p", "web", near=term("db", "zone", **more)))
    assert await placed(cluster, "p") == node


async def test_company_that_is_preferred(cluster: Cluster) -> None:
    await two_zones(cluster)
    await cluster.create("", "pods", app("db", "db", nodeName="b1"))
    weighted = {PREFERRED: [{"weight": 5, "podAffinityTerm": term("db", "zone")}]}
    for name, kind, node in (("p", "podAffinity", "b1"), ("q", "podAntiAffinity", "a1")):
        await cluster.create("", "pods", pod(name, affinity={kind: weighted}))
        assert await placed(cluster, name) == node


async def test_a_node_that_is_not_ready_is_not_used_whatever_else_it_is_marked_with(cluster: Cluster) -> None:
    pressure = {"key": "node.kubernetes.io/disk-pressure", "effect": "PreferNoSchedule"}
    await cluster.node("a", ready=False, taints=[pressure])
    await cluster.create("", "pods", pod("p"))
    assert await placed(cluster, "p") is None


async def test_the_port_of_a_sidecar_is_taken_that_of_an_init_container_is_not(cluster: Cluster) -> None:
    await cluster.node("a")
    ports = [{"containerPort": 80, "hostPort": 8080}]
    init = {"name": "i", "image": "busybox:1", "ports": ports}
    await cluster.create("", "pods", pod("p", initContainers=[init]))
    assert await placed(cluster, "p") == "a"
    await cluster.create("", "pods", pod("q", initContainers=[{**init, "restartPolicy": "Always"}]))
    assert await placed(cluster, "q") == "a"
    await cluster.create("", "pods", pod("r", container={"ports": ports}))
    assert await placed(cluster, "r") is None


async def test_a_pod_that_waits_costs_no_writes(cluster: Cluster) -> None:
    """Not when nodes report, and not more than one reason in a while when links flap."""
    await cluster.node("a", labels={"zone": "a"})
    await cluster.create("", "pods", pod("p", nodeSelector={"zone": "b"}))
    await cluster.quiet()
    written = cluster.runner.stats.written
    for n in range(5):
        node = await cluster.get("", "nodes", "a", "")
        node["status"]["conditions"][0]["lastHeartbeatTime"] = f"2026-01-01T00:00:0{n}Z"
        await cluster.registry.update("", "nodes", "", "a", node, how=HOW, subresource="status")
    assert await placed(cluster, "p") is None and cluster.runner.stats.written == written
    for n in range(5):
        taint = [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]
        await cluster.patch("", "nodes", "a", {"spec": {"taints": taint if n % 2 == 0 else None}}, "")
        await cluster.quiet()
    assert cluster.runner.stats.written == written and cluster.runner._queues["scheduler"].waiting == 1
    key, view = ObjectKey("", "pods", "default", "p"), cluster.runner._view
    plan = scheduler.reconcile(view, key, cluster.registry.now_us())
    assert plan.writes == [] and 0 < (plan.again_us or 0) <= scheduler.SAY_US
    later = scheduler.reconcile(view, key, cluster.registry.now_us() + scheduler.SAY_US)
    assert [w.verb for w in later.writes] == ["status", "create"]


async def test_a_reason_too_long_for_an_event_is_cut_there(cluster: Cluster) -> None:
    for n in range(30):
        await cluster.node(f"n{n}", taints=[{"key": f"example.com/{'x' * 30}{n}", "effect": "NoSchedule"}])
    await cluster.create("", "pods", pod("p"))
    assert await placed(cluster, "p") is None
    message = condition(await cluster.get("", "pods", "p"), "PodScheduled")["message"]
    (event,) = await cluster.list("", "events")
    assert len(message) > 2000 and len(event["message"]) == 1024 and message.startswith(event["message"][:-4])


async def test_what_a_node_carries_is_summed_once_a_change(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.node("b")
    await cluster.create("", "pods", pod("p", nodeName="a", container={"resources": {"requests": {"cpu": "100m"}}}))
    await cluster.quiet()
    view = cluster.runner._view
    a, b = view.place("a"), view.place("b")
    await cluster.create("", "pods", pod("q", nodeName="a"))
    await cluster.quiet()
    assert view.place("b") is b and view.place("a") is not a
    assert (len(view.place("a").pods), view.place("a").asked["cpu"]) == (2, 100)


async def test_whom_a_change_of_a_pod_wakes(cluster: Cluster) -> None:
    await two_zones(cluster)
    await cluster.create("", "pods", pod("waits", nodeSelector={"zone": "none"}))
    await cluster.create("", "pods", app("picky", "x", near=term("y")))
    await cluster.create("", "pods", app("there", "z", nodeName="a1"))
    await cluster.quiet()
    view = cluster.runner._view
    there = cluster.storage.get(ObjectKey("", "pods", "default", "there"))
    assert there is not None

    def woken(seen: Any, old: Any) -> list[str]:
        return sorted(k.name for k in scheduler.concerns(view, seen, old))

    await cluster.patch("", "pods", "there", {"metadata": {"annotations": {"a": "b"}}})
    noted = cluster.storage.get(there.key)
    await cluster.patch("", "pods", "there", {"metadata": {"labels": {"app": "w"}}})
    labelled = cluster.storage.get(there.key)
    assert woken(there, None) == [] and woken(noted, there) == []
    assert woken(labelled, noted) == ["picky"]
    assert woken(None, labelled) == ["picky", "waits"]


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [("100m", 100), ("0.1", 100), (2, 2000), ("1u", 1), ("1.5Ki", 1_536_000), ("1e3", 10**6), ("2E-1", 200),
     ("12E", 12 * 10**21), ("junk", 0), (True, 0), ("", 0)],
)  # fmt: skip
def test_quantities(text: object, thousandths: int) -> None:
    assert resources.quantity(text) == thousandths


async def test_a_node_is_full_at_its_number_of_pods(cluster: Cluster) -> None:
    await cluster.node("a")
    node = await cluster.get("", "nodes", "a", "")
    node["status"]["allocatable"]["pods"] = "2"
    await cluster.registry.update("", "nodes", "", "a", node, how=HOW, subresource="status")
    for i in range(3):
        await cluster.create("", "pods", pod(f"p{i}"))
        await cluster.quiet()
    assert await on_nodes(cluster) == ["None", "a", "a"]
    said = condition(await cluster.get("", "pods", "p2"), "PodScheduled")["message"]
    assert said == (
        "0/1 nodes are available: 1 Too many pods. "
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )
