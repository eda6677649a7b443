"""The real kubectl with the workload kinds beside deployments, while controllers and nodes that run anything work."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.cloud.living import BEAT_S, living, rows
from tests.contract.kube_served import Served

pytestmark = pytest.mark.contract


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with living(tmp_path) as found:
        yield found


def template(name: str, image: str = "busybox:1", **pod: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}], **pod}}


def load(kind: str, name: str, image: str = "busybox:1", **spec: Any) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template(name, image), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


async def image_of(api: Served, what: str) -> str:
    return await api.ok("get", what, "-o", "jsonpath={.spec.template.spec.containers[0].image}")


async def test_daemon_sets(api: Served) -> None:
    await api.apply(load("DaemonSet", "agent"))
    await api.ok("rollout", "status", "ds/agent", "--timeout=20s")
    said = rows(await api.ok("get", "ds", "-o", "wide"))
    assert said[0][:9] == ["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE", "SELECTOR", "AGE"]
    assert said[1][:7] == ["agent", "2", "2", "2", "2", "2", "<none>"]
    assert "unchanged" in await api.apply(load("DaemonSet", "agent"))
    await api.ok("set", "image", "ds/agent", "c=busybox:2")
    await api.ok("rollout", "status", "ds/agent", "--timeout=20s")
    history = await api.ok("rollout", "history", "ds/agent")
    assert [r[0] for r in rows(history)[2:] if r] == ["1", "2"]
    assert "busybox:1" in await api.ok("rollout", "history", "ds/agent", "--revision=1")
    assert "rolled back" in await api.ok("rollout", "undo", "ds/agent")
    await api.ok("rollout", "status", "ds/agent", "--timeout=20s")
    assert await image_of(api, "ds/agent") == "busybox:1"
    pods = json.loads(await api.ok("get", "pods", "-l", "app=agent", "-o", "json"))["items"]
    assert {p["spec"]["containers"][0]["image"] for p in pods} == {"busybox:1"}
    await api.ok("rollout", "restart", "ds/agent")
    await api.ok("rollout", "status", "ds/agent", "--timeout=20s")
    await api.ok("wait", "--for=jsonpath={.status.numberReady}=2", "ds/agent", "--timeout=20s")
    described = await api.ok("describe", "ds", "agent")
    assert "Desired Number of Nodes Scheduled: 2" in described and "2 Running / 0 Waiting" in described
    assert rows(await api.ok("get", "controllerrevisions"))[1][1] == "daemonset.apps/agent"
    await api.ok("delete", "ds", "agent", "--cascade=foreground", "--timeout=20s")
    assert "No resources found" in (await api.run("get", "pods,controllerrevisions")).err


async def test_jobs_and_cron_jobs(api: Served) -> None:
    await api.ok("create", "job", "once", "--image=busybox:1", "--", "true")
    await api.ok("wait", "--for=condition=Complete", "job/once", "--timeout=20s")
    said = rows(await api.ok("get", "jobs", "-o", "wide"))
    assert said[0] == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert said[1][:3] == ["once", "Complete", "1/1"]
    described = await api.ok("describe", "job", "once")
    assert "0 Active (0 Ready) / 1 Succeeded / 0 Failed" in described
    await api.ok("create", "cronjob", "tick", "--image=busybox:1", "--schedule=0 3 * * *", "--", "true")
    said = rows(await api.ok("get", "cj"))
    assert said[0] == ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "SCHEDULE", "AGE"]
    assert "0 3 * * *" in await api.ok("describe", "cj", "tick")
    await api.ok("create", "job", "by-hand", "--from=cronjob/tick")
    await api.ok("wait", "--for=condition=Complete", "job/by-hand", "--timeout=20s")
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "applied"},
        "spec": {"template": {"spec": template("applied", restartPolicy="Never")["spec"]}},
    }
    await api.apply(manifest)
    assert "unchanged" in await api.apply(manifest)
    await api.ok("delete", "job", "once", "by-hand", "applied", "--timeout=20s")
    await api.ok("delete", "cj", "tick")
    async with asyncio.timeout(20):
        while await api.ok("get", "pods", "-o", "name"):
            await asyncio.sleep(BEAT_S)


async def test_stateful_sets(api: Served) -> None:
    await api.apply(load("StatefulSet", "db", replicas=2, serviceName="db"))
    await api.ok("rollout", "status", "sts/db", "--timeout=20s")
    said = rows(await api.ok("get", "sts", "-o", "wide"))
    assert said[0] == ["NAME", "READY", "AGE", "CONTAINERS", "IMAGES"] and said[1][:2] == ["db", "2/2"]
    await api.ok("scale", "sts/db", "--replicas=3")
    await api.ok("wait", "--for=jsonpath={.status.readyReplicas}=3", "sts/db", "--timeout=20s")
    await api.ok("set", "image", "sts/db", "c=busybox:2")
    await api.ok("rollout", "status", "sts/db", "--timeout=20s")
    assert [r[0] for r in rows(await api.ok("rollout", "history", "sts/db"))[2:] if r] == ["1", "2"]
    await api.ok("rollout", "undo", "sts/db")
    await api.ok("rollout", "status", "sts/db", "--timeout=20s")
    assert await image_of(api, "sts/db") == "busybox:1"
    assert "3 Running / 0 Waiting" in await api.ok("describe", "sts", "db")
    names = await api.ok("get", "pods", "-o", "name")
    assert names.split() == ["pod/db-0", "pod/db-1", "pod/db-2"]
    await api.ok("delete", "sts", "db", "--cascade=foreground", "--timeout=20s")


async def test_what_controllers_did_is_described(api: Served) -> None:
    await api.apply(load("Deployment", "web", replicas=2))
    await api.apply(load("StatefulSet", "db", replicas=1, serviceName="db"))
    await api.ok("create", "job", "once", "--image=busybox:1", "--", "true")
    made = "Normal SuccessfulCreate"
    wanted = {
        ("deploy", "web"): [r"Normal ScalingReplicaSet \S+ deployment-controller Scaled up replica set web-\w+ from 0 to 2"],
        ("rs", "-l", "app=web"): [rf"{made} \S+ replicaset-controller Created pod: web-\w+-\w{{5}}"] * 2,
        ("sts", "db"): [rf"{made} \S+ statefulset-controller Create Pod db-0 in StatefulSet db successful"],
        ("job", "once"): [
            rf"{made} \S+ job-controller Created pod: once-\w{{5}}",
            r"Normal Completed \S+ job-controller Job completed",
        ],
    }
    async with asyncio.timeout(60):
        for what, events in wanted.items():
            told = ""
            while any(len(re.findall(e, told)) != events.count(e) for e in events):
                told = " ".join((await api.ok("describe", *what)).split())
                await asyncio.sleep(BEAT_S)
    await api.ok("delete", "deploy/web", "sts/db", "job/once")


async def test_services_and_accounts(api: Served) -> None:
    await api.apply(load("Deployment", "web", replicas=2))
    await api.ok("rollout", "status", "deploy/web", "--timeout=20s")
    await api.ok("expose", "deploy/web", "--port=80", "--target-port=8080")
    async with asyncio.timeout(20):
        while ":8080" not in await api.ok("get", "endpointslices", "-o", "jsonpath=:{.items[*].ports[*].port}"):
            await asyncio.sleep(BEAT_S)
    said = rows(await api.ok("get", "endpointslices"))
    assert said[0] == ["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"] and said[1][1:3] == ["IPv4", "8080"]
    assert "10.244." in (await api.ok("describe", "svc", "web")).split("Endpoints:")[1].splitlines()[0]
    assert "default" in await api.ok("get", "sa")
    await api.ok("create", "serviceaccount", "robot")
    assert "robot" in await api.ok("describe", "sa", "robot")
    await api.ok("delete", "svc/web", "sa/robot")
