"""The reports worker on a real log: reports become statuses, a restart writes nothing, bad reports are said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bus import log, stamp
from bus.kube import registry as registries
from bus.kube import upkeep
from bus.kube.deletion import DeleteOptions
from bus.kube.storage import Origin
from cloud.reports import ReportsWorker
from cloud.standalone.storage import ClusterStorage
from schemas import event, subjects
from schemas.subjects import ObjectKey
from tests.contract.bus import plain

pytestmark = pytest.mark.contract
HOW = registries.Write(Origin("admin"))
POD = ObjectKey("", "pods", "default", "p")
NODE = ObjectKey("", "nodes", "", "edge-1")


class World:
    def __init__(self, server: plain.PlainServer, store: log.Log, storage: ClusterStorage) -> None:
        self.server, self.log, self.storage = server, store, storage
        self.registry = registries.Registry(storage)

    def worker(self, **how: Any) -> ReportsWorker:
        return ReportsWorker(self.log, self.registry, 1, **how)

    async def report(self, kind: str, data: dict[str, Any], name: str = "") -> event.Event:
        ident = stamp.new_id()
        ev = event.Event(
            id=ident, type=event.REPORT, scope="edge-1", resource=kind, namespace="default" if name else "",
            name=name or "edge-1", time=stamp.now_us(), source="test@0", trace=ident, data=data,
        )  # fmt: skip
        subject = subjects.report("edge-1", kind, 1, "default" if name else None, name or None)
        await self.log.append(subject, ev)
        return ev

    async def node(self, **extra: Any) -> event.Event:
        info = {"operatingSystem": "linux", "architecture": "amd64"}
        status = {"capacity": {"pods": "110"}, "allocatable": {"pods": "110"}, "nodeInfo": info}
        return await self.report("node", {"status": status, "ready": True, "boot": "b", **extra})

    def ready(self, key: ObjectKey) -> str | None:
        stored = self.storage.get(key)
        conditions = (stored.object.get("status") or {}).get("conditions", []) if stored else []
        found: str | None = next((c["status"] for c in conditions if c["type"] == "Ready"), None)
        return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    server = plain.PlainServer(tmp_path / "jetstream")
    await server.start()
    connection = await plain.client(server)
    store = log.Log(connection)
    await plain.make_streams(store)
    storage = ClusterStorage(store)
    await storage.start()
    w = World(server, store, storage)
    await upkeep.bootstrap(w.registry, Origin("test"))
    yield w
    await storage.stop()
    await store.close()
    await connection.close()
    server.kill()


@contextlib.asynccontextmanager
async def running(worker: ReportsWorker) -> AsyncIterator[ReportsWorker]:
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(30):
            await worker.loaded.wait()
        yield worker
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            result = check()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.02)


async def test_from_report_to_status_and_back_to_nothing(world: World) -> None:
    async with running(world.worker()) as worker:
        await world.node()
        await until(lambda: world.ready(NODE) == "True")
        pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "edge-1", "containers": [{"name": "c", "image": "busybox"}]}}
        made = await world.registry.create("", "pods", "default", {"apiVersion": "v1", "kind": "Pod", **pod}, how=HOW)
        uid = made["metadata"]["uid"]
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        told = await world.report("pod", {"uid": uid, "status": status}, "p")
        await until(lambda: world.ready(POD) == "True")
        stored = world.storage.get(POD)
        assert stored is not None and stored.trace == told.trace, "the story goes on"
        worker.link_down("edge-1")
        await until(lambda: (world.ready(NODE), world.ready(POD)) == ("Unknown", "Unknown"))
        worker.beat("edge-1")
        await until(lambda: (world.ready(NODE), world.ready(POD)) == ("True", "True"))
        await world.registry.delete("", "pods", "default", "p", how=HOW, options=DeleteOptions())
        assert world.storage.get(POD) is not None, "the node has its say first"
        await world.report("pod", {"uid": uid, "status": None}, "p")
        await until(lambda: world.storage.get(POD) is None)
        await until(lambda: worker.idle)
        assert (worker.stats.rejected, worker.stats.refused) == (0, 0)
    async with running(world.worker()) as worker:
        await until(lambda: worker.idle)
        assert worker.stats.written == 0, "a restart writes only differences"


async def test_two_workers_write_once_and_silence_is_noticed(world: World) -> None:
    async with running(world.worker(grace_s=1.5)) as one, running(world.worker(grace_s=1.5)) as two:
        await world.node()
        await until(lambda: world.ready(NODE) == "True")
        await until(lambda: one.idle and two.idle)
        stored = world.storage.get(NODE)
        assert stored is not None
        last = await world.log.last("CLUSTER", [subjects.cluster(NODE)])
        assert last.records[-1].seq == stored.rev
        await until(lambda: world.ready(NODE) == "Unknown")
        await until(lambda: one.idle and two.idle)
        assert one.stats.rejected + two.stats.rejected == 0


async def test_a_deleted_node_stays_deleted_over_a_restart(world: World) -> None:
    async with running(world.worker()):
        await world.node()
        await until(lambda: world.ready(NODE) == "True")
        await world.registry.delete("", "nodes", "", "edge-1", how=HOW)
    async with running(world.worker()) as worker:
        await until(lambda: worker.idle)
        assert world.storage.get(NODE) is None
        await world.node(message="back")
        await until(lambda: world.ready(NODE) == "True")


async def test_the_twin_and_an_event_reach_the_api(world: World) -> None:
    device = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "d"},
              "spec": {"nodeName": "edge-1", "deviceModelRef": {"name": "m"}}}  # fmt: skip
    made = await world.registry.create("devices.kubeedge.io", "devices", "default", device, how=HOW)
    async with running(world.worker()) as worker:
        twins = [{"property": "t", "value": 1.5, "desired": "2", "time": stamp.now_us()}]
        await world.report("twin", {"uid": made["metadata"]["uid"], "state": "online", "twins": twins}, "d")
        happened = {"involved": {"kind": "Pod", "namespace": "default", "name": "p"}, "type": "Normal", "reason": "Pulled",
                    "message": "m", "first": stamp.now_us(), "last": stamp.now_us()}  # fmt: skip
        await world.report("event", happened, "p.1")
        status = ObjectKey("devices.kubeedge.io", "devicestatuses", "default", "d")
        await until(lambda: world.storage.get(status) is not None and len(world.storage.list("", "events")) == 1)
        await until(lambda: worker.idle)
        assert (worker.stats.rejected, worker.stats.conflicts) == (0, 0)
        stored = world.storage.get(status)
        assert stored is not None and stored.object["status"]["twins"][0]["reported"]["value"] == "1.5"


async def test_bad_reports_are_said_and_the_worker_goes_on(world: World) -> None:
    await world.log.append_bytes(subjects.report("edge-1", "pod", 1, "default", "bad"), b"\xc1", "")
    await world.report("pod", {"uid": 1}, "p")
    async with running(world.worker()) as worker:
        await until(lambda: worker.stats.refused == 2)
        await world.node()
        await until(lambda: world.ready(NODE) == "True")
