"""The outbox on LMDB against a real nats-server: nothing reported is lost, none overtakes another."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
from pathlib import Path

import msgpack
import pytest

from bus import log, outbox
from bus.connect import ConnectSettings, connect
from bus.stores import base
from bus.stores.lmdb_store import LmdbStore
from bus.stores.memory import MemoryStore
from schemas import event, subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract


def report(name: str, n: int) -> tuple[str, event.Event]:
    subject = subjects.report("edge-1", "pod", 1, "default", name)
    key = subjects.ObjectKey("", "pod", "default", name)
    return subject, plain.make_event(key, {"n": n}, "edge-1").model_copy(update={"type": event.REPORT})


def add(box: outbox.Outbox, store: base.Store, name: str, n: int) -> None:
    subject, ev = report(name, n)
    with store.transact() as txn:
        number = box.add(txn, subject, ev)
    box.committed([(number, subject)])


async def drained(box: outbox.Outbox, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while box.pending:
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def reports(store: log.Log) -> list[tuple[str, int]]:
    out = []
    async for batch in store.follow("REPORT-0"):
        out += [(e.name, (e.data or {})["n"]) for e in (r.event() for r in batch.records)]
        if batch.pending == 0:
            return out
    raise AssertionError


async def make_streams(hub: log.Log) -> None:
    """As a hub makes them, but that every report can be read afterwards."""
    await plain.make_streams(hub)
    config = (await hub.info("REPORT-0")).config
    await hub.request("STREAM.UPDATE.REPORT-0", {**config, "allow_atomic": True, "max_msgs_per_subject": -1})


async def test_reports_arrive_in_order_of_their_subject_through_kill_9_of_the_hub(
    server: plain.PlainServer, tmp_path: Path
) -> None:
    nc = await plain.client(server)
    hub = log.Log(nc, timeout_s=0.5)
    await make_streams(hub)
    store = LmdbStore(tmp_path / "s")
    box = outbox.Outbox(store)
    nc.on_change(lambda up: box.link_up() if up else None)
    task = asyncio.create_task(box.run(hub, hub))
    for n in range(40):
        add(box, store, f"p{n % 5}", n)
        if n == 15:
            server.kill()
        if n == 30:
            await server.start()
    await drained(box)
    got = await reports(hub)
    for p in range(5):
        mine = [n for name, n in got if name == f"p{p}"]
        assert mine == sorted(set(mine)) and mine[-1] == 35 + p and len(mine) == 8
    assert store.count("outbox") == 0
    await stop(task)
    await hub.close()
    await nc.close()
    store.close()


async def test_what_a_killed_node_had_to_say_is_said_by_the_next(server: plain.PlainServer, tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from bus import outbox
        from bus.stores.lmdb_store import LmdbStore
        from tests.contract.bus.test_outbox import add
        store = LmdbStore(Path(sys.argv[1])); box = outbox.Outbox(store)
        for n in range(7):
            add(box, store, "p", n)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], check=False).returncode == -9
    nc = await plain.client(server)
    hub = log.Log(nc)
    await plain.make_streams(hub)
    store = LmdbStore(tmp_path / "s")
    box = outbox.Outbox(store)
    assert box.pending == 7
    task = asyncio.create_task(box.run(hub))
    await drained(box)
    assert await reports(hub) == [("p", n) for n in range(7)]
    await stop(task)
    await hub.close()
    await nc.close()
    store.close()


async def test_over_a_link_that_is_slow_a_subject_with_many_reports_is_caught_up_with(server: plain.PlainServer) -> None:
    """600 ms a round trip: one report after the other would take four minutes, and a device goes on reporting."""
    relay = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.lab.relay", "127.0.0.1", str(server.port), "0",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert relay.stdin is not None and relay.stdout is not None
    port = int(await relay.stdout.readline())
    nc = await connect(ConnectSettings((f"nats://127.0.0.1:{port}",), "far"))
    near = await plain.client(server)
    far, hub = log.Log(nc), log.Log(near)
    await make_streams(hub)
    relay.stdin.write(b"shape 300 0 0\n")
    await relay.stdout.readline()
    store = MemoryStore()
    box = outbox.Outbox(store)
    for n in range(400):
        add(box, store, "p", n)
    task = asyncio.create_task(box.run(far, far))
    async with asyncio.timeout(100):
        while box.pending:
            await asyncio.sleep(0.05)
    assert [n for _, n in await reports(hub)] == list(range(400))
    await stop(task)
    for one in (far, hub):
        await one.close()
    for connection in (nc, near):
        await connection.close()
    relay.stdin.close()
    await relay.wait()


async def test_a_run_of_which_the_log_has_some_is_sent_one_by_one_and_nothing_is_doubled(server: plain.PlainServer) -> None:
    """An answer was lost: the log has it, and the node does not know."""
    nc = await plain.client(server)
    hub = log.Log(nc)
    await make_streams(hub)
    store = MemoryStore()
    box = outbox.Outbox(store)
    for n in range(10):
        add(box, store, "p", n)
    for key, value in list(store.items("outbox"))[:3]:
        subject, msg_id, payload = msgpack.unpackb(value)
        await hub.append_bytes(subject, payload, msg_id)
        assert key
    with pytest.raises(log.RunRefused):
        await hub.append_run(subject, [(payload, msg_id), (payload, "another")])
    task = asyncio.create_task(box.run(hub, hub))
    await drained(box)
    assert [n for _, n in await reports(hub)] == list(range(10))
    await stop(task)
    await hub.close()
    await nc.close()


async def test_what_went_with_a_dead_link_is_sent_again_when_there_is_a_new_one(server: plain.PlainServer) -> None:
    nc = await plain.client(server)
    hub = log.Log(nc)
    await plain.make_streams(hub)

    class Lossy:
        lost = True

        async def append_bytes(self, subject: str, payload: bytes, msg_id: str) -> int:
            if self.lost:
                await asyncio.Event().wait()
            return await hub.append_bytes(subject, payload, msg_id)

    way, store = Lossy(), MemoryStore()
    box = outbox.Outbox(store)
    add(box, store, "p", 1)
    task = asyncio.create_task(box.run(way))
    async with asyncio.timeout(60):
        while not box._flying:
            await asyncio.sleep(0.01)
    way.lost = False
    box.link_up()
    await drained(box)
    assert await reports(hub) == [("p", 1)]
    await stop(task)
    await hub.close()
    await nc.close()


async def test_a_rolled_back_change_reports_nothing(server: plain.PlainServer) -> None:
    store = MemoryStore()
    box = outbox.Outbox(store)
    with pytest.raises(ZeroDivisionError), store.transact() as txn:
        box.add(txn, *report("p", 1))
        raise ZeroDivisionError
    assert box.pending == 0 and store.count("outbox") == 0


async def test_above_the_limit_only_overtaken_reports_go(server: plain.PlainServer) -> None:
    store = MemoryStore()
    box = outbox.Outbox(store, events_max=100)
    add(box, store, "rare", 1)
    for n in range(300):
        add(box, store, "busy", n)
    assert box.pending <= 100 and box.overtaken >= 200
    nc = await plain.client(server)
    hub = log.Log(nc)
    await plain.make_streams(hub)
    task = asyncio.create_task(box.run(hub))
    await drained(box)
    got = await reports(hub)
    assert ("rare", 1) in got and got[-1] == ("busy", 299)
    await stop(task)
    await hub.close()
    await nc.close()


async def test_a_report_too_large_is_dropped_and_said_and_does_not_stop_the_others(server: plain.PlainServer) -> None:
    nc = await plain.client(server)
    hub = log.Log(nc)
    await plain.make_streams(hub)
    # The server's limit is lowered below ours, as an operator could.
    config = (await hub.info("REPORT-0")).config
    await hub.request("STREAM.UPDATE.REPORT-0", {**config, "max_msg_size": 1000})
    store = MemoryStore()
    box = outbox.Outbox(store)
    subject, ev = report("big", 1)
    with store.transact() as txn:
        number = box.add(txn, subject, ev.model_copy(update={"data": {"n": 1, "text": "x" * 2000}}))
    box.committed([(number, subject)])
    add(box, store, "small", 2)
    task = asyncio.create_task(box.run(hub))
    await drained(box)
    assert box.refused == 1 and await reports(hub) == [("small", 2)]
    await stop(task)
    await hub.close()
    await nc.close()
