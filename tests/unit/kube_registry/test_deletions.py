"""Deletes: at once, with grace, with finalizers, of collections, of namespaces, of definitions."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube import upkeep
from bus.kube.targets import Write
from tests.unit.kube_registry.conftest import ME, Api, config_map, pod


async def test_plain_objects_go_at_once(api: Api, refused: Any) -> None:
    made = await api.create("configmaps", config_map())
    done = await api.delete("configmaps", "x")
    assert done.gone and done.object["metadata"]["uid"] == made["metadata"]["uid"]
    assert int(done.object["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    await refused(api.delete("configmaps", "x"), 404, "NotFound")


async def test_an_unbound_pod_goes_at_once_a_finished_one_too(api: Api) -> None:
    await api.create("pods", pod("unbound"))
    assert (await api.delete("pods", "unbound")).gone
    await api.create("pods", pod("done", nodeName="n"))
    await api.patch("pods", "done", {"status": {"phase": "Succeeded"}}, sub="status")
    assert (await api.delete("pods", "done")).gone


async def test_a_bound_pod_waits_for_its_node(api: Api, refused: Any) -> None:
    await api.create("pods", pod(nodeName="n"))
    done = await api.delete("pods", "p")
    meta = done.object["metadata"]
    assert not done.gone and meta["deletionGracePeriodSeconds"] == 30 and meta["deletionTimestamp"] == "2026-09-21T14:13:50Z"
    assert meta["generation"] == 2
    again = await api.delete("pods", "p")
    assert again.object == done.object
    shorter = await api.delete("pods", "p", grace_s=5)
    assert shorter.object["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shorter.object["metadata"]["deletionTimestamp"] == "2026-09-21T14:13:25Z"
    longer = await api.delete("pods", "p", grace_s=50)
    assert longer.object["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (await api.delete("pods", "p", grace_s=0)).gone  # the node's word
    await refused(api.get("pods", "p"), 404, "NotFound")


async def test_grace_of_the_pod_itself_counts(api: Api) -> None:
    await api.create("pods", pod(nodeName="n", terminationGracePeriodSeconds=3))
    assert (await api.delete("pods", "p")).object["metadata"]["deletionGracePeriodSeconds"] == 3


async def test_finalizers_hold_and_then_let_go(api: Api, refused: Any) -> None:
    obj = config_map()
    obj["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await api.create("configmaps", obj)
    assert not (await api.delete("configmaps", "x")).gone
    one = await api.patch("configmaps", "x", {"metadata": {"finalizers": ["example.com/b"]}})
    assert one["metadata"]["deletionTimestamp"]
    error = await refused(
        api.patch("configmaps", "x", {"metadata": {"finalizers": ["example.com/b", "example.com/c"]}}), 422, "Invalid"
    )
    assert "no new finalizers can be added" in error.message
    await api.patch("configmaps", "x", {"metadata": {"finalizers": None}})
    await refused(api.get("configmaps", "x"), 404, "NotFound")


async def test_a_pod_with_grace_and_finalizer_needs_both_words(api: Api, refused: Any) -> None:
    obj = pod(nodeName="n")
    obj["metadata"]["finalizers"] = ["example.com/a"]
    await api.create("pods", obj)
    assert not (await api.delete("pods", "p")).gone
    assert not (await api.delete("pods", "p", grace_s=0)).gone
    await api.patch("pods", "p", {"metadata": {"finalizers": None}})
    await refused(api.get("pods", "p"), 404, "NotFound")


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_propagation_policy_leaves_word_for_the_collector(api: Api, policy: str, finalizer: str) -> None:
    await api.create("configmaps", config_map())
    done = await api.delete("configmaps", "x", propagation=policy)
    assert not done.gone and done.object["metadata"]["finalizers"] == [finalizer]
    assert (await api.delete("configmaps", "x", propagation="Background")).gone


async def test_preconditions(api: Api, refused: Any) -> None:
    made = await api.create("configmaps", config_map())
    await refused(api.delete("configmaps", "x", uid="other"), 409, "Conflict")
    await refused(api.delete("configmaps", "x", revision="1"), 409, "Conflict")
    meta = made["metadata"]
    assert (await api.delete("configmaps", "x", uid=meta["uid"], revision=meta["resourceVersion"])).gone


async def test_dry_run_deletes_nothing(api: Api) -> None:
    await api.create("configmaps", config_map())
    assert (await api.delete("configmaps", "x", dry_run=True)).gone
    assert await api.get("configmaps", "x")


async def test_collection_by_selector(api: Api) -> None:
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        obj = config_map(name)
        obj["metadata"]["labels"] = {"app": app}
        await api.create("configmaps", obj)
    gone = await api.rules.delete_collection("", "configmaps", "default", how=Write(ME), labels="app=x")
    assert [o["metadata"]["name"] for o in gone] == ["a", "b"]
    left, _ = await api.rules.list("", "configmaps")
    assert [o["metadata"]["name"] for o in left] == ["c"]


async def test_a_namespace_empties_itself_and_takes_nothing_new(api: Api, refused: Any) -> None:
    made = await api.create("namespaces", {"metadata": {"name": "team"}}, namespace="")
    assert made["status"]["phase"] == "Active" and made["spec"]["finalizers"] == ["kubernetes"]
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    await api.create("configmaps", config_map(), namespace="team")
    await api.create("pods", pod(nodeName="n"), namespace="team")
    done = await api.delete("namespaces", "team", namespace="")
    assert not done.gone and done.object["status"]["phase"] == "Terminating"
    error = await refused(api.create("configmaps", config_map("y"), namespace="team"), 403, "Forbidden")
    assert error.details["causes"][0]["reason"] == "NamespaceTerminating"
    how = Write(ME)
    assert await upkeep.empty_namespace(api.rules, "team", how=how) is False  # the pod's node has a say
    await refused(api.get("configmaps", "x", namespace="team"), 404, "NotFound")
    await api.delete("pods", "p", namespace="team", grace_s=0)
    assert await upkeep.empty_namespace(api.rules, "team", how=how) is True
    await refused(api.get("namespaces", "team", namespace=""), 404, "NotFound")
    assert await upkeep.empty_namespace(api.rules, "default", how=how) is False  # nobody deleted it
