"""Services through the API: who answers for them, in Endpoints and in slices; and the accounts that pods are."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.errors import StatusError
from cloud.standalone.controllers import endpoints
from tests.unit.cloud_controllers.kubelets import Cluster, Object, deployment, pod

DISCOVERY = "discovery.k8s.io"


def service(**spec: Any) -> Object:
    ports = [{"name": "web", "port": 80, "targetPort": 8080}]
    spec = {"selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


@pytest.fixture
async def one(cluster: Cluster) -> Cluster:
    await cluster.node("edge-1")
    return cluster


async def listed(cluster: Cluster) -> tuple[list[str], list[str]]:
    """(ready, not ready) in Endpoints; slices must say the same."""
    subsets = (await cluster.get("", "endpoints", "web")).get("subsets", [])
    ready = sorted(a["targetRef"]["name"] for s in subsets for a in s.get("addresses", []))
    waiting = sorted(a["targetRef"]["name"] for s in subsets for a in s.get("notReadyAddresses", []))
    slices = await cluster.list(DISCOVERY, "endpointslices")
    found = [e for s in slices for e in s.get("endpoints") or [] if not e["conditions"]["terminating"]]
    assert sorted(e["targetRef"]["name"] for e in found if e["conditions"]["ready"]) == ready
    assert sorted(e["targetRef"]["name"] for e in found if not e["conditions"]["ready"]) == waiting
    return ready, waiting


async def test_ready_pods_answer_and_others_are_told_apart(one: Cluster) -> None:
    await one.create("", "services", service())
    await one.quiet()
    assert await listed(one) == ([], [])
    for name in ("a", "b"):
        await one.create("", "pods", pod(name, metadata={"labels": {"app": "web"}}))
    await one.create("", "pods", pod("c", metadata={"labels": {"app": "other"}}))
    await one.settle(healthy=lambda p: p["metadata"]["name"] != "b")
    assert await listed(one) == (["a"], ["b"])
    (s,) = await one.list(DISCOVERY, "endpointslices")
    assert s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert s["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]
    assert {e["nodeName"] for e in s["endpoints"]} == {"edge-1"}
    (subset,) = (await one.get("", "endpoints", "web"))["subsets"]
    assert subset["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]
    await one.patch("", "pods", "a", {"metadata": {"labels": {"app": "none"}}})
    await one.quiet()
    assert await listed(one) == ([], ["b"])
    await one.delete("", "pods", "b")
    await one.settle()
    assert await listed(one) == ([], [])


async def test_what_somebody_else_keeps_is_left_alone(one: Cluster) -> None:
    await one.create("", "services", service(selector=None))
    address = {"subsets": [{"addresses": [{"ip": "192.0.2.1"}]}]}
    await one.create("", "endpoints", {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, **address})
    await one.quiet()
    assert (await one.get("", "endpoints", "web"))["subsets"] == address["subsets"]
    await one.delete("", "services", "web")
    await one.quiet()
    assert (await one.get("", "endpoints", "web"))["subsets"] == address["subsets"]


async def test_they_go_with_their_service_and_come_again_when_deleted(one: Cluster) -> None:
    await one.create("", "services", service())
    await one.quiet()
    (s,) = await one.list(DISCOVERY, "endpointslices")
    await one.delete(DISCOVERY, "endpointslices", s["metadata"]["name"])
    await one.delete("", "endpoints", "web")
    await one.quiet()
    assert await listed(one) == ([], []) and len(await one.list(DISCOVERY, "endpointslices")) == 1
    await one.delete("", "services", "web")
    await one.quiet()
    assert await one.list("", "endpoints") == [] == await one.list(DISCOVERY, "endpointslices")


async def test_ports_by_name_and_many_endpoints(one: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "SLICE_ENDPOINTS_MAX", 2)
    await one.create("", "services", service(ports=[{"port": 80, "targetPort": "http"}]))
    for name, number in (("a", 8080), ("b", 8080), ("c", 8080), ("d", 9090)):
        ports = [{"name": "http", "containerPort": number}]
        await one.create("", "pods", pod(name, metadata={"labels": {"app": "web"}}, container={"ports": ports}))
    await one.create("", "pods", pod("none", metadata={"labels": {"app": "web"}}))
    await one.settle()
    slices = await one.list(DISCOVERY, "endpointslices")
    assert sorted((s["ports"][0]["port"], len(s["endpoints"])) for s in slices) == [(8080, 1), (8080, 2), (9090, 1)]
    assert (await listed(one))[0] == ["a", "b", "c", "d"]


async def test_every_namespace_has_a_default_account_and_pods_are_its(one: Cluster) -> None:
    await one.create("", "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}, "")
    await one.quiet()
    assert (await one.get("", "serviceaccounts", "default", "team"))["metadata"]["namespace"] == "team"
    await one.delete("", "serviceaccounts", "default", "team")
    await one.quiet()
    await one.get("", "serviceaccounts", "default", "team")
    await one.create("apps", "deployments", deployment(replicas=1))
    await one.create("", "pods", pod("mine", serviceAccountName="robot"))
    await one.quiet()
    names = sorted(p["spec"]["serviceAccountName"] for p in await one.list("", "pods"))
    assert names == ["default", "robot"]
    await one.delete("", "namespaces", "team", "")
    await one.quiet()
    with pytest.raises(StatusError, match="not found"):
        await one.get("", "namespaces", "team", "")


async def test_an_address_that_is_none(one: Cluster) -> None:
    bad = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "x"},
        "subsets": [{"addresses": [{"ip": "nowhere"}]}],
    }
    with pytest.raises(StatusError, match="must be a valid IP address"):
        await one.create("", "endpoints", bad)
