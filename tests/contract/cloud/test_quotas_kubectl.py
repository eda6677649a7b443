"""Quotas, limit ranges and priority classes with the real kubectl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.standalone.run_controllers import ControllerRunner
from tests.contract.kube_served import Served, served

pytestmark = pytest.mark.contract
WITHIN_S = 60


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, rights=True) as found:
        controlling = asyncio.create_task(ControllerRunner(found.api).run())
        try:
            yield found
        finally:
            controlling.cancel()
            await asyncio.gather(controlling, return_exceptions=True)


def pod(name: str, **spec: Any) -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}
    container = {"name": "c", "image": "i", "resources": resources}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def shows(api: Served, *words: str, args: tuple[str, ...]) -> str:
    """Until kubectl shows all words in one line."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            out = await api.ok(*args)
            if any(all(w in line for w in words) for line in out.splitlines()):
                return out
            await asyncio.sleep(0.1)


async def test_quota(api: Served) -> None:
    await api.ok("create", "quota", "q", "--hard=pods=2,requests.cpu=1,limits.memory=1Gi")
    await api.apply(pod("a"))
    await shows(api, "pods: 1/2", "requests.cpu: 100m/1", "limits.memory: 64Mi/1Gi", args=("get", "quota", "q"))
    described = await api.ok("describe", "quota", "q")
    assert "requests.cpu" in described and "100m" in described
    assert ["pods", "1", "2"] in [line.split() for line in described.splitlines()]
    await api.apply(pod("b"))
    ran = await api.run("run", "c", "--image=i")
    assert ran.code == 1 and "failed quota: q: must specify limits.memory for: c; requests.cpu for: c" in ran.err, ran.err
    async with asyncio.timeout(WITHIN_S):
        while (
            "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
            not in (ran := await api.run("create", "-f", "-", stdin=str(pod("c")))).err
        ):
            assert ran.code == 1, "it is full"
            await asyncio.sleep(0.1)
    await api.ok("create", "quota", "best", "--hard=pods=1", "--scopes=BestEffort")
    await api.ok("delete", "pod", "a", "--now")
    await shows(api, "pods: 1/2", args=("get", "quota", "q"))
    await api.ok("delete", "quota", "q", "best")


async def test_priority_classes_and_limit_ranges(api: Served) -> None:
    await api.ok("create", "priorityclass", "gold", "--value=1000", "--description=first", "--preemption-policy=Never")
    listed = await api.ok("get", "priorityclass", "gold")
    assert listed.splitlines()[0].split() == ["NAME", "VALUE", "GLOBAL-DEFAULT", "AGE", "PREEMPTIONPOLICY"]
    await api.apply(pod("important", priorityClassName="gold"))
    asked = "jsonpath={.spec.priority} {.spec.preemptionPolicy}"
    assert await api.ok("get", "pod", "important", "-o", asked) == "1000 Never"
    names = await api.ok("get", "pc", "-o", "name")
    assert "system-node-critical" in names and "system-cluster-critical" in names
    limits = {"limits": [{"type": "Container", "default": {"cpu": "200m"}, "max": {"cpu": "1"}}]}
    await api.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": limits})
    assert "200m" in await api.ok("describe", "limits", "l")
    await api.ok("run", "small", "--image=i")
    assert await api.ok("get", "pod", "small", "-o", "jsonpath={.spec.containers[0].resources.limits.cpu}") == "200m"
