"""A cluster's own taint eviction and a node that is cut off: the pods stay, for as long as was agreed.

The taint is set by the test, as kube-controller-manager sets it for a node whose Ready is Unknown; what evicts is the
standalone API's taint-eviction controller, running against the cluster and not against our log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cloud.standalone import run_controllers
from cloud.standalone.controllers import autonomy
from schemas.subjects import ObjectKey
from tests.contract.bridge.worlds import World, pods, until

pytestmark = pytest.mark.contract

AT_ONCE = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}


@contextlib.asynccontextmanager
async def evicting(world: World) -> AsyncIterator[None]:
    runner = run_controllers.ControllerRunner(world.cluster.api, ["tainteviction"])
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def change_node(world: World, name: str, change: dict[str, Any]) -> None:
    await world.cluster.api.patch("", "nodes", "", name, change, kind="merge", how=world.cluster.how())


def evicted(world: World, key: ObjectKey) -> bool:
    now = world.there(key)
    return now is None or "deletionTimestamp" in now["metadata"]


async def cut(world: World, *nodes: str) -> None:
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
    for name in nodes:
        await change_node(world, name, {"spec": {"taints": [taint]}})


async def test_pods_of_a_node_that_is_cut_off_are_not_evicted(world: World) -> None:
    await world.node()
    how = world.cluster.how()
    elsewhere = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ordinary"}}
    await world.cluster.api.create("", "nodes", "", elsewhere, how=how)
    made = await world.pod("stays", tolerations=[AT_ONCE])
    await world.pod("goes", node="ordinary", tolerations=[AT_ONCE])
    stays, goes = pods("stays", "goes")

    def seconds() -> Any:
        found = (world.there(stays) or {})["spec"]["tolerations"]
        return next(t for t in found if t["key"] == AT_ONCE["key"]).get("tolerationSeconds", "for ever")

    async with world.bridge():
        await until(lambda: seconds() == "for ever")
    async with evicting(world):  # and the bridge is gone: what protects is in the cluster
        await cut(world, "edge-1", "ordinary")
        await until(lambda: evicted(world, goes))
        left = world.there(stays)
        assert left is not None and not evicted(world, stays)
        assert left["metadata"]["uid"] == made["metadata"]["uid"]
    # An autonomy that has long been over by the taint's time: now the cluster may have it back, and takes it.
    async with world.bridge(), evicting(world):
        await change_node(world, "edge-1", {"metadata": {"annotations": {autonomy.ANNOTATION: "1h"}}})
        await until(lambda: evicted(world, stays))
