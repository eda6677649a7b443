"""A compaction takes out what is over and nothing else, and who could have missed it begins anew."""

from __future__ import annotations

import contextlib

import pytest

from bus import log, stamp
from bus.hub import compact
from bus.kube.storage import Origin
from cloud.standalone import storage
from schemas import event, reports, subjects
from schemas.subjects import ObjectKey
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract

USER = Origin("test")


def _key(resource: str, name: str) -> ObjectKey:
    return ObjectKey("", resource, "" if resource == "nodes" else "default", name)


async def _said(hub: RunningHub, kind: str, name: str, data: reports.Model) -> None:
    ident = stamp.new_id()
    ev = event.Event(
        id=ident, type=event.REPORT, scope="edge-1", resource=kind, namespace="default", name=name, time=0, source="t",
        trace=ident, data=data.model_dump(exclude_defaults=True),
    )  # fmt: skip
    await hub.log.append(subjects.report("edge-1", kind, hub.hub.shards, "default", name), ev)


async def test_only_what_is_over_goes_and_names_can_be_used_again(hub: RunningHub) -> None:
    api = storage.ClusterStorage(hub.log)
    await api.start()
    try:
        for key in (_key("configmaps", "kept"), _key("configmaps", "gone"), _key("nodes", "gone"), _key("pods", "kept")):
            made = await api.create(key, {"metadata": {"name": key.name, "uid": f"u-{key.name}"}}, USER)
            if key.name == "gone":
                await api.delete(key, made.rev, USER)
        for name in ("kept", "gone"):
            await _said(hub, "pod", name, reports.PodReport(uid=f"u-{name}", status=None))
        assert (await hub.log.info("CLUSTER")).messages == 6

        nothing = await compact.compact(hub.log, shards=hub.hub.shards, before_us=0, settle_s=0)
        assert sum(d.removed for d in nothing) == 0
        done = await compact.compact(hub.log, shards=hub.hub.shards, before_us=stamp.now_us() + 10**9, settle_s=0)
        assert {d.stream: d.removed for d in done if d.removed} == {
            "CLUSTER": 1,  # not the tombstone of the Node
            f"REPORT-{subjects.shard_of('edge-1', hub.hub.shards)}": 1,  # not of the pod that CLUSTER has
        }
        assert await hub.log.last_of("CLUSTER", subjects.cluster(_key("configmaps", "gone"))) is None
        assert (await hub.log.last_of("CLUSTER", subjects.cluster(_key("nodes", "gone")))) is not None
        assert (await hub.log.info("CLUSTER")).messages == 4

        again = await api.create(_key("configmaps", "gone"), {"metadata": {"name": "gone", "uid": "u-2"}}, USER)
        assert again.rev == 7
    finally:
        await api.stop()

    with pytest.raises(log.EpochChanged, match="compacted"):
        async with contextlib.aclosing(hub.log.follow("CLUSTER", after=1)) as batches:
            async for _ in batches:
                pass
