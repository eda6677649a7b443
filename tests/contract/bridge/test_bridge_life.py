"""From a pod in the cluster to the node, from the node's reports to the cluster: over TLS, without faults."""

from __future__ import annotations

from typing import Any

import pytest

from bus import stamp
from bus.kube.deletion import DeleteOptions
from schemas.subjects import ObjectKey
from tests.contract.bridge.worlds import NODE, POD, World, cm, mounting, secret, until

pytestmark = pytest.mark.contract
LEASE = ObjectKey("coordination.k8s.io", "leases", "kube-node-lease", "edge-1")


def ready(obj: dict[str, Any] | None) -> str | None:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((c["status"] for c in conditions if c["type"] == "Ready"), None)


async def test_a_pod_lives_and_dies(world: World) -> None:
    async with world.bridge(direct=True) as bridge, world.dispatcher():
        await world.node_report()
        await until(lambda: ready(world.there(NODE)) == "True")
        node = world.there(NODE)
        assert node is not None and node["metadata"]["labels"]["kubernetes.io/arch"] == "amd64"
        await until(lambda: world.storage.get(NODE) is not None)
        bridge.beat("edge-1")
        await until(lambda: world.there(LEASE) is not None)
        lease = world.there(LEASE)
        assert lease is not None and lease["spec"]["holderIdentity"] == "edge-1"
        assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]

        await world.config_map("mine", k="1")
        await world.secret("mine")
        await world.secret("others")
        made = await world.pod(**mounting("mine", "mine"))

        async def known() -> bool:
            there = await world.meta()
            return {POD, cm("mine"), secret("mine")} <= {k for k, v in there.items() if v is not None}

        await until(known)
        assert world.held("secrets") == ["mine"]
        await world.set_config_map("mine", k="2")

        async def changed() -> bool:
            data = (await world.meta()).get(cm("mine"))
            return data is not None and data["data"] == {"k": "2"}

        await until(changed)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        told = await world.report("pod", {"uid": made["metadata"]["uid"], "status": status}, "p")
        await until(lambda: ready(world.there(POD)) == "True")
        await until(lambda: ready((s := world.storage.get(POD)) and s.object) == "True")
        stored = world.storage.get(POD)
        assert stored is not None and stored.trace == told.trace, "the story goes on through the cluster"

        await world.cluster.api.delete("", "pods", "default", "p", how=world.cluster.how(), options=DeleteOptions())

        async def asked_to_end() -> bool:
            data = (await world.meta()).get(POD)
            return data is not None and "deletionTimestamp" in data["metadata"]

        await until(asked_to_end)
        assert world.there(POD) is not None, "the node has its say first"
        gone = await world.report("pod", {"uid": made["metadata"]["uid"], "status": None}, "p")
        await until(lambda: world.there(POD) is None)

        async def withdrawn() -> bool:
            there = await world.meta()
            return all(there[k] is None for k in (POD, cm("mine"), secret("mine")))

        await until(withdrawn)
        assert world.agrees([NODE])
        last = await world.log.last_of("CLUSTER", "cluster.core.pods.default.p")
        assert last is not None and last.event().trace == gone.trace
        assert bridge.reports is not None
        worker = bridge.reports
        await until(lambda: worker.idle)
        assert (worker.stats.rejected, worker.stats.conflicts, worker.stats.failures) == (0, 0, 0)


async def test_a_lost_link_is_told_and_a_beat_takes_it_back(world: World) -> None:
    async with world.bridge(direct=True, grace_s=2) as bridge:
        await world.node_report()
        await until(lambda: ready(world.there(NODE)) == "Unknown")
        bridge.beat("edge-1")
        await until(lambda: ready(world.there(NODE)) == "True")


async def test_devices_and_events(world: World) -> None:
    group = "devices.kubeedge.io"
    await world.node()
    for kind, name in (("DeviceModel", "m"), ("DeviceModel", "unused"), ("Device", "d")):
        spec = {"nodeName": "edge-1", "deviceModelRef": {"name": "m"}} if kind == "Device" else {"properties": []}
        body = {"apiVersion": f"{group}/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        made = await world.create(group, kind.lower() + "s", body)
    status = ObjectKey(group, "devicestatuses", "default", "d")
    async with world.bridge(direct=True):
        assert [s.key.name for s in world.storage.list(group, "devicemodels")] == ["m"]
        twins = [{"property": "t", "value": 1.5, "time": stamp.now_us()}]
        await world.report("twin", {"uid": made["metadata"]["uid"], "state": "online", "twins": twins}, "d")
        happened = {"involved": {"kind": "Pod", "namespace": "default", "name": "p"}, "type": "Normal", "reason": "Pulled",
                    "message": "m", "first": stamp.now_us(), "last": stamp.now_us()}  # fmt: skip
        await world.report("event", happened, "p.1")
        await until(lambda: world.there(status) is not None and len(world.cluster.storage.list("", "events")) == 1)
        obj = world.there(status)
        assert obj is not None and obj["status"]["twins"][0]["reported"]["value"] == "1.5"
        await until(lambda: world.storage.get(status) is not None and len(world.storage.list("", "events")) == 1)
