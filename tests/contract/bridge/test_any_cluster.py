"""The same life of a pod against any cluster: our own API, and the one that SKERRY_TEST_KUBECONFIG names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path

import pytest

from bus.kube.errors import StatusError
from cloud.bridge import credentials, kinds
from cloud.bridge.client import Client
from cloud.bridge.leases import LEASES, NAMESPACE
from schemas.subjects import ObjectKey
from tests.contract.bridge.worlds import World, mounting, pod

pytestmark = pytest.mark.contract
GIVEN = os.environ.get("SKERRY_TEST_KUBECONFIG", "")
PODS, MAPS = kinds.path(kinds.PODS, "default"), kinds.path(("", "configmaps"), "default")
WAIT_S = 60  # a cluster may be far away


async def eventually(check: object) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await check():  # type: ignore[operator]
            await asyncio.sleep(0.1)


async def life(world: World, kubeconfig: Path) -> None:
    name = f"skerry-test-{secrets.token_hex(4)}"
    client = Client(credentials.load(kubeconfig))
    key = ObjectKey("", "pods", "default", name)

    async def phase() -> str | None:
        return ((await client.get(PODS, name)).get("status") or {}).get("phase")

    async def registered() -> bool:
        with contextlib.suppress(StatusError):
            node = await client.get(kinds.path(kinds.NODES), name)
            return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        return False

    async def leased() -> bool:
        bridge.beat(name)  # again and again, as nodes do
        with contextlib.suppress(StatusError):
            return bool((await client.get(kinds.path(LEASES, NAMESPACE), name))["spec"]["renewTime"])
        return False

    async def known() -> bool:
        there = await world.meta(name)
        return all(there.get(k) for k in (key, ObjectKey("", "configmaps", "default", name)))

    async def running() -> bool:
        return await phase() == "Running"

    async def asked_to_end() -> bool:
        return "deletionTimestamp" in ((await world.meta(name))[key] or {})["metadata"]

    async def gone() -> bool:
        try:
            await client.get(PODS, name)
        except StatusError as e:
            return e.code == 404
        return False

    async with contextlib.AsyncExitStack() as cleaning:
        cleaning.push_async_callback(client.close)
        bridge = await cleaning.enter_async_context(world.bridge(kubeconfig=kubeconfig))
        await cleaning.enter_async_context(world.dispatcher())
        try:
            await world.node_report(name)
            await eventually(registered)
            await eventually(leased)
            await client.create(MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}})
            wanted = pod(name, name, automountServiceAccountToken=False, **mounting(name))
            made = await client.create(PODS, wanted)
            await eventually(known)
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await world.report("pod", {"uid": made["metadata"]["uid"], "status": status}, name, name)
            await eventually(running)
            await client.delete(PODS, name, {})
            await eventually(asked_to_end)
            await world.report("pod", {"uid": made["metadata"]["uid"], "status": None}, name, name)
            await eventually(gone)
        finally:
            for path, grace in (
                (PODS, 0),
                (MAPS, None),
                (kinds.path(kinds.NODES), None),
                (kinds.path(LEASES, NAMESPACE), None),
            ):
                with contextlib.suppress(StatusError):
                    await client.delete(path, name, {"gracePeriodSeconds": grace} if grace is not None else {})


@pytest.mark.parametrize("given", ["", *filter(None, [GIVEN])], ids=lambda g: "given" if g else "our own")
async def test_a_cluster(world: World, given: str) -> None:
    await life(world, Path(given) if given else world.cluster.kubeconfig)
