"""The dispatcher on a real log: what lands in META, two workers at once, kill -9 of the hub, foreign bytes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bus import follower, log
from bus.connect import Connection
from cloud import dispatcher
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from cloud.dispatcher import DispatcherWorker
from schemas import codec, subjects
from schemas.subjects import ObjectKey
from tests.contract.bus import plain
from tests.contract.cloud import dispatching

pytestmark = pytest.mark.contract


class Hub:
    def __init__(self, server: plain.PlainServer, nc: Connection, store: log.Log) -> None:
        self.server, self.nc, self.log = server, nc, store
        self.last_cluster = 0

    async def put(self, resource: str, name: str, data: dict[str, Any] | None) -> int:
        key = ObjectKey("", resource, "default", name)
        ev = plain.make_event(key, data)
        for _ in range(100):
            try:
                self.last_cluster = await self.log.append(subjects.cluster(key), ev)
                return self.last_cluster
            except log.LogUnavailable:
                await asyncio.sleep(0.1)
        raise AssertionError("the hub did not come back")

    async def pod(self, name: str, node: str, *uses: str, **extra: Any) -> None:
        volumes = [{"name": u, "configMap": {"name": u}} for u in uses]
        meta = {"name": name, "namespace": "default", "uid": f"u-{name}"}
        await self.put("pods", name, {"metadata": meta, "spec": {"nodeName": node, "volumes": volumes}, **extra})

    async def config(self, name: str, value: str) -> None:
        await self.put("configmaps", name, {"metadata": {"name": name, "uid": f"u-{name}"}, "data": {"v": value}})

    async def holds(self, node: str) -> dict[str, Any]:
        last = await self.log.last("META-0", [subjects.meta_scope(node, 1)])
        events = [r.event() for r in last.records]
        return {e.name: e.data for e in events if e.data is not None}

    async def check_chains(self) -> None:
        """Every ``prev`` in the stream is the sequence of the event before it in its scope."""
        heads: dict[str, int] = {}
        async with contextlib.aclosing(self.log.follow("META-0")) as batches:
            async for batch in batches:
                for r in batch.records:
                    ev = r.event()
                    assert ev.prev == heads.get(ev.scope, 0), f"#{r.seq} of {ev.scope}"
                    heads[ev.scope] = r.seq
                if batch.pending == 0:
                    return


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    server = plain.PlainServer(tmp_path / "jetstream")
    await server.start()
    nc = await plain.client(server)
    store = log.Log(nc, timeout_s=1.0)
    await plain.make_streams(store)
    yield Hub(server, nc, store)
    await store.close()
    await nc.close()
    server.kill()


@contextlib.asynccontextmanager
async def running(worker: DispatcherWorker) -> AsyncIterator[DispatcherWorker]:
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(check: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            result = check()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.02)


def caught_up(hub: Hub, worker: DispatcherWorker) -> Callable[[], bool]:
    return lambda: worker.loaded.is_set() and worker.idle and worker.folded >= hub.last_cluster


async def test_objects_reach_the_scopes_that_need_them(hub: Hub) -> None:
    await hub.config("c1", "one")
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await hub.pod("p", "edge-1", "c1")
        await hub.pod("q", "edge-2", status={"phase": "Running"})
        await until(caught_up(hub, worker))
        assert (await hub.holds("edge-1"))["c1"]["data"] == {"v": "one"}
        assert "status" not in (await hub.holds("edge-2"))["q"]
        await hub.put("pods", "p", None)
        await until(caught_up(hub, worker))
        assert await hub.holds("edge-1") == {}
    last = await hub.log.last_of("META-0", subjects.meta("edge-1", ObjectKey("", "pods", "default", "p"), 1))
    cluster = await hub.log.last_of("CLUSTER", subjects.cluster(ObjectKey("", "pods", "default", "p")))
    assert last is not None and cluster is not None
    assert (last.event().cause, last.event().trace) == (cluster.event().id, cluster.event().trace)
    await hub.check_chains()


async def test_a_restart_writes_only_the_difference(hub: Hub) -> None:
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        for i in range(20):
            await hub.pod(f"p{i}", f"edge-{i % 3}", "c1")
        await until(caught_up(hub, worker))
    await hub.config("c1", "late")
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await until(caught_up(hub, worker))
        assert worker.stats.appended == 3
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await until(caught_up(hub, worker))
        assert worker.stats.appended == 0


async def test_two_workers_and_a_killed_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both write the same scopes; the log lets one win each time, and in the end both agree with CLUSTER."""
    monkeypatch.setattr(follower, "FOLLOW_HEARTBEAT_S", 0.5)  # how soon a reader sees that its consumer died with the hub
    async with running(DispatcherWorker(hub.log, 1)) as one, running(DispatcherWorker(hub.log, 1)) as two:
        await until(lambda: one.loaded.is_set() and two.loaded.is_set())
        for i in range(60):
            await hub.pod(f"p{i % 10}", f"edge-{i % 3}", "c1", n=i)
            if i % 7 == 0:
                await hub.config("c1", str(i))
            if i == 30:
                hub.server.kill()
                await hub.server.start()
        await until(caught_up(hub, one))
        await until(caught_up(hub, two))
        assert one.stats.conflicts + two.stats.conflicts > 0
    for node in range(3):
        want = {f"p{i % 10}": i for i in range(60)}
        nodes = {f"p{i % 10}": i % 3 for i in range(60)}
        holds = await hub.holds(f"edge-{node}")
        assert {n: d["n"] for n, d in holds.items() if n != "c1"} == {n: i for n, i in want.items() if nodes[n] == node}
        assert holds["c1"]["data"] == {"v": "56"}
    await hub.check_chains()


async def test_foreign_bytes_are_said_and_replaced(hub: Hub) -> None:
    await hub.pod("p", "edge-1")
    await hub.log.append_bytes(subjects.meta("edge-1", ObjectKey("", "pods", "default", "p"), 1), b"\xc1garbage", "")
    await hub.log.append_bytes("cluster.core.pods.default.bad", b"\xc1garbage", "")
    await hub.log.append_bytes("cluster.not-a-subject", b"{}", "")
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await until(lambda: worker.loaded.is_set() and worker.idle)
        assert worker.stats.refused == 3 and worker.stats.appended == 1
        assert list(await hub.holds("edge-1")) == ["p"]


async def test_an_object_that_is_too_large_stops_nobody(hub: Hub) -> None:
    """The server takes 1 MiB, headers included.  CLUSTER's copy just fits; META's has a longer envelope and headers."""
    big = {"metadata": {"name": "big", "uid": "u"}, "spec": {"nodeName": "edge-1"}, "x": ""}
    envelope = len(codec.encode_event(plain.make_event(ObjectKey("", "pods", "default", "big"), big)))
    await hub.put("pods", "big", {**big, "x": "x" * ((1 << 20) - envelope - 100)})
    await hub.pod("p", "edge-1")
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await until(caught_up(hub, worker))
        assert (worker.stats.too_large, worker.stats.failures) == (1, 0)
        assert list(await hub.holds("edge-1")) == ["p"]


NODES = 300  # more than the window of appends, so that it is full


async def fill(hub: Hub) -> None:
    """A pod and a config map for each node; one config map that all name."""
    await hub.config("shared", "0")
    await asyncio.gather(*(hub.config(f"c{n}", "0") for n in range(NODES)))
    await asyncio.gather(*(hub.pod(f"p{n}", f"edge-{n}", f"c{n}", "shared") for n in range(NODES)))


async def check_all(hub: Hub, value: str) -> None:
    for n in range(NODES):
        holds = await hub.holds(f"edge-{n}")
        assert set(holds) == {f"p{n}", f"c{n}", "shared"} and holds["shared"]["data"] == {"v": value}, n
    await hub.check_chains()


async def test_kill_9_in_the_midst_of_a_full_window(hub: Hub) -> None:
    """What the dead dispatcher had on its way is in the log or not; its successor writes the rest, and nothing twice."""
    await fill(hub)
    for enough in (1, NODES, 2 * NODES):
        process = dispatching.start(hub.server.url)
        try:
            async with asyncio.timeout(60):
                while (await hub.log.info("META-0")).last_seq < enough:
                    assert process.poll() is None
        finally:
            process.kill()
            process.wait()
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await until(caught_up(hub, worker))
    await check_all(hub, "0")
    assert (await hub.log.info("META-0")).last_seq == 3 * NODES, "each was written once"


async def test_a_hub_that_hangs_with_a_full_window_loses_nothing(hub: Hub) -> None:
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await fill(hub)
        await until(caught_up(hub, worker))
        await hub.config("shared", "1")
        assert hub.server.process is not None
        stopped = hub.server.process
        stopped.send_signal(signal.SIGSTOP)
        try:
            await until(lambda: worker.stats.failures > 0 or worker.idle)  # unless it was done before
        finally:
            with contextlib.suppress(ProcessLookupError):  # if this took long, its supervisor has replaced it
                stopped.send_signal(signal.SIGCONT)
        await until(caught_up(hub, worker))
        await check_all(hub, "1")


async def test_a_fault_in_the_core_begins_anew_and_loses_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "EPOCH_PAUSE_S", 0.1)
    handle, bad = Dispatcher.handle, [3, 40]  # at the third acknowledgement, and again a while later

    def failing(self: Dispatcher, stimulus: stimuli.Stimulus) -> list[stimuli.Instruction]:
        if isinstance(stimulus, stimuli.Appended) and bad:
            bad[0] -= 1
            if bad[0] == 0:
                bad.pop(0)
                raise RuntimeError("a fault of ours")
        return handle(self, stimulus)

    monkeypatch.setattr(Dispatcher, "handle", failing)
    await fill(hub)
    async with running(DispatcherWorker(hub.log, 1)) as worker:
        await until(lambda: worker.stats.broken == 2)
        await until(caught_up(hub, worker))
        await check_all(hub, "0")
