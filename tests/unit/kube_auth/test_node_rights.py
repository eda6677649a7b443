"""A node reads what its pods name and changes what is its own; everything else is refused in the real server's words."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube import pod_references
from tests.unit.kube_auth.conftest import Roles

ONE, TWO = "system:node:n1/system:nodes", "system:node:n2/system:nodes"
CORE = "/api/v1/namespaces/default"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces"


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "i", **spec.pop("container", {})}]
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers, **spec}}


def secret(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


async def refused(api: Roles, as_: str, method: str, path: str, body: Any = None, **headers: str) -> str:
    code, got = await api.ask(as_, method, path, body, **headers)
    assert code == 403 and got["reason"] == "Forbidden", got
    message: str = got["message"]
    return message


@pytest.fixture
async def two(api: Roles) -> Roles:
    """Two nodes with a pod each; the first one's names a secret, a config map and a claim."""
    for node in ("n1", "n2"):
        await api.admin("POST", NODES, {"metadata": {"name": node}})
    for name in ("mine", "pull", "other"):
        await api.admin("POST", f"{CORE}/secrets", secret(name))
        await api.admin("POST", f"{CORE}/configmaps", secret(name))
    volumes = [
        {"name": "a", "projected": {"sources": [{"configMap": {"name": "mine"}}]}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "data"}},
    ]
    env = {"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]}
    first = pod("p1", "n1", container=env, volumes=volumes, imagePullSecrets=[{"name": "pull"}])
    await api.admin("POST", f"{CORE}/pods", first)
    await api.admin("POST", f"{CORE}/pods", pod("p2", "n2"))
    return api


async def test_a_node_reads_what_its_pods_name(two: Roles) -> None:
    for path in ("secrets/mine", "secrets/pull", "configmaps/mine", "pods/p1"):
        code, got = await two.ask(ONE, "GET", f"{CORE}/{path}")
        assert code == 200, got
        why = await refused(two, TWO, "GET", f"{CORE}/{path}")
        assert why.endswith("no relationship found between node 'n2' and this object"), why
    assert "no relationship" in await refused(two, ONE, "GET", f"{CORE}/secrets/other")
    code, _ = await two.ask(ONE, "GET", f"{CORE}/secrets?fieldSelector=metadata.name%3Dmine")
    assert code == 200, "a watch of one secret, as kubelets do it"
    assert (await refused(two, ONE, "GET", f"{CORE}/secrets")).endswith(": No Object name found")
    assert "can only read namespaced object of this type" in await refused(two, ONE, "GET", "/api/v1/secrets")
    assert "can only read resources of this type" in await refused(two, ONE, "DELETE", f"{CORE}/secrets/mine")
    assert (await refused(two, ONE, "GET", f"{CORE}/persistentvolumeclaims")).endswith(
        "can only get individual resources of this type"
    )


async def test_a_node_of_no_name_or_no_group_is_nobody(two: Roles) -> None:
    why = await refused(two, "system:node:/system:nodes", "GET", f"{CORE}/secrets/mine")
    assert why.endswith('unknown node for user "system:node:"')
    assert "relationship" not in await refused(two, "system:node:n1", "GET", f"{CORE}/secrets/mine")


async def test_roles_give_a_node_what_it_has_not_as_a_node(two: Roles) -> None:
    await two.role("all-secrets", {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})
    await two.bind("all-secrets", "User/system:node:n1")
    assert (await two.ask(ONE, "GET", f"{CORE}/secrets/other"))[0] == 200


async def test_pods_are_listed_by_their_node_and_services_by_all(two: Roles) -> None:
    code, got = await two.ask(ONE, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
    assert code == 200 and [p["metadata"]["name"] for p in got["items"]] == ["p1"]
    for selector in ("", "?fieldSelector=spec.nodeName%3Dn2", "?fieldSelector=spec.nodeName%21%3Dn1"):
        why = await refused(two, ONE, "GET", "/api/v1/pods" + selector)
        assert why.endswith("can only list/watch pods with spec.nodeName field selector"), selector
    assert (await two.ask(ONE, "GET", "/api/v1/services"))[0] == 200
    assert await two.can(ONE, "get", "secrets", "default", "mine") and not await two.can(
        TWO, "get", "secrets", "default", "mine"
    )


async def test_its_own_node_and_no_other(two: Roles) -> None:
    assert (await two.ask(ONE, "GET", f"{NODES}/n1"))[0] == 200
    assert (await two.ask(ONE, "GET", f"{NODES}?fieldSelector=metadata.name%3Dn1"))[0] == 200
    assert (await refused(two, ONE, "GET", f"{NODES}/n2")).endswith("node 'n1' cannot read 'n2', only its own Node object")
    assert (await refused(two, ONE, "GET", NODES)).endswith("node 'n1' cannot read all nodes, only its own Node object")
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await two.ask(ONE, "PATCH", f"{NODES}/n1/status", ready, **merge))[0] == 200
    why = await refused(two, ONE, "PATCH", f"{NODES}/n2/status", ready, **merge)
    assert why == 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    assert "delete" in await refused(two, ONE, "DELETE", f"{NODES}/n1")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metadata": {"labels": {"node-restriction.kubernetes.io/vault": "yes"}}}, "node-restriction.kubernetes.io/vault"),
        ({"metadata": {"labels": {"x.node-restriction.kubernetes.io/a": "1"}}}, "x.node-restriction.kubernetes.io/a"),
        ({"metadata": {"labels": {"node-role.kubernetes.io/master": ""}}}, "node-role.kubernetes.io/master"),
        ({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, 'node "n1" is not allowed to modify taints'),
    ],
)
async def test_labels_and_taints_that_pods_rely_on_are_not_its_own(two: Roles, change: dict[str, Any], why: str) -> None:
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await refused(two, ONE, "PATCH", f"{NODES}/n1", change, **merge)).endswith(why)


async def test_a_node_registers_itself_with_plain_labels(api: Roles) -> None:
    labels = {"kubernetes.io/os": "linux", "mine": "1", "node.kubernetes.io/kind": "x", "example.com/a": "b"}
    code, got = await api.ask(ONE, "POST", NODES, {"metadata": {"name": "n1", "labels": labels}})
    assert code == 201, got
    bad = {**labels, "node-restriction.kubernetes.io/a": "", "k8s.io/b": ""}
    why = await refused(api, TWO, "POST", NODES, {"metadata": {"name": "n2", "labels": bad}})
    assert why.endswith("is not allowed to set the following labels: k8s.io/b, node-restriction.kubernetes.io/a")
    assert "not allowed to modify node" in await refused(api, TWO, "POST", NODES, {"metadata": {"name": "n3"}})


async def test_leases(api: Roles) -> None:
    path = f"{LEASES}/kube-node-lease/leases"
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}
    assert (await api.ask(ONE, "POST", path, lease))[0] == 201
    assert (await api.ask(ONE, "GET", f"{path}/n1"))[0] == 200
    own = "can only access node lease with the same name as the requesting node"
    assert (await refused(api, TWO, "GET", f"{path}/n1")).endswith(own)
    assert (await refused(api, TWO, "POST", path, {"metadata": {"name": "n9"}})).endswith(own)
    assert "kube-node-lease" in await refused(api, ONE, "POST", f"{LEASES}/default/leases", lease)


async def test_status_deletion_and_eviction_of_its_own_pods(two: Roles) -> None:
    merge = {"Content-Type": "application/merge-patch+json"}
    running = {"status": {"phase": "Running"}}
    assert (await two.ask(ONE, "PATCH", f"{CORE}/pods/p1/status", running, **merge))[0] == 200
    why = await refused(two, ONE, "PATCH", f"{CORE}/pods/p2/status", running, **merge)
    assert why.endswith('node "n1" can only update pod status for pods with spec.nodeName set to itself')
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p2"}}
    why = await refused(two, ONE, "POST", f"{CORE}/pods/p2/eviction", eviction)
    assert why.endswith('node "n1" can only evict pods with spec.nodeName set to itself')
    why = await refused(two, ONE, "DELETE", f"{CORE}/pods/p2")
    assert why.endswith('node "n1" can only delete pods with spec.nodeName set to itself')
    assert (await two.ask(ONE, "DELETE", f"{CORE}/pods/p1?gracePeriodSeconds=0"))[0] == 200
    assert (await two.ask(TWO, "POST", f"{CORE}/pods/p2/eviction", eviction))[0] == 201


async def test_mirror_pods_and_no_others(two: Roles) -> None:
    uid = (await two.admin("GET", f"{NODES}/n1"))["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}
    plain = pod("m", "n1")
    plain["metadata"] |= {"annotations": {pod_references.MIRROR: "x"}, "ownerReferences": [owner]}
    tries: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"annotations": {}}, {}, "can only create mirror pods"),
        ({}, {"nodeName": "n2"}, "can only create pods with spec.nodeName set to itself"),
        ({"ownerReferences": []}, {}, "with an owner reference set to itself"),
        ({"ownerReferences": [{**owner, "controller": False}]}, {}, "with a controller owner reference set to itself"),
        ({"ownerReferences": [{**owner, "uid": "other"}]}, {}, f"node n1 UID mismatch: expected {uid} got other"),
        ({}, {"serviceAccountName": "default"}, "can not create pods that reference a service account"),
        ({}, {"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}, "can not create pods that reference secrets"),
        ({}, {"volumes": [{"name": "v", "configMap": {"name": "other"}}]}, "can not create pods that reference configmaps"),
    ]
    for meta, spec, why in tries:
        body = {"metadata": {**plain["metadata"], **meta}, "spec": {**plain["spec"], **spec}}
        assert (await refused(two, ONE, "POST", f"{CORE}/pods", body)).endswith(why), why
    code, got = await two.ask(ONE, "POST", f"{CORE}/pods", plain)
    assert code == 201, got


async def test_tokens_of_its_own_pods_only(two: Roles) -> None:
    uids = {n: (await two.admin("GET", f"{CORE}/pods/{n}"))["metadata"]["uid"] for n in ("p1", "p2")}

    def asks(name: str, uid: str) -> dict[str, Any]:
        ref = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": ref}}

    path = f"{CORE}/serviceaccounts/default/token"
    code, got = await two.ask(ONE, "POST", path, asks("p1", uids["p1"]))
    assert code == 201 and got["status"]["token"]
    why = await refused(two, ONE, "POST", path, asks("p2", uids["p2"]))
    assert why.endswith("node requested token bound to a pod scheduled on a different node")
    assert (await refused(two, ONE, "POST", path, {"spec": {}})).endswith("node requested token not bound to a pod")
    assert (await refused(two, ONE, "POST", path, asks("p1", ""))).endswith("with a pod binding without a uid")
    await two.admin("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": "rich"}})
    why = await refused(two, ONE, "POST", f"{CORE}/serviceaccounts/rich/token", asks("p1", uids["p1"]))
    assert why.endswith("no relationship found between node 'n1' and this object")


async def test_a_volume_leads_to_its_secret(two: Roles) -> None:
    driver = {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "other", "namespace": "default"}}
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": driver}
    claim = {"namespace": "default", "name": "data"}
    await two.admin("POST", "/api/v1/persistentvolumes", {"metadata": {"name": "v"}, "spec": {**spec, "claimRef": claim}})
    for path in ("/api/v1/persistentvolumes/v", f"{CORE}/secrets/other"):
        assert (await two.ask(ONE, "GET", path))[0] == 200
        await refused(two, TWO, "GET", path)


def test_every_way_to_name_something_is_known() -> None:
    spec = {
        "serviceAccountName": "a",
        "initContainers": [{"envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
        "ephemeralContainers": [{"env": [{"name": "x", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}}]}],
        "volumes": [
            {"name": "v1", "secret": {"secretName": "s2"}},
            {"name": "v2", "projected": {"sources": [{"secret": {"name": "s3"}}, {"serviceAccountToken": {"path": "t"}}]}},
            {"name": "v3", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s4"}}},
            {"name": "v4", "ephemeral": {"volumeClaimTemplate": {}}},
        ],
    }
    named = pod_references.of({"metadata": {"name": "p"}, "spec": spec})
    assert named == {
        ("serviceaccounts", "a"), ("secrets", "s1"), ("secrets", "s2"), ("secrets", "s3"), ("secrets", "s4"),
        ("configmaps", "c1"), ("configmaps", "c2"), ("persistentvolumeclaims", "p-v4"),
    }  # fmt: skip
