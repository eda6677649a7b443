"""The real kubectl, without any flags, against the API: what people type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.kube.errors import StatusError
from tests.contract.kube_served import WAIT_S, Served, served

pytestmark = pytest.mark.contract

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "busybox:1.36",
                        "ports": [{"containerPort": 80}],
                        "envFrom": [{"configMapRef": {"name": "settings"}}],
                        "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
                        "volumeMounts": [{"name": "v", "mountPath": "/etc/settings"}],
                    }
                ],
                "volumes": [{"name": "v", "configMap": {"name": "settings"}}],
            },
        },
    },
}
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
V1BETA1 = "devices.kubeedge.io/v1beta1"
MODEL = {
    "apiVersion": V1BETA1,
    "kind": "DeviceModel",
    "metadata": {"name": "thermo"},
    "spec": {"protocol": "modbus", "properties": [{"name": "setpoint", "type": "INT", "accessMode": "ReadWrite"}]},
}
DEVICE = {
    "apiVersion": V1BETA1,
    "kind": "Device",
    "metadata": {"name": "d1"},
    "spec": {
        "deviceModelRef": {"name": "thermo"},
        "nodeName": "edge-1",
        "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "port": 502}},
        "properties": [{"name": "setpoint", "desired": {"value": "20"}}],
    },
}
STATUS = {
    "apiVersion": V1BETA1,
    "kind": "DeviceStatus",
    "metadata": {"name": "d1"},
    "status": {"state": "online", "twins": [{"propertyName": "setpoint", "reported": {"value": "20"}}]},
}
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "edge-1", "labels": {"node-role.kubernetes.io/edge": ""}},
    "status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "EdgeReady"}],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "nodeInfo": {
            "kubeletVersion": "v1.35.0",
            "osImage": "Debian",
            "kernelVersion": "6.1",
            "containerRuntimeVersion": "docker://27",
        },
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "labels": {"app": "p"}},
    "spec": {"nodeName": "edge-1", "containers": [{"name": "c", "image": "busybox:1.36"}]},
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as found:
        yield found


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_apply_get_and_apply_again(api: Served) -> None:
    said = await api.apply(SETTINGS, SECRET, DEPLOYMENT, MODEL, DEVICE, STATUS, NODE)
    assert said.count("created") == 7
    assert (await api.apply(SETTINGS, DEPLOYMENT, MODEL, DEVICE)).count("unchanged") == 4
    wide = await api.ok("get", "nodes", "-o", "wide")
    assert rows(wide)[1][:3] == ["edge-1", "Ready", "edge"] and "docker://27" in wide and "10.0.0.1" in wide
    devices = await api.ok("get", "devices")
    assert rows(devices)[0] == ["NAME", "MODEL", "NODE", "PROTOCOL", "STATE", "TWINS", "AGE"]
    assert rows(devices)[1][:6] == ["d1", "thermo", "edge-1", "modbus", "online", "setpoint=20"]
    deploy = await api.ok("get", "deploy,cm,secrets", "-o", "wide")
    assert "busybox:1.36" in deploy and "app=web" in deploy and "Opaque" in deploy
    changed = json.loads(json.dumps(DEPLOYMENT))
    changed["spec"]["template"]["spec"]["containers"][0] |= {"image": "busybox:1.37", "envFrom": []}
    assert "configured" in await api.apply(changed)
    container = json.loads(await api.ok("get", "deploy", "web", "-o", "json"))["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "busybox:1.37" and "envFrom" not in container and container["ports"][0]["protocol"] == "TCP"
    assert (await api.ok("get", "deploy", "web", "-o", "jsonpath={.metadata.generation}")) == "2"
    assert (await api.ok("diff", "-f", "-", stdin=json.dumps(changed))) == ""


async def test_bad_manifests_are_refused_and_nothing_is_stored(api: Served) -> None:
    before = api.storage.revision()
    typo = {**SETTINGS, "dataa": {"x": "y"}}
    ran = await api.run("apply", "-f", "-", stdin=json.dumps(typo))
    assert ran.code == 1 and 'unknown field "dataa"' in ran.err
    ran = await api.run("apply", "-f", "-", stdin=json.dumps({**POD, "spec": {"containers": [{"name": "c"}]}}))
    assert ran.code == 1 and "spec.containers[0].image: Required value" in ran.err
    bad = {**MODEL, "spec": {"properties": [{"name": "x", "type": "NOPE", "accessMode": "ReadOnly"}]}}
    ran = await api.run("create", "-f", "-", stdin=json.dumps(bad))
    assert ran.code == 1 and 'Unsupported value: "NOPE"' in ran.err
    ran = await api.run(
        "apply", "-f", "-", stdin=json.dumps({**SETTINGS, "metadata": {"name": "x", "namespace": "nowhere"}})
    )
    assert ran.code == 1 and 'namespaces "nowhere" not found' in ran.err
    ran = await api.run("get", "nonsense")
    assert ran.code == 1 and "doesn't have a resource type" in ran.err
    assert api.storage.revision() == before


async def test_patches_labels_replace_and_scale(api: Served) -> None:
    await api.apply(SETTINGS, DEPLOYMENT, DEVICE)
    await api.ok("patch", "cm", "settings", "--type=json", "-p", '[{"op":"add","path":"/data/b","value":"2"}]')
    await api.ok("patch", "cm", "settings", "--type=merge", "-p", '{"data":{"a":null}}')
    side = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox:2"}]}}}}'
    await api.ok("patch", "deploy", "web", "-p", side)
    await api.ok("set", "image", "deploy/web", "main=busybox:9")
    desired = '{"spec":{"properties":[{"name":"setpoint","desired":{"value":"30"}}]}}'
    await api.ok("patch", "device", "d1", "--type=merge", "-p", desired)
    await api.ok("label", "deploy", "web", "tier=front")
    await api.ok("annotate", "cm", "settings", "note=x")
    await api.ok("scale", "deploy", "web", "--replicas=5")
    config = json.loads(await api.ok("get", "cm", "settings", "-o", "json"))
    assert config["data"] == {"b": "2"} and config["metadata"]["annotations"]["note"] == "x"
    config["data"] = {"c": "3"}
    await api.ok("replace", "-f", "-", stdin=json.dumps(config))
    ran = await api.run("replace", "-f", "-", stdin=json.dumps(config))
    assert ran.code == 1 and "the object has been modified" in ran.err
    deploy = json.loads(await api.ok("get", "deploy", "-l", "tier=front", "-o", "json"))["items"][0]
    images = [c["image"] for c in deploy["spec"]["template"]["spec"]["containers"]]
    assert sorted(images) == ["busybox:2", "busybox:9"] and deploy["spec"]["replicas"] == 5
    device = await api.ok("get", "device", "d1", "-o", "jsonpath={.spec.properties[0].desired.value}")
    assert device == "30"


async def test_watch_shows_changes_as_they_come(api: Served) -> None:
    await api.apply(SETTINGS)
    process = await api.start("get", "cm", "-w", "--output-watch-events")
    assert process.stdout is not None

    async def line() -> list[str]:
        async with asyncio.timeout(WAIT_S):
            return (await process.stdout.readline()).decode().split()  # type: ignore[union-attr]

    try:
        assert (await line())[:3] == ["EVENT", "NAME", "DATA"]
        assert (await line())[:3] == ["ADDED", "settings", "1"]
        how = api.how()
        patch = {"data": {"b": "2"}}
        await api.api.patch("", "configmaps", "default", "settings", patch, kind="merge", how=how)
        assert (await line())[:3] == ["MODIFIED", "settings", "2"]
        await api.api.delete("", "configmaps", "default", "settings", how=how)
        assert (await line())[:3] == ["DELETED", "settings", "2"]
    finally:
        process.terminate()
        await process.communicate()


async def test_delete_waits_for_the_node_and_sees_it_go(api: Served) -> None:
    await api.apply(POD)
    deleting = asyncio.create_task(api.ok("delete", "pod", "p"))
    async with asyncio.timeout(WAIT_S):
        while "deletionTimestamp" not in (await api.api.get("", "pods", "default", "p"))["metadata"]:
            await asyncio.sleep(0.02)
    assert rows(await api.ok("get", "pods"))[1][2] == "Terminating" and not deleting.done()
    from bus.kube.deletion import DeleteOptions

    await api.api.delete("", "pods", "default", "p", how=api.how(), options=DeleteOptions(grace_s=0))
    assert 'pod "p" deleted' in await deleting
    await api.apply(SETTINGS, SECRET)
    assert (await api.ok("delete", "cm", "--all")).count("deleted") == 1
    assert "Error from server (NotFound)" in (await api.run("get", "cm", "settings")).err


async def test_rollout_status_and_wait(api: Served) -> None:
    await api.apply(DEPLOYMENT, NODE)
    await api.ok("wait", "--for=condition=Ready", "node/edge-1", "--timeout=10s")
    rollout = asyncio.create_task(api.ok("rollout", "status", "deploy/web", "--timeout=20s"))
    for ready in (1, 2):
        counts = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": ready, "availableReplicas": ready}
        body = {"status": {**counts, "observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}}
        await api.api.patch("apps", "deployments", "default", "web", body, kind="merge", how=api.how(), subresource="status")
    assert "successfully rolled out" in await rollout
    assert rows(await api.ok("get", "deploy"))[1][1] == "2/2"
    await api.ok("wait", "--for=condition=Available", "deploy/web", "--timeout=10s")
    await api.ok("wait", "--for=jsonpath={.status.readyReplicas}=2", "deploy/web", "--timeout=10s")


async def test_describe_explain_and_discovery(api: Served) -> None:
    await api.apply(POD, NODE, DEPLOYMENT, DEVICE)
    assert "edge-1/" in await api.ok("describe", "pod", "p")
    assert "default" in await api.ok("describe", "node", "edge-1")
    assert "RollingUpdate" in await api.ok("describe", "deploy", "web")
    assert "thermo" in await api.ok("describe", "device", "d1")
    assert "rollingUpdate" in await api.ok("explain", "deploy.spec.strategy")
    assert "protocolName" in await api.ok("explain", "device.spec.protocol")
    kinds = await api.ok("api-resources", "-o", "name")
    assert {"pods", "deployments.apps", "devices.devices.kubeedge.io"} <= set(kinds.split())
    assert "p" in await api.ok("get", "all")
    version = json.loads(await api.ok("version", "-o", "json"))
    assert version["serverVersion"]["major"] == "1"


async def test_server_side_apply(api: Served) -> None:
    text = json.dumps(DEPLOYMENT)
    await api.ok("apply", "--server-side", "-f", "-", stdin=text)
    await api.ok("scale", "deploy", "web", "--replicas=5")
    ran = await api.run("apply", "--server-side", "-f", "-", stdin=text)
    assert ran.code == 1 and ".spec.replicas" in ran.err
    await api.ok("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    assert await api.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"


async def test_a_definition_and_its_objects(api: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    version["additionalPrinterColumns"] = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [version],
        },
    }
    await api.apply(crd)
    await api.ok("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    await api.apply(widget)
    assert rows(await api.ok("get", "wd"))[0:2] == [["NAME", "SIZE"], ["w", "3"]]
    ran = await api.run("apply", "-f", "-", stdin=json.dumps({**widget, "spec": {"size": "big"}}))
    assert ran.code == 1 and "must be of type integer" in ran.err
    await api.ok("delete", "crd", "widgets.example.com")
    with pytest.raises(StatusError):
        await api.api.get("example.com", "widgets", "default", "w")


async def test_what_kubectl_sends_as_protobuf(api: Served) -> None:
    """The create commands don't send JSON."""
    await api.ok("create", "namespace", "team")
    await api.ok("create", "configmap", "c", "-n", "team", "--from-literal=a=b")
    await api.ok("create", "secret", "generic", "s", "--from-literal=k=v")
    await api.ok("create", "service", "clusterip", "web", "--tcp=80:http")
    command = ("create", "deployment", "web", "--image=busybox:1", "--replicas=0", "--port=80", "--", "sleep", "5")
    await api.ok(*command)
    assert (await api.ok("get", "cm", "c", "-n", "team", "-o", "jsonpath={.data}")) == '{"a":"b"}'
    assert (await api.ok("get", "secret", "s", "-o", "jsonpath={.data.k} {.type}")) == "dg== Opaque"
    assert (await api.ok("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}")) == "http"
    deploy = (await api.api.get("apps", "deployments", "default", "web"))["spec"]
    assert deploy["replicas"] == 0 and deploy["selector"]["matchLabels"] == {"app": "web"}
    container = deploy["template"]["spec"]["containers"][0]
    assert (container["name"], container["command"]) == ("busybox", ["sleep", "5"])
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    await api.apply(POD, NODE)
    ran = await api.run("drain", "edge-1", "--force", "--timeout=1s")
    assert "evicting" in ran.out and (await api.api.get("", "pods", "default", "p"))["metadata"]["deletionTimestamp"]


async def test_a_wrong_token_is_told_so(api: Served) -> None:
    ran = await api.run("get", "pods", "--token=wrong")
    assert ran.code == 1 and "asked for the client to provide credentials" in ran.err
