"""The real kubectl takes nodes out of service and back: cordon, drain with budgets, taint, uncordon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.cloud.living import living, rows
from tests.contract.kube_served import Served

pytestmark = pytest.mark.contract

WEB: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "busybox:1"}]},
        },
    },
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with living(tmp_path) as found:
        yield found


async def where(api: Served) -> list[str]:
    pods = json.loads(await api.ok("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    return sorted(p["spec"]["nodeName"] for p in pods if not p["metadata"].get("deletionTimestamp"))


async def test_drain_asks_budgets_and_uncordon_opens_again(api: Served) -> None:
    await api.apply(WEB)
    await api.ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert await where(api) == ["edge-1", "edge-2"]
    assert "created" in await api.ok("create", "pdb", "web", "--selector=app=web", "--min-available=2")
    await api.ok("wait", "--for=jsonpath={.status.currentHealthy}=2", "pdb/web", "--timeout=20s")
    said = rows(await api.ok("get", "pdb"))
    assert said[1][:4] == ["web", "2", "N/A", "0"]
    assert "Min available:" in (described := await api.ok("describe", "pdb", "web")) and "Current:" in described
    refused = await api.run("drain", "edge-1", "--timeout=1s")
    assert refused.code != 0
    assert "Cannot evict pod as it would violate the pod's disruption budget" in refused.err
    assert rows(await api.ok("get", "nodes"))[1][1] == "Ready,SchedulingDisabled"
    await api.ok("patch", "pdb", "web", "--type=merge", "-p", '{"spec":{"minAvailable":1}}')
    await api.ok("wait", "--for=jsonpath={.status.disruptionsAllowed}=1", "pdb/web", "--timeout=20s")
    assert "drained" in await api.ok("drain", "edge-1", "--timeout=25s")
    await api.ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert await where(api) == ["edge-2", "edge-2"]
    assert "uncordoned" in await api.ok("uncordon", "edge-1")
    assert "tainted" in await api.ok("taint", "node", "edge-2", "repair=now:NoExecute")
    await api.ok("wait", "--for=jsonpath={.status.readyReplicas}=2", "deploy/web", "--timeout=20s")
    await api.ok("wait", "--for=delete", "pods", "-l", "app=web", "--field-selector=spec.nodeName=edge-2", "--timeout=20s")
    await api.ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert await where(api) == ["edge-1", "edge-1"]
    assert "untainted" in await api.ok("taint", "node", "edge-2", "repair:NoExecute-")
