"""What goes with what: owners, namespaces, nodes; and what an hour does to Events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus.kube.errors import StatusError
from bus.kube.storage import Stored, Unavailable
from cloud import api
from cloud.standalone import attending, run_controllers
from cloud.standalone.controllers import garbage, podgc
from cloud.standalone.run_controllers import CONTROLLERS, ControllerRunner
from schemas.subjects import ObjectKey
from tests.unit.cloud_controllers.kubelets import Cluster, deployment, pod, running


def config(name: str, *owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    refs = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        | ({"blockOwnerDeletion": True} if block else {})
        for o in owners
    ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": refs}}


async def names(cluster: Cluster, resource: str = "configmaps") -> list[str]:
    await cluster.quiet()
    return [o["metadata"]["name"] for o in await cluster.list("", resource)]


async def make(cluster: Cluster, name: str, *owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    return await cluster.create("", "configmaps", config(name, *owners, block=block))


async def test_what_is_owned_goes_after_its_owner_and_so_on_down(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    b = await make(cluster, "b", a)
    await make(cluster, "c", b)
    await make(cluster, "free")
    await cluster.delete("", "configmaps", "a")
    assert await names(cluster) == ["free"]


async def test_one_owner_that_is_left_is_enough(cluster: Cluster) -> None:
    a, b = await make(cluster, "a"), await make(cluster, "b")
    await make(cluster, "c", a, b)
    await cluster.delete("", "configmaps", "a")
    assert await names(cluster) == ["b", "c"]
    refs = (await cluster.get("", "configmaps", "c"))["metadata"]["ownerReferences"]
    assert [r["name"] for r in refs] == ["b"]
    await cluster.delete("", "configmaps", "b")
    assert await names(cluster) == []


async def test_an_owner_of_the_same_name_is_another(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    await cluster.delete("", "configmaps", "a")
    await make(cluster, "a")
    await make(cluster, "late", a)  # names the one that is gone
    assert await names(cluster) == ["a"]


async def test_an_owner_in_another_namespace_is_none(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    await cluster.create("", "configmaps", config("b", a), "kube-system")
    assert await names(cluster) == ["a"]
    await cluster.quiet()
    assert await cluster.list("", "configmaps", "kube-system") == []


async def test_what_has_no_namespace_is_not_judged_by_an_owner_that_needs_one(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    meta = {"name": "n", "ownerReferences": config("x", a)["metadata"]["ownerReferences"]}
    await cluster.create("", "nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta}, "")
    await cluster.delete("", "configmaps", "a")
    await cluster.quiet()
    assert [n["metadata"]["name"] for n in await cluster.list("", "nodes", "")] == ["n"]


async def test_an_object_can_say_itself_how_it_wants_to_go(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    middle = config("b", a)
    middle["metadata"]["finalizers"] = ["orphan"]
    b = await cluster.create("", "configmaps", middle)
    await make(cluster, "c", b)
    await cluster.delete("", "configmaps", "a")
    assert await names(cluster) == ["c"], "left alone by b"


async def test_foreground_with_more_dependents_than_one_plan_takes(cluster: Cluster, monkeypatch: Any) -> None:
    monkeypatch.setattr(garbage, "DEPENDENTS_MAX", 3)
    for propagation, left in (("Foreground", 0), ("Orphan", 8)):
        a = await make(cluster, "a")
        for n in range(8):
            await make(cluster, f"b{n}", a, block=True)
        await cluster.delete("", "configmaps", "a", propagation=propagation)
        assert len(await names(cluster)) == left


async def test_a_kind_that_nobody_serves_is_not_judged(cluster: Cluster) -> None:
    ref = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "x", "uid": "u"}
    await cluster.create(
        "", "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "ownerReferences": [ref]}}
    )
    assert await names(cluster) == ["c"]


async def test_foreground_the_owner_waits_for_what_it_owns(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    held = config("b", a, block=True)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await cluster.create("", "configmaps", held)
    await cluster.delete("", "configmaps", "a", propagation="Foreground")
    assert await names(cluster) == ["a", "b"]
    await cluster.patch("", "configmaps", "b", {"metadata": {"finalizers": None}})
    assert await names(cluster) == []


async def test_orphan_what_is_owned_stays_without_owner(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    await make(cluster, "b", a)
    await cluster.delete("", "configmaps", "a", propagation="Orphan")
    assert await names(cluster) == ["b"]
    assert "ownerReferences" not in (await cluster.get("", "configmaps", "b"))["metadata"]


@pytest.mark.parametrize("propagation", [None, "Background", "Foreground"])
async def test_a_deployment_takes_everything_along(cluster: Cluster, propagation: str | None) -> None:
    await cluster.node("a")
    await cluster.create("apps", "deployments", deployment(replicas=2))
    await cluster.settle()
    await cluster.delete("apps", "deployments", "web", propagation=propagation)
    await cluster.settle()
    for group, resource in (("apps", "deployments"), ("apps", "replicasets"), ("", "pods")):
        assert await cluster.list(group, resource) == []


async def test_what_happened_while_no_controller_ran_is_found_at_the_start(cluster: Cluster) -> None:
    later = Cluster()
    async with running(later):
        a = await make(later, "a")
    await make(later, "b", a)
    await later.delete("", "configmaps", "a")
    later.runner = ControllerRunner(later.registry)
    async with running(later):
        assert await names(later) == []


async def test_a_namespace_is_emptied_and_goes(cluster: Cluster) -> None:
    await cluster.node("a")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    await cluster.create("", "namespaces", space, "")
    await cluster.create("apps", "deployments", deployment(replicas=1), "team")
    await cluster.create("", "configmaps", config("c"), "team")
    await cluster.create("", "configmaps", config("other"))
    await cluster.settle()
    await cluster.delete("", "namespaces", "team", "")
    await cluster.quiet()
    assert (await cluster.get("", "namespaces", "team", ""))["status"]["phase"] == "Terminating", "a pod still ends"
    assert await cluster.list("", "configmaps", "team") == []
    await cluster.settle()
    with pytest.raises(StatusError, match="not found"):
        await cluster.get("", "namespaces", "team", "")
    assert await names(cluster) == ["other"]


async def test_the_namespaces_of_the_system_are_there_from_the_start(cluster: Cluster) -> None:
    spaces = await cluster.list("", "namespaces", "")
    assert [n["metadata"]["name"] for n in spaces] == ["default", "kube-node-lease", "kube-public", "kube-system"]


async def test_custom_objects_are_watched_as_soon_as_they_are_defined(cluster: Cluster) -> None:
    names_ = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "example.com", "names": names_, "scope": "Namespaced", "versions": [version]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
           "metadata": {"name": "things.example.com"}, "spec": spec}  # fmt: skip
    await cluster.create("apiextensions.k8s.io", "customresourcedefinitions", crd, "")
    await cluster.quiet()
    a = await make(cluster, "a")
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": config("t", a)["metadata"]}
    await cluster.create("example.com", "things", thing)
    await cluster.delete("", "configmaps", "a")
    await cluster.quiet()
    assert await cluster.list("example.com", "things") == []


async def test_a_deleted_pod_of_a_node_that_is_gone_is_not_waited_for(cluster: Cluster) -> None:
    """The quarantine is the queue's; here the decision.  A pod that nobody deleted stays: its site may well run it."""
    await cluster.node("a")
    for name in ("p", "kept"):
        await cluster.create("", "pods", pod(name, nodeName="a"))
    await cluster.delete("", "pods", "p")
    await cluster.quiet()
    view = cluster.runner._view
    key, kept = (ObjectKey("", "pods", "default", name) for name in ("p", "kept"))
    assert podgc.reconcile(view, key, 0).writes == [], "its node confirms"
    before = cluster.storage.get(ObjectKey("", "nodes", "", "a"))
    await cluster.delete("", "nodes", "a", "")
    assert list(podgc.concerns(view, None, before)) == [key]
    assert podgc.reconcile(view, kept, 0).writes == []
    await cluster.quiet()
    assert await names(cluster, "pods") == ["kept", "p"] and cluster.runner._queues["podgc"].waiting == 1
    (write,) = podgc.reconcile(view, key, 0).writes
    assert (write.verb, write.key, write.grace_s) == ("delete", key, 0)
    await api.execute(cluster.registry, write, "test")
    assert await names(cluster, "pods") == ["kept"]
    await cluster.delete("", "pods", "kept")
    await cluster.quiet()
    assert list(podgc.concerns(view, cluster.storage.get(kept), None)) == [kept], "deleted later: the same"


async def test_events_are_kept_for_an_hour(cluster: Cluster) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Old",
        "message": "",
        "type": "Normal",
    }
    await cluster.create("", "events", {**event, "lastTimestamp": "2020-01-01T00:00:00Z"})
    await cluster.create("", "events", {**event, "metadata": {"name": "f"}})
    assert await names(cluster, "events") == ["f"]
    assert cluster.runner._queues["eventttl"].waiting == 1


async def test_controllers_can_be_left_out_by_name() -> None:
    cluster = Cluster()
    cluster.runner = ControllerRunner(cluster.registry, [n for n in CONTROLLERS if n != "scheduler"])
    async with running(cluster):
        await cluster.node("a")
        await cluster.create("apps", "deployments", deployment(replicas=1))
        await cluster.quiet()
        assert [p["spec"].get("nodeName") for p in await cluster.list("", "pods")] == [None]
    with pytest.raises(ValueError, match="no controller nonsense"):
        ControllerRunner(cluster.registry, ["nonsense"])


async def test_a_write_that_can_not_be_stored_is_tried_again(cluster: Cluster) -> None:
    a = await make(cluster, "a")
    await make(cluster, "b", a)
    await cluster.quiet()
    await cluster.delete("", "configmaps", "a")
    cluster.storage.fail_next = Unavailable("the hub is away")  # before the collector had its turn
    await cluster.until(lambda: not cluster.storage.list("", "configmaps"))
    assert cluster.runner.stats.retried == 1


async def test_a_log_that_was_restored_is_listed_anew(cluster: Cluster) -> None:
    """Its revisions begin lower; what is gone since the backup is seen as gone."""
    a = await make(cluster, "a")
    await make(cluster, "b", a)
    await cluster.quiet()
    kept = [s for s in cluster.storage.list("", "namespaces")]
    b = next(s for s in cluster.storage.list("", "configmaps") if s.key.name == "b")
    cluster.storage.cache.reset(1, [*kept, Stored(b.key, 1, b.object, b.event_id, b.trace)])
    await cluster.until(lambda: not cluster.storage.list("", "configmaps"))


async def test_what_can_not_be_stored_is_never_given_up(cluster: Cluster, monkeypatch: Any) -> None:
    """The hub may be away for longer than any number of tries; nothing else changes when it is back."""
    monkeypatch.setattr(attending, "RETRIES_MAX", 2)
    monkeypatch.setattr(attending, "RETRY_S", 0.001)
    a = await make(cluster, "a")
    await make(cluster, "b", a)
    await cluster.quiet()
    await cluster.delete("", "configmaps", "a")

    async def away(*_: Any) -> Stored:
        raise Unavailable("the hub is away")

    with monkeypatch.context() as broken:
        broken.setattr(cluster.storage, "delete", away)
        await cluster.until(lambda: cluster.runner.stats.retried > 6)
    await cluster.until(lambda: not cluster.storage.list("", "configmaps"))
    assert cluster.runner.stats.given_up == 0


async def test_nobody_decides_while_an_index_misses_something(cluster: Cluster, monkeypatch: Any) -> None:
    """Between a watch that fell behind and the new list a replica set would not find the pods that it has."""
    monkeypatch.setattr(run_controllers, "RELIST_S", 3600)
    await cluster.node("a")
    cluster.storage.cache.reset(cluster.storage.revision(), [s for k in cluster.runner._view.kinds()
                                                             for s in cluster.storage.list(*k)])  # fmt: skip
    await cluster.until(lambda: not cluster.runner.loaded.is_set())
    await cluster.create("", "pods", pod("p"))
    done = cluster.runner.stats.reconciled
    cluster.runner._queues["scheduler"].add(ObjectKey("", "pods", "default", "p"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert cluster.runner.stats.reconciled == done and not cluster.runner.idle


async def test_of_very_many_pods_that_ended_the_oldest_go(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podgc, "ENDED_MAX", 3)
    monkeypatch.setattr(podgc, "ENDED_AT_ONCE", 1)
    await cluster.node("a")
    for i in range(5):
        await cluster.create("", "pods", pod(f"p{i}", restartPolicy="Never"))
        await cluster.quiet()
    await cluster.create("", "pods", pod("runs"))
    await cluster.settle(ends=lambda p: "Succeeded" if p["metadata"]["name"] != "runs" else "")
    view = cluster.runner._view
    assert len(view.ended()) == 5
    first = podgc.ended_reconcile(view, podgc.ALL, 0)
    assert [w.key.name for w in first.writes] == ["p0"] and first.again_us is not None, "the rest a little later"
    await cluster.delete("", "pods", "p0")
    await cluster.delete("", "pods", "p1")
    await cluster.quiet()
    assert podgc.ended_reconcile(view, podgc.ALL, 0).writes == []
