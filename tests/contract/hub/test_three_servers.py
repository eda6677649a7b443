"""A hub of three servers: one is lost, the leader of a stream is lost, all are restarted one after the other, under a load
of acknowledged appends.  Nothing that was acknowledged is missing or there twice, clients come back by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bus import connect, log, pipeline, replica, tasks
from bus.hub import init, streams, supervise
from bus.stores.memory import MemoryStore
from cloud import sync
from schemas import codec, event, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract

SCOPE = "edge-1"
SHARDS = 1
NAMES = 200  # so many that no object has more versions than the stream keeps: every event that was ever stored is there


@dataclass
class Cluster:
    hub: init.Hub
    servers: list[supervise.NatsServer]
    connections: list[connect.Connection] = field(default_factory=list)
    logs: list[log.Log] = field(default_factory=list)

    async def client(self, name: str) -> log.Log:
        settings = connect.ConnectSettings(tuple(self.hub.urls), name, credentials=self.hub.core_creds, ca=self.hub.ca_path)
        connection = await connect.connect(settings)
        store = log.Log(connection, timeout_s=2)
        self.connections.append(connection)
        self.logs.append(store)
        return store

    async def leader_of(self, store: log.Log, stream: str) -> int:
        """Index of the server that leads a stream, once there is one and its followers are current."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(log.LogError):
                    state = (await store.request(f"STREAM.INFO.{stream}"))["cluster"]
                    peers = state.get("replicas") or []
                    if state.get("leader") and len(peers) == 2 and all(p.get("current") for p in peers):
                        return [m.name for m in self.hub.members].index(state["leader"])
                await asyncio.sleep(0.1)

    async def connected_to(self, store: log.Log, server: int) -> None:
        connection = self.connections[self.logs.index(store)]
        want = f"{self.hub.members[server].host}:{self.hub.members[server].ports.client}"
        others = {f"{m.host}:{m.ports.client}" for m in self.hub.members} - {want}
        async with asyncio.timeout(60):
            while not connection.connected or (url := connection.client.connected_url) is None or url.netloc != want:
                for other in others:
                    connection._failed(other)  # so that it is not chosen
                await connection.reconnect()
                await asyncio.sleep(0.5)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as c:
        yield c


@contextlib.asynccontextmanager
async def running(tmp_path: Path, fronts: int = 0) -> AsyncIterator[Cluster]:
    ports = init.HubPorts(client=0, leaf=0, websocket=0)
    every = [init.HubServer(host="127.0.0.1", ports=ports, route=0) for _ in range(3 + fronts)]
    hub = init.init_hub(
        tmp_path / "hub", listen="127.0.0.1", ports=ports, shards=SHARDS, servers=every[:3], fronts=every[3:]
    )
    servers = [supervise.hub_server(hub, n) for n in range(1, 4 + fronts)]
    c = Cluster(hub, servers)
    try:
        await asyncio.gather(*(s.start() for s in servers))
        store = await c.client("setup")
        async with asyncio.timeout(60):
            while True:
                try:
                    await streams.ensure_streams(store, shards=SHARDS, limits=streams.limits_of(hub.replicas))
                    break
                except log.LogUnavailable:
                    await asyncio.sleep(0.2)
        yield c
    finally:
        for one in c.logs:
            await one.close()
        for connection in c.connections:
            await connection.close()
        await asyncio.gather(*(s.stop() for s in servers))


class Load:
    """Appends one chain, each event again with the same id until it is acknowledged; remembers what was."""

    def __init__(self, store: log.Log) -> None:
        self.log, self.retries = store, 0
        self.worst_s = 0.0
        self.acknowledged: list[tuple[int, str]] = []

    async def run(self) -> None:
        head = 0
        while True:
            name = f"c{len(self.acknowledged) % NAMES}"
            ev = plain.make_event(plain.cm(name), {"n": len(self.acknowledged)}, SCOPE, head)
            began = time.monotonic()
            while True:
                try:
                    expect = log.Expect(head, subjects.meta_scope(SCOPE, SHARDS))
                    head = await self.log.append(subjects.meta(SCOPE, plain.cm(name), SHARDS), ev, expect=expect)
                    break
                except log.WrongSequence:
                    # Stored after all, and looked for on a replica that lags: the same question again finds it.
                    self.retries += 1
                    await asyncio.sleep(0.1)
                except log.LogError:
                    self.retries += 1
                    await asyncio.sleep(0.05)
            self.worst_s = max(self.worst_s, time.monotonic() - began)
            self.acknowledged.append((head, ev.id))
            await asyncio.sleep(0.002)

    async def more(self, count: int = 100) -> None:
        async with asyncio.timeout(60):
            want = len(self.acknowledged) + count
            while len(self.acknowledged) < want:
                await asyncio.sleep(0.02)


HOT = plain.cm("hot")
HOT_VERSIONS = streams.VERSIONS_OF_THREE - 4


async def rewrite(store: log.Log) -> None:
    """One object, again and again, as often as its stream keeps versions of it."""
    for n in range(HOT_VERSIONS):
        ev = plain.make_event(HOT, {"n": n}, SCOPE, 0)
        while True:
            try:
                await store.append(subjects.cluster(HOT), ev)
                break
            except log.LogError:
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)


async def kill(c: Cluster, n: int) -> None:
    """kill -9; its supervisor brings it back after a while."""
    pid = c.servers[n].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def back(c: Cluster, n: int, restarts: int) -> None:
    async with asyncio.timeout(60):
        while c.servers[n].restarts == restarts or not c.servers[n].running:
            await asyncio.sleep(0.05)


async def test_nothing_acknowledged_is_lost_and_a_replica_follows(cluster: Cluster) -> None:
    c = cluster
    watching = await c.client("watch")
    service_log = await c.client("sync")
    service = sync.SyncService(c.connections[-1], service_log, shards=SHARDS)
    await service.start()
    load = Load(await c.client("load"))
    await c.client("node")
    store = MemoryStore()
    seen: dict[str, int] = {}
    backwards: list[str] = []

    def changed(changes: list[replica.Applied]) -> None:
        for change in changes:
            assert change.fact.event is not None
            name, n = change.fact.key.name, change.fact.event.data["n"] if change.fact.event.data else -1
            if n <= seen.get(name, -1):
                backwards.append(f"{name}: {n} after {seen[name]}")
            seen[name] = n

    follower = replica.Replica(SCOPE, [SCOPE], store, on_change=changed, refresh_s=3)
    await follower.attach(c.connections[-1])
    c.connections[-1].on_change(lambda up: follower.link_up() if up else follower.link_down())
    following = asyncio.create_task(follower.run())
    follower.link_up()
    loading = asyncio.create_task(load.run())
    rewriting = asyncio.create_task(rewrite(await c.client("rewriter")))
    try:
        await load.more()
        # a server that does not lead the stream
        leader = await c.leader_of(watching, "META-0")
        other = (leader + 1) % 3
        restarts = c.servers[other].restarts
        await kill(c, other)
        await load.more()
        await back(c, other, restarts)
        # the one that leads it
        leader = await c.leader_of(watching, "META-0")
        restarts = c.servers[leader].restarts
        await kill(c, leader)
        await load.more()
        await back(c, leader, restarts)
        # the leader of a history, which can't read on before there is another
        history = await c.leader_of(watching, "HISTORY-CLUSTER")
        restarts = c.servers[history].restarts
        await kill(c, history)
        await load.more()
        await back(c, history, restarts)
        # a leader that hangs is deposed, and wakes up; whoever writes is connected to that very server
        leader = await c.leader_of(watching, "META-0")
        await c.connected_to(load.log, leader)
        pid = c.servers[leader].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await load.more()
        finally:
            with contextlib.suppress(ProcessLookupError):  # if this took long, its supervisor has replaced it
                os.kill(pid, signal.SIGCONT)
        await load.more()
        # all of them, one after the other, cleanly
        for n in range(3):
            await c.leader_of(watching, "META-0")
            await c.servers[n].stop()
            await load.more(30)
            await c.servers[n].start()
        await c.leader_of(watching, "META-0")
        await load.more()
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    stored = await chain(watching)
    async with asyncio.timeout(60):
        await rewriting
    await history_is_whole(watching)
    async with asyncio.timeout(60):
        while not (follower.synced and follower.cursors()[SCOPE].seq >= load.acknowledged[-1][0]):
            await asyncio.sleep(0.05)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await service.stop()
    lost = [a for a in load.acknowledged if stored.get(a[0]) != a[1]]
    assert lost == []
    assert len(set(stored.values())) == len(stored), "an event is there twice"
    assert len(stored) - len(load.acknowledged) in (0, 1), "the last one may have been cut off before its acknowledgement"
    assert backwards == [], "an older value after a newer one"
    assert len(seen) == store.count("objects") == NAMES
    print(f"{len(stored)} events, {load.retries} retries, longest without an acknowledgement {load.worst_s:.1f} s")


async def history_is_whole(store: log.Log) -> None:
    """Every version of what was written so often is in it, though it had no leader for a while."""
    async with asyncio.timeout(100):
        while True:
            with contextlib.suppress(log.LogError):
                origin, mirror = await store.info("CLUSTER"), await store.info("HISTORY-CLUSTER")
                if mirror.last_seq == origin.last_seq >= HOT_VERSIONS:
                    break
            await asyncio.sleep(0.2)
    assert mirror.messages == mirror.last_seq


async def chain(store: log.Log) -> dict[int, str]:
    """Sequence -> id of every event, its chain checked link by link."""
    last = (await store.info("META-0")).last_seq
    out: dict[int, str] = {}
    head = 0
    async with asyncio.timeout(60), contextlib.aclosing(store.follow("META-0")) as batches:
        async for batch in batches:
            for r in batch.records:
                ev: event.Event = r.event()
                assert ev.prev == head, f"#{r.seq} says {ev.prev}, before it is {head}"
                head = r.seq
                out[r.seq] = ev.id
            if head >= last:
                return out
    raise AssertionError


DECIDED = int | log.WrongSequence


async def newest(store: log.Log, scope: str) -> int:
    """Last sequence of a scope, as the stream's leader has it."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(log.LogUnavailable):
                try:
                    last = await store.request("STREAM.MSG.GET.META-0", {"last_by_subj": subjects.meta_scope(scope, SHARDS)})
                except log.LogUnavailable:
                    raise
                except log.LogError:  # none yet
                    return 0
                return int(last["message"]["seq"])
            await asyncio.sleep(0.1)


async def test_writers_at_once_are_decided_one_way_or_the_other(cluster: Cluster) -> None:
    """A leader does not look at a write while another to the same subject is in process: no writer may take that for an
    answer.  Of many with one expectation exactly one wins; one event sent several times at once is stored once.  A round
    in which the servers themselves were out of reach counts for nothing."""
    await cluster.client("writers")
    store = log.Log(cluster.connections[-1], timeout_s=20)
    cluster.logs.append(store)
    rounds, head = 0, 0
    async with asyncio.timeout(60):
        while rounds < 20:
            name = plain.cm(f"c{rounds % 5}")
            events = [plain.make_event(name, {"writer": w}, SCOPE, head) for w in range(6)]
            events += [events[0]] * 3
            subject, expect = subjects.meta(SCOPE, name, SHARDS), log.Expect(head, subjects.meta_scope(SCOPE, SHARDS))
            ends = await asyncio.gather(*(store.append(subject, e, expect=expect) for e in events), return_exceptions=True)
            head = await newest(store, SCOPE)
            assert all(isinstance(x, DECIDED | log.LogUnavailable) for x in ends), ends
            if any(not isinstance(x, DECIDED) for x in ends):
                continue
            rounds += 1
            won = {(e.id, seq) for e, seq in zip(events, ends, strict=True) if isinstance(seq, int)}
            assert [seq for _, seq in won] == [head], ends
            assert all(({(e.id, head)} == won) == isinstance(x, int) for e, x in zip(events, ends, strict=True)), ends


async def test_writers_in_a_window_are_decided_one_way_or_the_other(cluster: Cluster) -> None:
    """The same by the dispatcher's way: many chains go on at once, and each is contended for."""
    await cluster.client("writers")
    window = pipeline.Pipeline(cluster.connections[-1], timeout_s=20)
    working = asyncio.create_task(window.run())
    heads = dict.fromkeys((f"scope-{n}" for n in range(10)), 0)
    rounds = 0
    try:
        async with asyncio.timeout(90):
            while rounds < 5:
                got: dict[str, list[pipeline.Outcome]] = {scope: [] for scope in heads}
                for scope, head in heads.items():
                    subject = subjects.meta(scope, plain.cm("c"), SHARDS)
                    expect = log.Expect(head, subjects.meta_scope(scope, SHARDS))
                    for writer in range(3):
                        ev = plain.make_event(plain.cm("c"), {"writer": writer}, scope, head)
                        window.append(subject, codec.encode_event(ev), ev.id, got[scope].append, expect=expect)
                while window.open:
                    await asyncio.sleep(0.01)
                heads = {scope: await newest(cluster.logs[-1], scope) for scope in heads}
                for scope, ends in got.items():
                    assert len(ends) == 3 and all(isinstance(x, DECIDED | log.LogUnavailable) for x in ends), ends
                    if all(isinstance(x, DECIDED) for x in ends):
                        assert [x for x in ends if isinstance(x, int)] == [heads[scope]], ends
                rounds += all(isinstance(x, DECIDED) for ends in got.values() for x in ends)
    finally:
        await tasks.end(working)


async def test_a_front_carries_the_log_and_has_none_of_it(tmp_path: Path) -> None:
    async with running(tmp_path, fronts=1) as c:
        front = c.hub.members[-1]
        there = connect.ConnectSettings((c.hub.urls[-1],), "front", credentials=c.hub.core_creds, ca=c.hub.ca_path)
        connection = await connect.connect(there)
        store = log.Log(connection)
        c.connections.append(connection)
        c.logs.append(store)
        name = plain.cm("through-a-front")
        subject = subjects.meta(SCOPE, name, SHARDS)
        async with asyncio.timeout(60):
            while True:
                try:
                    seq = await store.append(subject, plain.make_event(name, {}, SCOPE, 0), expect=log.Expect(0))
                    break
                except log.LogUnavailable:
                    await asyncio.sleep(0.1)
            while (found := await store.last_of("META-0", subject)) is None:  # told by any of the three, which may lag
                await asyncio.sleep(0.05)
        assert found.seq == seq
        led = (await store.request("STREAM.INFO.META-0"))["cluster"]
        holders = {led["leader"], *(p["name"] for p in led["replicas"])}
        assert holders == {m.name for m in c.hub.members[:3]}
        assert front.name not in holders
