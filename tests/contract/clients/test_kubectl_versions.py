"""What people type, with the kubectl of three minor versions, while controllers and nodes work."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.clients.binaries import MINORS
from tests.contract.kube_served import WAIT_S, Served

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]

WAIT = "--timeout=60s"


@pytest.fixture(params=MINORS)
def api(cluster: Served, programs: dict[str, Path], request: pytest.FixtureRequest) -> Served:
    cluster.kubectl = str(programs[f"kubectl-{request.param}"])
    return cluster


def deployment(image: str = "busybox:1", replicas: int = 2) -> dict[str, Any]:
    labels = {"app": "web"}
    container = {"name": "main", "image": image, "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {**spec, "template": template},
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "busybox:1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def gone(api: Served, *what: str) -> None:
    """Until nothing of it is left."""
    async with asyncio.timeout(WAIT_S):
        while await api.ok("get", *what, "-o", "name"):
            await asyncio.sleep(0.05)


async def test_a_deployment_from_apply_to_undo(api: Served) -> None:
    first, second = json.dumps(deployment()), json.dumps(deployment("busybox:2", 3))
    await api.ok("apply", "-f", "-", stdin=first)
    await api.ok("rollout", "status", "deploy/web", WAIT)
    assert "unchanged" in await api.ok("apply", "-f", "-", stdin=first)
    assert await api.ok("diff", "-f", "-", stdin=first) == ""
    ran = await api.run("diff", "-f", "-", stdin=second)
    assert ran.code == 1, ran.err
    assert {"-replicas: 2", "+replicas: 3", "-image: busybox:1", "+image: busybox:2"} <= _signs(ran.out)
    await api.ok("apply", "-f", "-", stdin=second)
    await api.ok("rollout", "status", "deploy/web", WAIT)
    history = await api.ok("rollout", "history", "deploy/web")
    assert [r[0] for r in rows(history)[2:] if r] == ["1", "2"]
    assert "busybox:1" in await api.ok("rollout", "history", "deploy/web", "--revision=1")
    assert "rolled back" in await api.ok("rollout", "undo", "deploy/web")
    await api.ok("rollout", "status", "deploy/web", WAIT)
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert await api.ok("get", "deploy/web", "-o", image) == "busybox:1"
    assert "restarted" in await api.ok("rollout", "restart", "deploy/web")
    await api.ok("rollout", "status", "deploy/web", WAIT)
    assert "paused" in await api.ok("rollout", "pause", "deploy/web")
    assert "resumed" in await api.ok("rollout", "resume", "deploy/web")
    assert "scaled" in await api.ok("scale", "deploy/web", "--replicas=1", "--current-replicas=3")
    assert (await api.run("scale", "deploy/web", "--replicas=9", "--current-replicas=3")).code == 1
    await api.ok("wait", "--for=jsonpath={.status.readyReplicas}=1", "deploy/web", WAIT)
    await api.ok("wait", "--for=condition=Available", "deploy/web", WAIT)


def _signs(diff: str) -> set[str]:
    """What a diff takes away and adds, without indents."""
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return {line[0] + line[1:].strip(" -") for line in lines if line}


async def test_server_side_apply_by_two_managers(api: Served) -> None:
    text = json.dumps(deployment())
    assert "serverside-applied" in await api.ok("apply", "--server-side", "-f", "-", stdin=text)
    assert await api.ok("diff", "--server-side", "-f", "-", stdin=text) == ""
    await api.ok("set", "image", "deploy/web", "main=busybox:9")
    ran = await api.run("apply", "--server-side", "-f", "-", stdin=text)
    assert ran.code == 1 and "conflict with" in ran.err and ".image" in ran.err
    ran = await api.run("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=json.dumps(deployment("x:1")))
    assert ran.code == 1 and "Apply failed with" in ran.err
    await api.ok("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    # What was applied by the client goes on by the server, without conflicts with its own former self.
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "both"}, "data": {"a": "1", "b": "2"}}
    await api.ok("apply", "-f", "-", stdin=json.dumps(config))
    config["data"] = {"a": "2"}
    await api.ok("apply", "--server-side", "-f", "-", stdin=json.dumps(config))
    assert await api.ok("get", "cm", "both", "-o", "jsonpath={.data}") == '{"a":"2"}'
    shown = await api.ok("get", "cm", "both", "-o", "yaml", "--show-managed-fields")
    assert {m["operation"] for m in yaml.safe_load(shown)["metadata"]["managedFields"]} == {"Apply"}


async def test_edit_patch_set_label(api: Served, tmp_path: Path) -> None:
    await api.ok("apply", "-f", "-", stdin=json.dumps(deployment()))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: 2/replicas: 3/" "$1"\n')
    editor.chmod(0o755)
    api.environment["KUBE_EDITOR"] = str(editor)
    assert "edited" in await api.ok("edit", "deploy/web")
    assert "edited" not in await api.ok("edit", "deploy/web")
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: 3/replicaz: 3/" "$1"\n')
    ran = await api.run("edit", "deploy/web")
    assert ran.code == 1 and 'deployments.apps "web" is invalid' in ran.err  # kubectl says why in the file that it kept
    editor.write_text('#!/bin/sh\nsed -i "s/observedGeneration: .*/observedGeneration: 77/" "$1"\n')
    await api.ok("edit", "deploy/web", "--subresource=status")
    await api.ok("patch", "deploy/web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":4}]')
    ran = await api.run("patch", "deploy/web", "--type=json", "-p", '[{"op":"test","path":"/spec/replicas","value":9}]')
    assert ran.code == 1 and "the server rejected our request due to an error in our request" in ran.err
    await api.ok("patch", "deploy/web", "--type=merge", "-p", '{"spec":{"revisionHistoryLimit":3}}')
    side = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox:2"}]}}}}'
    await api.ok("patch", "deploy/web", "-p", side)
    await api.ok("patch", "deploy/web", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":1}}')
    await api.ok("set", "image", "deploy/web", "main=busybox:5")
    await api.ok("set", "env", "deploy/web", "B=2", "A-")
    await api.ok("set", "resources", "deploy/web", "-c=main", "--requests=cpu=100m,memory=64Mi", "--limits=memory=128Mi")
    await api.ok("label", "deploy/web", "tier=front")
    assert (await api.run("label", "deploy/web", "tier=back")).code == 1
    await api.ok("label", "deploy/web", "tier=back", "--overwrite")
    await api.ok("label", "deploy", "--all", "tier-")
    await api.ok("annotate", "deploy/web", "note=a b")
    found = json.loads(await api.ok("get", "deploy/web", "-o", "json"))
    main, side_car = sorted(found["spec"]["template"]["spec"]["containers"], key=lambda c: str(c["name"]))
    assert (main["image"], side_car["image"], found["spec"]["replicas"]) == ("busybox:5", "busybox:2", 1)
    env = [{"name": "B", "value": "2"}]
    for container in (main, side_car):
        assert container.get("env") == env
    assert main["resources"] == {"limits": {"memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}
    assert "tier" not in found["metadata"].get("labels", {}) and found["metadata"]["annotations"]["note"] == "a b"


async def test_every_way_to_show(api: Served) -> None:
    await api.apply(deployment(), pod("p", nodeName="edge-1"))
    await api.ok("create", "service", "clusterip", "web", "--tcp=80:8080")
    await api.ok("wait", "--for=condition=Ready", "pod/p", WAIT)
    wide = rows(await api.ok("get", "pod", "p", "-o", "wide"))
    assert wide[0][:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"] and "edge-1" in wide[1]
    columns = "custom-columns=N:.metadata.name,I:.spec.containers[*].image"
    assert rows(await api.ok("get", "pod", "p", "-o", columns)) == [["N", "I"], ["p", "busybox:1"]]
    assert await api.ok("get", "pod", "p", "-o", "jsonpath={.spec.nodeName}") == "edge-1"
    assert await api.ok("get", "pod", "p", "-o", "go-template={{.metadata.name}}") == "p"
    assert await api.ok("get", "pods", "-o", "name", "--field-selector=spec.nodeName=edge-1,metadata.name=p") == "pod/p\n"
    assert "pod/p" in await api.ok("get", "all", "-A") and "p" in await api.ok("get", "pods", "--sort-by=.metadata.name")
    assert rows(await api.ok("get", "pods", "-l", "app in (web),!x", "--no-headers", "--show-labels"))[0][5].startswith(
        "app="
    )
    assert rows(await api.ok("get", "pods", "-L", "app"))[0][-1] == "APP"
    for what, said in (
        (("pod", "p"), "Node:             edge-1"),
        (("node", "edge-1"), "Non-terminated Pods"),
        (("deploy", "web"), "NewReplicaSet"),
        (("svc", "web"), "8080/TCP"),
        (("rs",), "Controlled By:  Deployment/web"),
        (("ns", "default"), "Active"),
        (("sa", "default"), "default"),
        (("crd", "devices.devices.kubeedge.io"), "Accepted Names"),
    ):
        assert said in await api.ok("describe", *what)
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "p.1"}, "type": "Warning", "reason": "Sunk"}
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "p"}
    about["uid"] = await api.ok("get", "pod", "p", "-o", "jsonpath={.metadata.uid}")
    event |= {"involvedObject": about, "message": "wet"}
    await api.ok("create", "-f", "-", stdin=json.dumps(event))
    assert "Sunk" in await api.ok("events", "--for", "pod/p") and "wet" in await api.ok("events", "--types=Warning")
    assert "Sunk" in await api.ok("get", "events") and "Sunk" in await api.ok("describe", "pod", "p")
    assert "is running at" in await api.ok("cluster-info")
    assert {"v1", "apps/v1", "batch/v1"} <= set((await api.ok("api-versions")).split())
    kinds = {r[0] for r in rows(await api.ok("api-resources", "--namespaced=true", "--verbs=list,watch"))}
    assert {"pods", "deployments", "devices"} <= kinds and "nodes" not in kinds
    assert json.loads(await api.ok("get", "--raw", "/api/v1/namespaces/default"))["kind"] == "Namespace"
    assert (await api.ok("get", "--raw", "/readyz")) == "ok"


async def test_explain(api: Served) -> None:
    probe = await api.ok("explain", "pod.spec.containers.livenessProbe", "--recursive")
    assert "FIELD: livenessProbe <Probe>" in probe and "<IntOrString> -required-" in probe
    assert "Probe describes a health check" in probe
    assert "    httpHeaders\t<[]HTTPHeader>" in probe and "  initialDelaySeconds\t<integer>" in probe
    assert "<map[string]Quantity>" in await api.ok("explain", "pod.spec.containers.resources.limits")
    assert "rollingUpdate" in await api.ok("explain", "deployment.spec.strategy")
    assert "GROUP:      batch" in await api.ok("explain", "cronjob.spec.jobTemplate", "--api-version=batch/v1")
    assert "protocolName" in await api.ok("explain", "device.spec.protocol")
    ran = await api.run("explain", "pod.spec.nonsense")
    assert ran.code == 1 and 'field "nonsense" does not exist' in ran.err


async def test_generators(api: Served) -> None:
    for args in (
        ("namespace", "team"),
        ("configmap", "c", "--from-literal=a=b"),
        ("secret", "generic", "s", "--from-literal=k=v"),
        ("secret", "docker-registry", "r", "--docker-server=r.example", "--docker-username=u", "--docker-password=p"),
        ("service", "clusterip", "s1", "--tcp=80:8080"),
        ("service", "nodeport", "s2", "--tcp=80:8080"),
        ("service", "externalname", "s3", "--external-name=x.example"),
        ("serviceaccount", "robot"),
        ("deployment", "d", "--image=busybox:1", "--replicas=1"),
        ("job", "j", "--image=busybox:1", "--", "true"),
        ("cronjob", "cj", "--image=busybox:1", "--schedule=0 0 * * *", "--", "true"),
    ):
        assert "created" in await api.ok("create", *args)
        again = await api.run("create", *args)
        assert again.code == 1 and "already exists" in again.err
    await api.ok("wait", "--for=condition=Complete", "job/j", WAIT)
    assert "created" in await api.ok("create", "job", "now", "--from=cronjob/cj")
    assert "created" in await api.ok("run", "one", "--image=busybox:1", "--port=80", "--env=A=1")
    assert "exposed" in await api.ok("expose", "deploy/d", "--port=80", "--name=exposed")
    for how in ("client", "server"):
        said = await api.ok("create", "configmap", "dry", f"--dry-run={how}", "-o", "yaml")
        assert yaml.safe_load(said)["metadata"]["name"] == "dry"
    assert (await api.run("get", "cm", "dry")).code == 1
    generated = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}}
    assert "configmap/gen-" in await api.ok("create", "-f", "-", stdin=json.dumps(generated))


async def test_deletes(api: Served) -> None:
    for cascade, left in (("background", False), ("foreground", False), ("orphan", True)):
        await api.apply(deployment())
        await api.ok("rollout", "status", "deploy/web", WAIT)
        await api.ok("delete", "deploy", "web", f"--cascade={cascade}", WAIT)
        assert (await api.run("get", "deploy", "web")).code == 1
        if left:
            name = (await api.ok("get", "rs", "-o", "name")).strip()
            assert await api.ok("get", name, "-o", "jsonpath={.metadata.ownerReferences}") == ""
            await api.ok("delete", "rs", "--all", WAIT)
        await gone(api, "pods,rs")
    await api.apply(pod("a"), pod("b"))
    assert "force deleted" in await api.ok("delete", "pod", "a", "--force", "--grace-period=0")
    assert "deleted" in await api.ok("delete", "pod", "b", "--now", WAIT)
    assert await api.ok("delete", "pod", "nope", "--ignore-not-found") == ""
    ran = await api.run("delete", "cm", "nope")
    assert ran.code == 1 and 'configmaps "nope" not found' in ran.err
    await api.ok("create", "ns", "team")
    await api.ok("create", "cm", "c", "-n", "team")
    await api.ok("delete", "ns", "team", WAIT)
    assert (await api.run("get", "cm", "-n", "team", "c")).code == 1


async def test_nodes_are_cordoned_tainted_drained(api: Served) -> None:
    await api.apply(deployment(), pod("bare", nodeName="edge-1"))
    await api.ok("rollout", "status", "deploy/web", WAIT)
    assert "cordoned" in await api.ok("cordon", "edge-1")
    assert rows(await api.ok("get", "node", "edge-1"))[1][1] == "Ready,SchedulingDisabled"
    assert "tainted" in await api.ok("taint", "node", "edge-1", "sea=rough:NoSchedule")
    assert "sea=rough:NoSchedule" in await api.ok("describe", "node", "edge-1")
    assert "untainted" in await api.ok("taint", "node", "edge-1", "sea-")
    assert "drained" in await api.ok("drain", "edge-1", "--force", "--ignore-daemonsets", WAIT)
    assert await api.ok("get", "pods", "--field-selector=spec.nodeName=edge-1", "-o", "name") == ""
    assert "uncordoned" in await api.ok("uncordon", "edge-1")


async def test_get_watch(api: Served) -> None:
    await api.ok("create", "configmap", "x", "--from-literal=a=1")
    process = await api.start("get", "cm", "x", "-w", "--output-watch-events", "--no-headers")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WAIT_S):
            assert (await process.stdout.readline()).split()[:3] == [b"ADDED", b"x", b"1"]
            await api.ok("patch", "cm", "x", "-p", '{"data":{"b":"2"}}')
            assert (await process.stdout.readline()).split()[:3] == [b"MODIFIED", b"x", b"2"]
            await api.ok("delete", "cm", "x")
            assert (await process.stdout.readline()).split()[:3] == [b"DELETED", b"x", b"2"]
    finally:
        process.terminate()
        await process.communicate()
