"""Defaults, validation and subresources of the built-in kinds."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from bus.kube.memory import MemoryStorage
from bus.kube.registry import Registry
from bus.kube.targets import Write
from tests.unit.kube_registry.conftest import ME, NS, Api, config_map, deployment, pod


async def test_pod_defaults(api: Api) -> None:
    got = await api.create(
        "pods",
        pod(
            containers=[
                {
                    "name": "a",
                    "image": "registry:5000/busybox",
                    "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                    "livenessProbe": {"httpGet": {"port": "web"}},
                    "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                },
                {"name": "b", "image": "busybox:1"},
            ],
            volumes=[{"name": "c", "configMap": {"name": "x"}}, {"name": "e"}],
        ),
    )
    spec = got["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"], spec["terminationGracePeriodSeconds"]) == (
        "Always",
        "ClusterFirst",
        30,
    )
    a, b = spec["containers"]
    assert a["imagePullPolicy"] == "Always" and b["imagePullPolicy"] == "IfNotPresent"
    assert a["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert a["resources"] == {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}
    assert a["livenessProbe"]["httpGet"] == {"port": "web", "path": "/", "scheme": "HTTP"}
    assert a["livenessProbe"]["failureThreshold"] == 3 and a["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["volumes"] == [
        {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "e", "emptyDir": {}},
    ]
    assert got["status"] == {"phase": "Pending", "qosClass": "Burstable"}


C = {"name": "a", "image": "i"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image"),
        ({"containers": [{"image": "i"}]}, "spec.containers[0].name"),
        ({"containers": [C, C]}, "spec.containers[1].name"),
        ({"containers": [C], "initContainers": [C]}, "spec.initContainers[0].name"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"dnsPolicy": "No"}, "spec.dnsPolicy"),
        ({"containers": [{**C, "ports": [{"containerPort": 70000}]}]}, "spec.containers[0].ports[0].containerPort"),
        (
            {"containers": [{**C, "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]},
            "spec.containers[0].volumeMounts[0].name",
        ),
        ({"containers": [{**C, "livenessProbe": {}}]}, "spec.containers[0].livenessProbe"),
        ({"containers": [{**C, "env": [{"name": ""}]}]}, "spec.containers[0].env[0].name"),
        ({"containers": [{**C, "env": [{"name": "A", "valueFrom": {}}]}]}, "spec.containers[0].env[0].valueFrom"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "spec.volumes[1].name"),
        ({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}, "spec.volumes[0].hostPath"),
        (
            {"containers": [{**C, "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}]},
            "spec.containers[0].resources.requests",
        ),
        ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator"),
        ({"nodeName": "No Name"}, "spec.nodeName"),
    ],
)
async def test_invalid_pods(api: Api, refused: Any, spec: dict[str, Any], field: str) -> None:
    error = await refused(api.create("pods", pod(**spec)), 422, "Invalid")
    assert [c["field"] for c in error.details["causes"]] == [field]


async def test_pods_change_their_image_only(api: Api, refused: Any) -> None:
    await api.create("pods", pod())
    got = await api.patch("pods", "p", {"spec": {"containers": [{"name": "main", "image": "busybox:7"}]}}, "strategic")
    assert got["spec"]["containers"][0]["image"] == "busybox:7" and got["metadata"]["generation"] == 2
    for change in ({"hostNetwork": True}, {"nodeName": "n"}, {"containers": [C]}):
        await refused(api.patch("pods", "p", {"spec": change}), 422, "Invalid")
    tolerated = await api.patch("pods", "p", {"spec": {"tolerations": [{"operator": "Exists"}]}})
    assert tolerated["spec"]["tolerations"]
    await refused(api.patch("pods", "p", {"spec": {"tolerations": None}}), 422, "Invalid")


async def test_status_is_its_own(api: Api) -> None:
    await api.create("pods", {**pod(), "status": {"phase": "Running"}})
    assert (await api.patch("pods", "p", {"status": {"phase": "Running"}}))["status"]["phase"] == "Pending"
    change = {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n"}}
    got = await api.patch("pods", "p", change, sub="status")
    assert got["status"]["phase"] == "Running" and "nodeName" not in got["spec"]
    assert got["metadata"]["labels"] == {"a": "b"}, "which a real server lets through, and NodeRestriction keeps nodes from"
    assert got["metadata"]["generation"] == 1


async def test_binding(api: Api, refused: Any) -> None:
    await api.create("pods", pod())

    def bind(node: str) -> Any:
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}}
        return api.rules.create("", "pods", NS, body, how=Write(ME), name="p", subresource="binding")

    await refused(bind(""), 422, "Invalid")
    assert (await bind("n1"))["status"] == "Success"
    got = await api.get("pods", "p")
    assert got["spec"]["nodeName"] == "n1" and got["status"]["conditions"][0]["type"] == "PodScheduled"
    error = await refused(bind("n2"), 409, "Conflict")
    assert 'already assigned to node "n1"' in error.message


async def test_eviction_is_a_delete(api: Api) -> None:
    await api.create("pods", pod(nodeName="n"))
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    got = await api.rules.create("", "pods", NS, body, how=Write(ME), name="p", subresource="eviction")
    assert got["status"] == "Success" and (await api.get("pods", "p"))["metadata"]["deletionTimestamp"]


async def test_deployments(api: Api, refused: Any) -> None:
    got = await api.create("deployments", deployment(), "apps")
    spec = got["spec"]
    assert spec["replicas"] == 1 and spec["strategy"]["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert spec["template"]["spec"]["restartPolicy"] == "Always" and got["status"] == {}
    for change in (
        {"selector": {"matchLabels": {"app": "other"}}},
        {"selector": None},
        {"replicas": -1},
        {"strategy": {"type": "Recreate"}},  # rollingUpdate is still there
        {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
        {"strategy": {"rollingUpdate": {"maxSurge": "x%"}}},
        {"template": {"spec": {"restartPolicy": "Never"}}},
    ):
        await refused(api.patch("deployments", "web", {"spec": change}, group="apps"), 422, "Invalid")
    assert (await api.get("deployments", "web", "apps")) == got


async def test_scale(api: Api, refused: Any) -> None:
    await api.create("deployments", deployment(replicas=0), "apps")
    scale = await api.rules.get("apps", "deployments", NS, "web", subresource="scale")
    assert scale["kind"] == "Scale" and "replicas" not in scale["spec"] and scale["status"]["selector"] == "app=web"
    scale["spec"]["replicas"] = 3
    got = await api.rules.update("apps", "deployments", NS, "web", scale, how=Write(ME), subresource="scale")
    assert got["spec"]["replicas"] == 3
    parent = await api.get("deployments", "web", "apps")
    assert parent["spec"]["replicas"] == 3 and parent["metadata"]["generation"] == 2
    await refused(
        api.rules.update("apps", "deployments", NS, "web", scale, how=Write(ME), subresource="scale"), 409, "Conflict"
    )
    await refused(api.patch("deployments", "web", {"spec": {"replicas": -1}}, group="apps", sub="scale"), 422, "Invalid")
    await refused(api.patch("configmaps", "web", {}, sub="scale"), 404, "NotFound")


async def test_secrets(api: Api, refused: Any) -> None:
    secret = {"metadata": {"name": "s"}, "stringData": {"k": "value"}, "data": {"o": "bw=="}}
    got = await api.create("secrets", secret)
    assert got["type"] == "Opaque" and "stringData" not in got
    assert got["data"] == {"k": base64.b64encode(b"value").decode(), "o": "bw=="}
    await refused(api.create("secrets", {"metadata": {"name": "t"}, "data": {"k": "not base64!"}}), 400, "BadRequest")
    await refused(api.create("secrets", {"metadata": {"name": "t"}, "type": "kubernetes.io/tls"}), 422, "Invalid")
    await refused(api.patch("secrets", "s", {"type": "other"}), 422, "Invalid")


async def test_immutable_config_maps(api: Api, refused: Any) -> None:
    await api.create("configmaps", {**config_map(a="1"), "immutable": True})
    await refused(api.patch("configmaps", "x", {"data": {"a": "2"}}), 422, "Invalid")
    await refused(api.patch("configmaps", "x", {"immutable": False}), 422, "Invalid")
    assert (await api.patch("configmaps", "x", {"metadata": {"labels": {"l": "1"}}}))["metadata"]["labels"]
    await refused(api.create("configmaps", config_map("y", **{"bad key": "1"})), 422, "Invalid")


async def test_services(api: Api, refused: Any) -> None:
    web = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}
    got = await api.create("services", web)
    spec = got["spec"]
    assert spec["type"] == "ClusterIP" and spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert spec["clusterIP"].startswith("10.96.") and spec["clusterIPs"] == [spec["clusterIP"]]
    other = await api.create("services", {"metadata": {"name": "db"}, "spec": {"clusterIP": "None"}})
    assert other["spec"]["clusterIP"] == "None"
    assert (await api.update("services", web))["spec"]["clusterIP"] == spec["clusterIP"]
    await refused(api.patch("services", "web", {"spec": {"clusterIP": "10.96.1.1"}}), 422, "Invalid")
    await refused(api.create("services", {"metadata": {"name": "bad"}, "spec": {}}), 422, "Invalid")
    two = {"metadata": {"name": "two"}, "spec": {"ports": [{"port": 80}, {"port": 81}]}}
    await refused(api.create("services", two), 422, "Invalid")


async def test_addresses_of_services_never_repeat(api: Api) -> None:
    seen = set()
    for i in range(60):
        got = await api.create("services", {"metadata": {"name": f"s{i}"}, "spec": {"ports": [{"port": 1}]}})
        seen.add(got["spec"]["clusterIP"])
    assert len(seen) == 60


async def test_a_node_registers_with_its_status(api: Api) -> None:
    node = {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4", "memory": "2048Mi"}}}
    got = await api.create("nodes", node, namespace="")
    assert got["status"]["capacity"] == {"cpu": "4", "memory": "2Gi"}


async def test_a_reader_only_refuses_every_write(refused: Any) -> None:
    class OnlyReads:
        def __init__(self, inner: MemoryStorage) -> None:
            self.revision, self.get, self.list = inner.revision, inner.get, inner.list
            self.at, self.watch = inner.at, inner.watch

    rules = Registry(OnlyReads(MemoryStorage()))
    how = Write(ME)
    assert not rules.writable
    await refused(rules.create("", "configmaps", NS, config_map(), how=how), 405, "MethodNotAllowed")
    await refused(rules.update("", "configmaps", NS, "x", config_map(), how=how), 405, "MethodNotAllowed")
    await refused(rules.patch("", "configmaps", NS, "x", {}, kind="merge", how=how), 405, "MethodNotAllowed")
    await refused(rules.delete("", "configmaps", NS, "x", how=how), 405, "MethodNotAllowed")
    assert await rules.list("", "configmaps") == ([], 0)


async def test_ephemeral_containers_are_added_and_never_changed(api: Api, refused: Callable[..., Any]) -> None:
    await api.create("pods", pod())
    one = {"name": "doctor", "image": "busybox:1"}

    async def write(*containers: dict[str, Any]) -> Any:
        return await api.patch("pods", "p", {"spec": {"ephemeralContainers": list(containers)}}, sub="ephemeralcontainers")

    got = await write(one)
    kept = got["spec"]["ephemeralContainers"][0]
    assert kept["imagePullPolicy"] == "IfNotPresent" and "resources" in kept
    got = await write(
        kept, {"name": "nurse", "image": "busybox", "targetContainerName": got["spec"]["containers"][0]["name"]}
    )
    assert [c["name"] for c in got["spec"]["ephemeralContainers"]] == ["doctor", "nurse"]
    both = got["spec"]["ephemeralContainers"]
    for containers, said in (
        ((both[0],), 'existing ephemeral containers "nurse" may not be removed'),
        (({**both[0], "image": "other:1"}, both[1]), 'existing ephemeral containers "doctor" may not be changed'),
        ((*both, {"name": "doctor", "image": "x:1"}), "Duplicate value"),
        (
            (*both, {"name": "x", "image": "x:1", "ports": [{"containerPort": 1}]}),
            "cannot be set for an Ephemeral Container",
        ),
        ((*both, {"name": "x", "image": "x:1", "targetContainerName": "nobody"}), 'Not found: "nobody"'),
    ):
        error = await refused(write(*containers), 422, "Invalid")
        assert said in error.message, error.message
    await refused(api.create("pods", {**pod(), "spec": {**pod()["spec"], "ephemeralContainers": [one]}}), 422, "Invalid")
