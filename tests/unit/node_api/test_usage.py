"""What nodes use: read out of an engine's answer, and asked of nodes once for all who look."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from bus.kube import registry as registries
from bus.kube.errors import StatusError
from bus.kube.memory import MemoryStorage
from bus.kube.storage import Origin
from bus.kube.targets import Target
from bus.tunnel import NodeUnreachable
from cloud.node_api import metrics, usages
from edge.node_api import usage as measured
from schemas import codec, usage
from schemas.subjects import ObjectKey

STATS: dict[str, Any] = {
    "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}, "system_cpu_usage": 10_000_000_000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 1_000_000_000}, "system_cpu_usage": 8_000_000_000},
    "memory_stats": {"usage": 5 << 20, "stats": {"inactive_file": 1 << 20}},
}


@pytest.mark.parametrize(
    ("stats", "used"),
    [
        (STATS, (500_000_000, 4 << 20, 1_500_000_000)),
        ({**STATS, "precpu_stats": {}}, (300_000_000, 4 << 20, 1_500_000_000)),
        (
            {**STATS, "memory_stats": {"usage": 1024, "stats": {"total_inactive_file": 4096}}},
            (500_000_000, 0, 1_500_000_000),
        ),
        ({**STATS, "memory_stats": {}}, None),
        ({}, None),
    ],
)
def test_what_an_engine_says(stats: dict[str, Any], used: tuple[int, int, int] | None) -> None:
    assert measured.of(stats) == used


class Node:
    """Answers as a node does; ``asked`` counts."""

    def __init__(self, told: usage.NodeUsage | None) -> None:
        self.told, self.asked = told, 0

    async def open(self, node: str, *_: Any) -> Any:
        self.asked += 1
        if self.told is None:
            raise NodeUnreachable(f"node {node} can't be reached")
        return Session(codec.encode(self.told))


class Session:
    def __init__(self, data: bytes) -> None:
        self._parts = [data[:10], data[10:]]

    async def started(self) -> None: ...

    async def receive(self, _: int) -> bytes | None:
        await asyncio.sleep(0)
        return self._parts.pop(0) if self._parts else None

    async def close(self) -> None: ...


@pytest.fixture
async def rules() -> registries.Registry:
    storage = MemoryStorage()
    for name in ("edge-1", "edge-2"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"n": name}}}
        await storage.create(ObjectKey("", "nodes", "", name), node, Origin("t"))
    for name, node in (("p", "edge-1"), ("q", "edge-1"), ("new", "")):
        meta = {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": {"app": name}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node}}
        await storage.create(ObjectKey("", "pods", "default", name), pod, Origin("t"))
    return registries.Registry(storage)


def told() -> usage.NodeUsage:
    used = usage.ContainerUsage(name="c", cpu_nano=1_000_000, memory_bytes=2 << 20)
    pods = [usage.PodUsage(namespace="default", name="p", uid="u-p", containers=[used])]
    return usage.NodeUsage(window_ms=1000, cpu_nano=5_000_000, memory_bytes=3 << 30, pods=pods)


def request(method: str = "GET", **query: str) -> web.Request:
    return SimpleNamespace(method=method, query=query)  # type: ignore[return-value]


def target(resource: Any, name: str = "") -> Target:
    return Target(resource, resource.versions["v1beta1"], "default" if resource.namespaced else "", name)


def items(answer: web.StreamResponse) -> list[dict[str, Any]]:
    assert isinstance(answer, web.Response) and isinstance(answer.body, bytes)
    found: list[dict[str, Any]] = json.loads(answer.body)["items"]
    return found


async def test_nodes_are_asked_once_and_those_that_are_silent_are_left_out(rules: registries.Registry) -> None:
    node = Node(told())
    served = metrics.Metrics(usages.Usages(node, rules.now_us), rules)  # type: ignore[arg-type]
    asked = [served.nodes(request(), target(metrics.NODES), "a") for _ in range(3)]
    first, *_ = [items(a) for a in await asyncio.gather(*asked)]
    assert [i["metadata"]["name"] for i in first] == ["edge-1", "edge-2"] and node.asked == 2
    assert first[0]["usage"] == {"cpu": "5000000n", "memory": f"{3 << 20}Ki"} and first[0]["window"] == "1s"
    (pod,) = items(await served.pods(request(), target(metrics.PODS), "a"))
    assert pod["metadata"]["name"] == "p" and node.asked == 2, "the answers are still fresh"
    assert pod["containers"] == [{"name": "c", "usage": {"cpu": "1000000n", "memory": "2048Ki"}}]
    assert items(await served.pods(request(labelSelector="app=q"), target(metrics.PODS), "a")) == []
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("usage of")]


async def test_a_node_behind_a_cut_link(rules: registries.Registry) -> None:
    served = metrics.Metrics(usages.Usages(Node(None), rules.now_us), rules)  # type: ignore[arg-type]
    assert items(await served.nodes(request(), target(metrics.NODES), "a")) == []
    with pytest.raises(StatusError, match='nodes.metrics.k8s.io "edge-1" not found'):
        await served.nodes(request(), target(metrics.NODES, "edge-1"), "a")
    with pytest.raises(StatusError) as refused:
        await served.nodes(request("POST"), target(metrics.NODES), "a")
    assert refused.value.code == 405
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("usage of")]
