"""What operators do to edge nodes of a cluster with kubectl: cordon, taint, drain.  The bridge stands in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.contract.bridge.worlds import NODE, POD, World, pods, until

pytestmark = pytest.mark.contract


@contextlib.asynccontextmanager
async def living(world: World, *names: str) -> AsyncIterator[None]:
    """The node's part: a pod runs, and has ended when it is asked to."""

    async def live() -> None:
        told: set[tuple[str, bool]] = set()
        while True:
            for key, pod in (await world.meta()).items():
                if key.resource != "pods" or pod is None:
                    continue
                ending, uid = "deletionTimestamp" in pod["metadata"], pod["metadata"]["uid"]
                if (uid, ending) not in told:
                    told.add((uid, ending))
                    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                    await world.report("pod", {"uid": uid, "status": None if ending else running}, key.name)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(live())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def phase(world: World) -> str | None:
    return ((world.there(POD) or {}).get("status") or {}).get("phase")


async def test_cordon_taint_and_drain(world: World) -> None:
    async with world.bridge(direct=True), world.dispatcher(), living(world):
        await world.node_report()
        await until(lambda: world.there(NODE) is not None)
        made = await world.pod(terminationGracePeriodSeconds=30)
        await until(lambda: phase(world) == "Running")
        await world.cluster.ok("cordon", "edge-1")
        await world.cluster.ok("taint", "nodes", "edge-1", "mine=yes:NoExecute")
        await world.cluster.ok("label", "nodes", "edge-1", "zone=a")
        await world.cluster.ok("annotate", "nodes", "edge-1", "note=b")
        # The node says something new of itself, and loses none of it.
        await world.node_report(labels={"own": "label"})

        def node() -> dict[str, object]:
            found = world.there(NODE)
            assert found is not None
            return found

        await until(lambda: node()["metadata"]["labels"].get("own") == "label")  # type: ignore[index]
        spec, meta = node()["spec"], node()["metadata"]
        assert spec["unschedulable"] is True  # type: ignore[index]
        assert {"key": "mine", "value": "yes", "effect": "NoExecute"} in spec["taints"]  # type: ignore[index]
        assert meta["labels"]["zone"] == "a" and meta["annotations"]["note"] == "b"  # type: ignore[index]

        said = await world.cluster.ok("drain", "edge-1", "--force", "--timeout=60s")
        assert "drained" in said
        assert world.there(POD) is None, f"it had its {made['spec']['terminationGracePeriodSeconds']} s, and needed none"
        await world.cluster.ok("uncordon", "edge-1")
        await until(lambda: "unschedulable" not in (world.there(NODE) or {}).get("spec", {}))
        # A pod that is deleted at once, as `kubectl delete --force` does, is gone here too.
        await world.pod("q")
        (q,) = pods("q")
        await until(lambda: world.storage.get(q) is not None)
        await world.cluster.run("delete", "pod", "q", "--force", "--grace-period=0")
        await until(lambda: world.there(q) is None and world.storage.get(q) is None)


async def test_a_pod_keeps_its_name_until_its_node_has_ended_it(world: World) -> None:
    """As with a kubelet: the object goes when the node says so, by a delete without grace, of that very pod."""
    async with world.bridge(direct=True), world.dispatcher():
        await world.node_report()
        first = await world.pod()
        await until(lambda: world.storage.get(POD) is not None)
        await world.cluster.ok("delete", "pod", "p", "--wait=false")
        there = world.there(POD)
        assert there is not None and "deletionTimestamp" in there["metadata"]
        await world.report("pod", {"uid": "another", "status": None}, "p")  # of a pod that had this name before
        await world.report("pod", {"uid": first["metadata"]["uid"], "status": None}, "p")
        await until(lambda: world.there(POD) is None)
        second = await world.pod()
        await until(
            lambda: (s := world.storage.get(POD)) is not None and s.object["metadata"]["uid"] != first["metadata"]["uid"]
        )
        again = world.there(POD)
        assert again is not None and again["metadata"]["uid"] == second["metadata"]["uid"]
        assert "deletionTimestamp" not in again["metadata"], "an old report ends no new pod"
