"""Topology spread constraints, and the counts that they and affinity rest on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.standalone.controllers import census, demand, selecting
from cloud.standalone.controllers.census import Census
from tests.unit.cloud_controllers.kubelets import Cluster, condition, pod

Object = dict[str, Any]


def spread(key: str = "zone", skew: int = 1, *, soft: bool = False, **more: Any) -> Object:
    when = "ScheduleAnyway" if soft else "DoNotSchedule"
    selector = {"matchLabels": {"app": "x"}}
    return {"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when, "labelSelector": selector, **more}


async def zones(cluster: Cluster, **nodes: str) -> None:
    for name, zone in nodes.items():
        await cluster.node(name, labels={"zone": zone} if zone else {})


async def counts(cluster: Cluster, n: int, *rules: Object, **spec: Any) -> dict[str, int]:
    for i in range(n):
        body = pod(f"p{i}", metadata={"labels": {"app": "x"}}, topologySpreadConstraints=list(rules), **spec)
        await cluster.create("", "pods", body)
        await cluster.quiet()
    pods = await cluster.list("", "pods")
    return Counter(str(p["spec"].get("nodeName")) for p in pods if p["metadata"]["name"].startswith("p"))


async def test_zones_are_filled_evenly_whatever_room_they_have(cluster: Cluster) -> None:
    await zones(cluster, a1="a", a2="a", a3="a", b1="b")
    found = await counts(cluster, 6, spread())
    assert found["b1"] == 3 and found["None"] == 0


async def test_a_zone_that_is_full_stops_the_others_within_the_skew(cluster: Cluster) -> None:
    await cluster.node("a1", labels={"zone": "a"})
    await cluster.node("b1", labels={"zone": "b"}, cpu="1")
    want = {"resources": {"requests": {"cpu": "600m"}}}
    found = await counts(cluster, 4, spread(skew=2), container=want)
    assert found == {"a1": 3, "b1": 1}
    await cluster.create(
        "", "pods", pod("p9", metadata={"labels": {"app": "x"}}, topologySpreadConstraints=[spread(skew=2)])
    )
    await cluster.quiet()
    assert (await cluster.get("", "pods", "p9"))["spec"]["nodeName"] == "b1"
    big = pod("q", metadata={"labels": {"app": "x"}}, topologySpreadConstraints=[spread(skew=1)], container=want)
    await cluster.create("", "pods", big)
    await cluster.quiet()
    said = condition(await cluster.get("", "pods", "q"), "PodScheduled")["message"]
    assert said.startswith(
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints. preemption:"
    )


async def test_a_node_without_the_label_is_in_no_zone(cluster: Cluster) -> None:
    await zones(cluster, a1="a", nowhere="")
    await cluster.create("", "pods", pod("busy", nodeName="a1", container={"resources": {"requests": {"cpu": "4"}}}))
    want = {"resources": {"requests": {"cpu": "100m"}}}
    assert await counts(cluster, 1, spread(), container=want) == {"None": 1}
    said = condition(await cluster.get("", "pods", "p0"), "PodScheduled")["message"]
    assert "1 node(s) didn't match pod topology spread constraints (missing required label)" in said


@pytest.mark.parametrize(
    ("more", "spec", "found"),
    [
        ({"minDomains": 3}, {}, {"a1": 1, "b1": 1, "None": 1}),
        # Zone b is out of reach: honoured, it doesn't count; ignored, it stays empty and stops zone a.
        ({}, {"nodeSelector": {"zone": "a"}}, {"a1": 3}),
        ({"nodeAffinityPolicy": "Ignore"}, {"nodeSelector": {"zone": "a"}}, {"a1": 1, "None": 2}),
        ({"matchLabelKeys": ["rev"]}, {}, {"a1": 2, "b1": 1}),
    ],
)
async def test_what_counts_as_a_domain(cluster: Cluster, more: Object, spec: Object, found: dict[str, int]) -> None:
    await zones(cluster, a1="a", b1="b")
    assert await counts(cluster, 3, spread(**more), **spec) == found


async def test_tainted_nodes_count_unless_taints_are_honoured(cluster: Cluster) -> None:
    await zones(cluster, a1="a")
    await cluster.node("b1", labels={"zone": "b"}, taints=[{"key": "k", "effect": "NoSchedule"}])
    assert await counts(cluster, 2, spread()) == {"a1": 1, "None": 1}
    body = pod("h", metadata={"labels": {"app": "x"}}, topologySpreadConstraints=[spread(nodeTaintsPolicy="Honor")])
    await cluster.create("", "pods", body)
    await cluster.quiet()
    assert (await cluster.get("", "pods", "h"))["spec"]["nodeName"] == "a1"


async def test_what_would_only_rather_be_even_is_put_anyway(cluster: Cluster) -> None:
    await zones(cluster, a1="a", a2="a", b1="b")
    assert await counts(cluster, 4, spread(soft=True)) == {"a1": 1, "a2": 1, "b1": 2}
    await cluster.patch("", "nodes", "b1", {"spec": {"unschedulable": True}}, "")
    await cluster.create(
        "", "pods", pod("p9", metadata={"labels": {"app": "x"}}, topologySpreadConstraints=[spread(soft=True)])
    )
    await cluster.quiet()
    assert (await cluster.get("", "pods", "p9"))["spec"]["nodeName"] in ("a1", "a2")


async def test_pods_on_their_way_out_count_no_more(cluster: Cluster) -> None:
    await zones(cluster, a1="a", b1="b")
    assert await counts(cluster, 2, spread()) == {"a1": 1, "b1": 1}
    await cluster.delete("", "pods", "p0")
    await cluster.create("", "pods", pod("q", metadata={"labels": {"app": "x"}}, topologySpreadConstraints=[spread()]))
    await cluster.quiet()
    assert (await cluster.get("", "pods", "q"))["spec"]["nodeName"] == "a1"


async def test_pods_that_are_there_prefer_too(cluster: Cluster) -> None:
    await zones(cluster, a1="a", b1="b")
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "zone"}
    wish = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": term}]}
    await cluster.create("", "pods", pod("host", nodeName="b1", affinity={"podAffinity": wish}))
    await cluster.create("", "pods", pod("guest", metadata={"labels": {"app": "x"}}))
    await cluster.quiet()
    assert (await cluster.get("", "pods", "guest"))["spec"]["nodeName"] == "b1"
    await cluster.patch("", "nodes", "b1", {"metadata": {"labels": {"zone": "c"}}}, "")
    await cluster.create("", "pods", pod("host2", nodeName="a1", affinity={"podAntiAffinity": wish}))
    await cluster.create("", "pods", pod("guest2", metadata={"labels": {"app": "x"}}))
    await cluster.quiet()
    assert (await cluster.get("", "pods", "guest2"))["spec"]["nodeName"] == "b1"


def _pod(space: str, label: str, node: str, leaving: bool) -> Object:
    meta: Object = {"name": "p", "namespace": space, "labels": {"app": label}}
    if leaving:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    term = {"labelSelector": {"matchLabels": {"app": label}}, "topologyKey": "zone"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {"metadata": meta, "spec": {"nodeName": node, "containers": [], "affinity": affinity}}


_PODS = st.builds(_pod, st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("123"), st.booleans())
_STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "count"]), _PODS), max_size=40)


@given(_STEPS, st.sampled_from([1, 2, 512]))
def test_counts_are_what_counting_anew_would_say(steps: list[tuple[str, Object]], pickers_max: int) -> None:
    there: list[demand.Demand] = []
    kept = census.PICKERS_MAX
    census.PICKERS_MAX = pickers_max
    try:
        book = Census(lambda: [(d.pod["spec"]["nodeName"], d) for d in there], lambda _: {})
        for step, body in steps:
            node, want = body["spec"]["nodeName"], demand.of(body)
            if step == "add":
                there.append(want)
                book.add(node, want)
            elif step == "remove" and there:
                gone = there.pop()
                book.remove(gone.pod["spec"]["nodeName"], gone)
            picker = selecting.picker(
                {"labelSelector": {"matchLabels": body["metadata"]["labels"]}}, body, leaving=step != "count"
            )
            anew = Counter(d.pod["spec"]["nodeName"] for d in there if book.picks(picker, d.pod))
            assert dict(book.count(picker)) == anew
            guards = Counter((t, d.pod["spec"]["nodeName"]) for d in there for t in d.apart)
            assert {(t, n): c for t, nodes in book.guards.items() for n, c in nodes.items()} == guards
    finally:
        census.PICKERS_MAX = kept
