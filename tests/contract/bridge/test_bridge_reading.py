"""What of a cluster comes into the log beside pods and their config: accounts, tokens, claims, slices, groups."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from bus import stamp
from bus.kube.deletion import DeleteOptions
from schemas import pod_tokens, times
from schemas.subjects import ObjectKey
from tests.contract.bridge.worlds import POD, World, pod, until

pytestmark = pytest.mark.contract

PROJECTED = {
    "name": "api",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"serviceAccountToken": {"path": "vault", "audience": "vault"}},
        ]
    },
}


class Issuer:
    """A cluster's TokenRequest: it gives what was asked for, at most ``life_s``."""

    def __init__(self, life_s: int) -> None:
        self.life_s = life_s
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        if request.method != "POST" or not request.path.endswith("/serviceaccounts/robot/token"):
            return None
        body = await request.json()
        self.asked.append(body["spec"])
        life_s = min(self.life_s, body["spec"]["expirationSeconds"])
        ends = times.rfc3339(stamp.now_us() + life_s * times.US_PER_S)
        body["status"] = {"token": f"token-{len(self.asked)}", "expirationTimestamp": ends}
        return web.json_response(body, status=201)


async def test_tokens_of_pods_on_edges_reach_their_node_before_the_pod_and_go_with_it(world: World) -> None:
    issuer = Issuer(10**9)
    world.proxy.rules.append(issuer)
    await world.node()
    made = await world.pod(serviceAccountName="robot", volumes=[PROJECTED])
    await world.pod("cloud", node="other", serviceAccountName="robot", volumes=[PROJECTED])
    at = pod_tokens.key("default", "p")
    async with world.dispatcher():
        async with world.bridge():
            await until(lambda: world.storage.get(at) is not None)
            held, pod = world.storage.get(at), world.storage.get(POD)
            assert held is not None and pod is not None and held.rev < pod.rev

            async def delivered() -> bool:
                return bool((await world.meta()).get(at))

            await until(delivered)
            node_has = (await world.meta())[at]
            assert node_has is not None
            uid = made["metadata"]["uid"]
            assert dict(pod_tokens.files(node_has)) == {f"{uid}/": b"token-1", f"{uid}/vault": b"token-2"}
            assert [a.get("audiences") for a in issuer.asked] == [None, ["vault"]]
            assert all(a["boundObjectRef"]["uid"] == uid and a["expirationSeconds"] * 0.2 >= 86400 for a in issuer.asked)
        async with world.bridge():
            pass
        assert len(issuer.asked) == 2, "a restart asks for nothing"
        await world.cluster.api.delete("", "pods", "default", "p", how=world.cluster.how())
        now = world.there(POD)
        if now is not None:
            stored = world.cluster.storage.get(POD)
            assert stored is not None
            await world.cluster.storage.delete(POD, stored.rev, world.cluster.how().origin)
        async with world.bridge():
            await until(lambda: world.storage.get(at) is None)


async def test_a_token_is_asked_for_again_before_its_end(world: World) -> None:
    issuer = Issuer(0)  # over at once: due at every look, as one at 80 % of its life is
    world.proxy.rules.append(issuer)
    await world.node()
    await world.pod(serviceAccountName="robot", volumes=[PROJECTED])
    async with world.bridge():
        await until(lambda: len(issuer.asked) >= 4)  # two for the start, two for the first look


async def test_a_cluster_that_gives_no_token_keeps_no_pod_from_running(world: World) -> None:
    async def refused(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"kind": "Status", "code": 403}, status=403) if request.path.endswith("/token") else None

    world.proxy.rules.append(refused)
    await world.node()
    await world.pod(serviceAccountName="robot", volumes=[PROJECTED])
    async with world.bridge():
        await until(lambda: world.storage.get(POD) is not None)


async def test_what_pods_name_comes_and_what_nobody_names_stays_away(world: World) -> None:
    await world.node()
    for name in ("robot", "unused"):
        await world.create("", "serviceaccounts", {"metadata": {"name": name}})
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"pv-{name}"}
        await world.create("", "persistentvolumeclaims", {"metadata": {"name": name}, "spec": claim})
        volume: dict[str, Any] = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
        volume["hostPath"] = {"path": "/d"}
        await world.create("", "persistentvolumes", {"metadata": {"name": f"pv-{name}"}, "spec": volume}, "")
    for namespace in ("default", "kube-public"):
        ports = {"addressType": "IPv4", "endpoints": [], "ports": []}
        await world.create("discovery.k8s.io", "endpointslices", {"metadata": {"name": "s"}, **ports}, namespace)
    group = {"metadata": {"name": "g"}, "spec": {"nodes": ["edge-1"]}}
    await world.create("apps.kubeedge.io", "nodegroups", group, "")
    data = {"name": "d", "persistentVolumeClaim": {"claimName": "robot"}}
    await world.pod(serviceAccountName="robot", volumes=[data])

    def names(group: str, resource: str) -> set[str]:
        return {f"{s.key.namespace}/{s.key.name}" for s in world.storage.list(group, resource)}

    async with world.bridge():
        assert names("", "serviceaccounts") == {"default/robot"}
        assert names("", "persistentvolumeclaims") == {"default/robot"}
        assert names("", "persistentvolumes") == {"/pv-robot"}
        assert names("apps.kubeedge.io", "nodegroups") == {"/g"}
        await until(lambda: names("discovery.k8s.io", "endpointslices") == {"default/s"})
        stored = world.cluster.storage.get(POD)
        assert stored is not None
        await world.cluster.storage.delete(POD, stored.rev, world.cluster.how().origin)
        gone = [("", "serviceaccounts"), ("", "persistentvolumeclaims"), ("", "persistentvolumes")]
        gone.append(("discovery.k8s.io", "endpointslices"))
        await until(lambda: not any(names(*k) for k in gone))
    assert world.storage.get(ObjectKey("apps.kubeedge.io", "nodegroups", "", "g")) is not None


async def test_where_the_api_is_reaches_pods_of_every_namespace(world: World) -> None:
    """kubernetes.default, although no pod of that namespace is on an edge; and none of its other services go along."""
    await world.node()
    await world.create("", "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, "")
    ports = [{"name": "https", "port": 443}]
    for name in ("kubernetes", "other"):
        spec = {"clusterIP": "None", "externalIPs": ["192.0.2.7"], "ports": ports}
        await world.create("", "services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    await world.create("", "serviceaccounts", account, "shop")
    asks = {**pod("p"), "spec": {**pod("p")["spec"], "serviceAccountName": "robot", "volumes": [PROJECTED]}}
    await world.create("", "pods", asks, "shop")
    async with world.bridge(), world.dispatcher():
        at = ObjectKey("", "services", "default", "kubernetes")

        async def told() -> bool:
            there = await world.meta()
            return bool(there.get(at)) and not there.get(ObjectKey("", "services", "default", "other"))

        await until(told)
        # The last edge pod of a namespace ends what is watched for it, but not this.
        await world.pod("q")
        await until(lambda: "q" in world.held("pods"))
        await world.cluster.api.delete("", "pods", "default", "q", how=world.cluster.how(), options=DeleteOptions(grace_s=0))
        await until(lambda: "q" not in world.held("pods"))
        now = await world.cluster.api.get("", "services", "default", "kubernetes")
        now["spec"]["externalIPs"] = ["192.0.2.8"]
        await world.cluster.api.update("", "services", "default", "kubernetes", now, how=world.cluster.how())

        async def changed() -> bool:
            return ((await world.meta()).get(at) or {}).get("spec", {}).get("externalIPs") == ["192.0.2.8"]

        await until(changed)
