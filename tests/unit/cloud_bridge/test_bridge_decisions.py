"""What is wanted, and what is news: the bridge's decisions without a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube.errors import StatusError
from bus.kube.storage import Stored
from cloud.bridge import client, kinds, merging
from cloud.bridge.wanted import Wanted
from schemas.subjects import ObjectKey


def pod_key(name: str, namespace: str = "default") -> ObjectKey:
    return ObjectKey("", "pods", namespace, name)


def cm(name: str) -> ObjectKey:
    return ObjectKey("", "configmaps", "default", name)


def pod(node: str, *maps: str) -> dict[str, Any]:
    return {"spec": {"nodeName": node, "volumes": [{"name": m, "configMap": {"name": m}} for m in maps]}}


def test_a_pod_is_wanted_on_an_edge_and_stays_so_when_the_node_object_goes() -> None:
    w = Wanted()
    assert not w.wants(pod_key("p"), pod("n"))
    assert w.edge("n", True) and not w.edge("n", True)
    assert w.wants(pod_key("p"), pod("n")) and not w.wants(pod_key("p"), pod("cloud"))
    w.refer(pod_key("p"), pod("n"))
    w.edge("n", False)
    assert w.wants(pod_key("p")) and not w.wants(pod_key("q"), pod("n"))


def test_references_are_counted_over_pods_and_updates() -> None:
    w = Wanted()
    assert w.refer(pod_key("a"), pod("n", "x", "y")) == ([cm("x"), cm("y")], [])
    assert w.refer(pod_key("b"), pod("n", "y")) == ([], [])
    assert w.refer(pod_key("a"), pod("n", "x", "z")) == ([cm("z")], [])
    assert w.namespaces == {"default"}
    assert w.forget(pod_key("b")) == [cm("y")]
    assert w.refer(pod_key("a"), pod("n", "x")) == ([], [cm("z")])
    assert w.forget(pod_key("a")) == [cm("x")]
    assert w.forget(pod_key("a")) == []
    assert not w.wants(cm("x")) and not w.namespaces


def test_odd_objects_name_nothing() -> None:
    w = Wanted()
    w.edge("n", True)
    for odd in ({}, {"spec": None}, {"spec": []}, {"spec": {"nodeName": 3}}):
        assert not w.wants(pod_key("p"), odd)
    w.refer(pod_key("p"), {"spec": {"nodeName": "n", "volumes": "none", "containers": [1]}})
    assert w.forget(pod_key("p")) == []


Told = list[tuple[str, int]]


@given(st.lists(st.sampled_from(["applied", "deleted"]), min_size=1, max_size=6), st.data())
def test_whatever_way_it_comes_the_newest_wins(history: list[str], data: st.DataObject) -> None:
    """Changes 1..n of one object, each told at least once, in any order and any number of times."""
    changes = [(what, rev) for rev, what in enumerate(history, 1)]
    again = data.draw(st.lists(st.sampled_from(changes), max_size=4))
    told = data.draw(st.permutations([*changes, *again]))
    held: Stored | None = None
    deletions = merging.Deletions()
    for what, rev in told:
        if what == "applied" and merging.applies(held, deletions.get(cm("c")), rev):
            held = Stored(cm("c"), rev, {}, source_rev=rev)
        elif what == "deleted":
            deletions.add(cm("c"), rev)
            held = None if merging.removes(held, rev) else held
    last, rev = changes[-1]
    assert (held.source_rev if held else None) == (rev if last == "applied" else None)


def test_a_restored_cluster_counts_whatever_its_number() -> None:
    held = Stored(cm("c"), 1, {}, source_rev=100)
    assert not merging.applies(held, 0, 50) and merging.applies(held, 0, 50, restored=True)
    assert merging.applies(held, 0, 100, restored=True), "the same number may mean another content now"
    assert not merging.removes(held, 50) and merging.removes(held, 50, restored=True)


def test_deletions_are_remembered_up_to_a_limit() -> None:
    d = merging.Deletions(2)
    for n in range(3):
        d.add(cm(f"c{n}"), n + 1)
    d.add(cm("c1"), 1)
    assert (len(d), d.get(cm("c0")), d.get(cm("c1")), d.get(cm("c2"))) == (2, 0, 2, 3)


@pytest.mark.parametrize("odd", [None, "", "1a", "-1", "9" * 20, 7, "٣"])
def test_a_resource_version_that_is_no_number_is_refused(odd: object) -> None:
    with pytest.raises(StatusError) as refused:
        client.revision({"metadata": {"resourceVersion": odd}})
    assert refused.value.code == 503
    assert client.revision({"metadata": {"resourceVersion": "12"}}) == 12


def test_paths_and_stored_forms() -> None:
    assert kinds.path(kinds.NODES).url("n", "status") == "/api/v1/nodes/n/status"
    assert kinds.path(kinds.DEVICE, "d").url() == "/apis/devices.kubeedge.io/v1beta1/namespaces/d/devices"
    raw = {"metadata": {"name": "c", "namespace": "default", "resourceVersion": "3", "managedFields": [{}]}, "data": {}}
    form = kinds.stored_form(("", "configmaps"), raw)
    assert form == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}, "data": {}}
    assert kinds.key_of(("", "configmaps"), raw) == cm("c")
    assert kinds.key_of(("", "configmaps"), {"metadata": {}}) is None
