"""Persistent volumes and claims: who gets which, where, and what goes when."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.errors import StatusError
from schemas import local_volumes
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, condition, pod

Object = dict[str, Any]


def claim(name: str, size: str = "1Gi", cls: str | None = "manual", **spec: Any) -> Object:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    if cls is not None:
        body["storageClassName"] = cls
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": body}


def volume(name: str, size: str = "1Gi", cls: str = "manual", node: str = "", **spec: Any) -> Object:
    body: Object = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": cls, **spec}
    body.setdefault("hostPath", {"path": f"/data/{name}"})
    if node:
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
        body["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": body}


def kind(name: str, provisioner: str = "kubernetes.io/no-provisioner", mode: str = "WaitForFirstConsumer") -> Object:
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    return {**head, "provisioner": provisioner, "volumeBindingMode": mode}


def user(name: str, *claims: str, **spec: Any) -> Object:
    return pod(name, volumes=[{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims], **spec)


async def make(cluster: Cluster, *objects: Object) -> None:
    where = {"PersistentVolume": ("", "persistentvolumes"), "PersistentVolumeClaim": ("", "persistentvolumeclaims")}
    where |= {"StorageClass": ("storage.k8s.io", "storageclasses"), "Pod": ("", "pods")}
    for o in objects:
        cluster_wide = o["kind"] in ("PersistentVolume", "StorageClass")
        await cluster.create(*where[o["kind"]], o, "" if cluster_wide else "default")
        await cluster.quiet()


async def state(cluster: Cluster, name: str) -> tuple[str, str]:
    """(phase, volume) of a claim."""
    await cluster.quiet()
    found = await cluster.get("", "persistentvolumeclaims", name)
    return found["status"]["phase"], found["spec"].get("volumeName", "")


async def phase(cluster: Cluster, name: str) -> str:
    await cluster.quiet()
    return str((await cluster.get("", "persistentvolumes", name, ""))["status"]["phase"])


async def told(cluster: Cluster, name: str) -> list[str]:
    await cluster.quiet()
    return [e["reason"] for e in await cluster.list("", "events") if e["involvedObject"]["name"] == name]


async def nodes(cluster: Cluster, *names: str) -> None:
    for name in names:
        await cluster.node(name, labels={"kubernetes.io/hostname": name})


async def test_the_smallest_that_will_do(cluster: Cluster) -> None:
    await make(cluster, volume("big", "9Gi"), volume("small", "1Gi"), volume("fit", "3Gi"), volume("other", "3Gi", "x"))
    assert await phase(cluster, "fit") == "Available"
    await make(cluster, claim("c", "2Gi"))
    assert await state(cluster, "c") == ("Bound", "fit") and await phase(cluster, "fit") == "Bound"
    bound = await cluster.get("", "persistentvolumeclaims", "c")
    assert bound["status"]["capacity"] == {"storage": "3Gi"} and bound["status"]["accessModes"] == ["ReadWriteOnce"]
    ref = (await cluster.get("", "persistentvolumes", "fit", ""))["spec"]["claimRef"]
    assert (ref["namespace"], ref["name"], ref["uid"]) == ("default", "c", bound["metadata"]["uid"])


@pytest.mark.parametrize(
    ("spec", "of_volume"),
    [
        ({"accessModes": ["ReadWriteMany"]}, {}),
        ({"volumeMode": "Block"}, {}),
        ({"selector": {"matchLabels": {"a": "b"}}}, {}),
        ({}, {"claimRef": {"namespace": "default", "name": "someone"}}),
    ],
)
async def test_what_will_not_do(cluster: Cluster, spec: Object, of_volume: Object) -> None:
    await make(cluster, volume("v", **of_volume), claim("c", **spec))
    assert await state(cluster, "c") == ("Pending", "")


async def test_a_volume_that_is_kept_for_a_claim_and_a_claim_that_names_its_volume(cluster: Cluster) -> None:
    await make(cluster, volume("a"), volume("mine", "5Gi", claimRef={"namespace": "default", "name": "c"}), claim("c"))
    assert await state(cluster, "c") == ("Bound", "mine")
    await make(cluster, claim("d", volumeName="a"))
    assert await state(cluster, "d") == ("Bound", "a")
    await make(cluster, claim("e", volumeName="a"))
    assert await state(cluster, "e") == ("Pending", "a") and "FailedBinding" in await told(cluster, "e")


async def test_a_volume_that_comes_later_is_taken(cluster: Cluster) -> None:
    await make(cluster, claim("c"))
    assert await state(cluster, "c") == ("Pending", "")
    await make(cluster, volume("v"))
    assert await state(cluster, "c") == ("Bound", "v")


async def test_a_pod_goes_where_its_volume_is(cluster: Cluster) -> None:
    await nodes(cluster, "a", "b")
    await make(cluster, volume("v", node="b"), claim("c"), user("p", "c"))
    assert (await cluster.get("", "pods", "p"))["spec"]["nodeName"] == "b"
    await cluster.patch("", "nodes", "b", {"spec": {"unschedulable": True}}, "")
    await make(cluster, user("q", "c"))
    said = condition(await cluster.get("", "pods", "q"), "PodScheduled")["message"]
    assert "1 node(s) had volume node affinity conflict, 1 node(s) were unschedulable" in said


async def test_a_class_that_waits_binds_where_the_pod_can_be(cluster: Cluster) -> None:
    await nodes(cluster, "a", "b")
    await make(
        cluster, kind("wait"), volume("va", "1Gi", "wait", "a"), volume("vb", "2Gi", "wait", "b"), claim("c", cls="wait")
    )
    assert await state(cluster, "c") == ("Pending", "") and await told(cluster, "c") == ["WaitForFirstConsumer"]
    await make(cluster, user("p", "c", nodeSelector={"kubernetes.io/hostname": "b"}))
    assert await state(cluster, "c") == ("Bound", "vb")
    assert (await cluster.get("", "pods", "p"))["spec"]["nodeName"] == "b"
    await make(cluster, claim("d", cls="wait"), user("q", "d", nodeSelector={"kubernetes.io/hostname": "b"}))
    said = condition(await cluster.get("", "pods", "q"), "PodScheduled")["message"]
    assert "1 node(s) didn't find available persistent volumes to bind" in said


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([], 'persistentvolumeclaim "c" not found'),
        ([claim("c", cls="none")], "pod has unbound immediate PersistentVolumeClaims"),
    ],
)
async def test_what_keeps_a_pod_from_every_node(cluster: Cluster, claims: list[Object], message: str) -> None:
    await nodes(cluster, "a")
    await make(cluster, *claims, user("p", "c"))
    said = condition(await cluster.get("", "pods", "p"), "PodScheduled")["message"]
    assert said == (
        f"0/1 nodes are available: {message}. preemption: 0/1 nodes are available: "
        "1 Preemption is not helpful for scheduling."
    )
    await make(cluster, volume("v", cls="none"), *([] if claims else [claim("c", cls="none")]))
    assert (await cluster.get("", "pods", "p"))["spec"]["nodeName"] == "a"


async def provisioned(cluster: Cluster) -> Object:
    await nodes(cluster, "a", "b")
    await make(cluster, claim("c", cls=None), user("p", "c"))
    _, name = await state(cluster, "c")
    found: Object = await cluster.get("", "persistentvolumes", name, "")
    return found


async def test_a_claim_without_a_class_gets_a_folder_on_the_node_of_its_pod(cluster: Cluster) -> None:
    made = await provisioned(cluster)
    node = (await cluster.get("", "pods", "p"))["spec"]["nodeName"]
    assert local_volumes.of(made) == (made["metadata"]["name"], node) and made["status"]["phase"] == "Bound"
    assert (await cluster.get("", "persistentvolumeclaims", "c"))["spec"]["storageClassName"] == local_volumes.CLASS
    # A pod that names its node by itself decides as well.
    await make(cluster, claim("d", cls=None), user("q", "d", nodeName="b"))
    _, name = await state(cluster, "d")
    assert local_volumes.of(await cluster.get("", "persistentvolumes", name, "")) == (name, "b")


async def test_what_is_used_does_not_go_and_the_folder_goes_before_its_volume(cluster: Cluster) -> None:
    made = await provisioned(cluster)
    name, node = made["metadata"]["name"], str((await cluster.get("", "pods", "p"))["spec"]["nodeName"])
    await in_use(cluster, node, [local_volumes.in_use(name)])
    await cluster.delete("", "persistentvolumeclaims", "c")
    await cluster.delete("", "persistentvolumes", name, "")
    assert await state(cluster, "c") == ("Bound", name)
    await cluster.delete("", "pods", "p", grace_s=0)
    await cluster.quiet()
    assert await cluster.list("", "persistentvolumeclaims") == []
    leaving = await cluster.get("", "persistentvolumes", name, "")
    assert leaving["metadata"]["deletionTimestamp"] and leaving["metadata"]["finalizers"] == [local_volumes.DRIVER]
    await in_use(cluster, node, [])
    await cluster.quiet()
    assert await cluster.list("", "persistentvolumes", "") == []


async def in_use(cluster: Cluster, name: str, volumes: list[str]) -> None:
    node = await cluster.get("", "nodes", name, "")
    node["status"]["volumesInUse"] = volumes
    await cluster.registry.update("", "nodes", "", name, node, how=HOW, subresource="status")


@pytest.mark.parametrize(("policy", "left"), [("Retain", "Released"), ("Delete", "Failed")])
async def test_volumes_made_by_hand_stay_whatever_was_asked(cluster: Cluster, policy: str, left: str) -> None:
    await make(cluster, volume("v", persistentVolumeReclaimPolicy=policy), claim("c"))
    assert await state(cluster, "c") == ("Bound", "v")
    await cluster.delete("", "persistentvolumeclaims", "c")
    assert await phase(cluster, "v") == left
    await make(cluster, claim("c"))
    assert await state(cluster, "c") == ("Pending", ""), "another claim of the same name has no right to the data"


async def test_a_claim_that_lost_its_volume_says_so(cluster: Cluster) -> None:
    await make(cluster, volume("v"), claim("c"))
    assert await state(cluster, "c") == ("Bound", "v")
    await cluster.patch("", "persistentvolumes", "v", {"metadata": {"finalizers": None}}, "")
    await cluster.delete("", "persistentvolumes", "v", "")
    assert (await state(cluster, "c"))[0] == "Lost" and "ClaimLost" in await told(cluster, "c")


@pytest.mark.parametrize(
    ("cls", "spec", "reason"),
    [
        (kind("imm", local_volumes.DRIVER, "Immediate"), {}, "ProvisioningFailed"),
        (kind("ext", "example.com/disk", "Immediate"), {}, "ExternalProvisioning"),
        (kind("gone"), {"storageClassName": "nothing"}, "ProvisioningFailed"),
        (kind("none"), {"storageClassName": ""}, "FailedBinding"),
    ],
)
async def test_why_a_claim_waits(cluster: Cluster, cls: Object, spec: Object, reason: str) -> None:
    await make(cluster, cls, claim("c", **{"cls": None, "storageClassName": cls["metadata"]["name"], **spec}))
    assert (await state(cluster, "c"))[0] == "Pending" and await told(cluster, "c") == [reason]


@pytest.mark.parametrize(
    ("deleted", "scaled", "after_scale", "after_delete"),
    [
        ("Retain", "Retain", ["data-db-0", "data-db-1"], ["data-db-0", "data-db-1"]),
        ("Retain", "Delete", ["data-db-0"], ["data-db-0"]),
        ("Delete", "Retain", ["data-db-0", "data-db-1"], []),
        ("Delete", "Delete", ["data-db-0"], []),
    ],
)
async def test_claims_of_a_stateful_set(
    cluster: Cluster, deleted: str, scaled: str, after_scale: list[str], after_delete: list[str]
) -> None:
    await nodes(cluster, "a")
    labels = {"app": "db"}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "serviceName": "db",
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim("x", cls=None)["spec"]}],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
    }
    await cluster.create(
        "apps", "statefulsets", {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}
    )
    await cluster.settle()
    assert [p["status"]["phase"] for p in await cluster.list("", "pods")] == ["Running", "Running"]

    async def left() -> list[str]:
        await cluster.settle()
        return [c["metadata"]["name"] for c in await cluster.list("", "persistentvolumeclaims")]

    await cluster.patch("apps", "statefulsets", "db", {"spec": {"replicas": 1}})
    assert await left() == after_scale
    await cluster.delete("apps", "statefulsets", "db")
    assert await left() == after_delete


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (volume("v", local={"path": "/x"}, hostPath=None), "Local volume requires node affinity"),
        (volume("v", hostPath={"path": "/a/../b"}), "must not contain '..'"),
        (volume("v", local={"path": "/x"}, node="a"), "may not specify more than 1 volume type"),
        (volume("v", accessModes=[]), "spec.accessModes: Required value"),
        (volume("v", hostPath=None), "must specify a volume type"),
        (claim("c", accessModes=["Some"]), "supported values"),
        (claim("c", resources={}), "Required value"),
        (claim("c", volumeMode="Tape"), 'supported values: "Block", "Filesystem"'),
        (kind("k", mode="Soon"), "volumeBindingMode"),
        (kind("k", provisioner=""), "provisioner: Required value"),
    ],
)
async def test_what_makes_no_sense(cluster: Cluster, body: Object, why: str) -> None:
    with pytest.raises(StatusError, match=why):
        await make(cluster, body)


async def test_what_may_not_change(cluster: Cluster) -> None:
    await make(cluster, volume("v"), claim("c", selector={"matchLabels": {"a": "b"}}))
    with pytest.raises(StatusError, match="spec.persistentvolumesource is immutable"):
        await cluster.patch("", "persistentvolumes", "v", {"spec": {"hostPath": {"path": "/other"}}}, "")
    with pytest.raises(StatusError, match="immutable after creation except resources.requests"):
        await cluster.patch("", "persistentvolumeclaims", "c", {"spec": {"accessModes": ["ReadWriteMany"]}})
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    with pytest.raises(StatusError, match="immutable after creation except resources.requests"):
        await cluster.patch("", "persistentvolumeclaims", "c", more)
