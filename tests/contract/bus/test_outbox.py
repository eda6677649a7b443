"""The outbox on LMDB against a real nats-server: nothing reported is lost, none overtakes another."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bus import log, outbox
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


async def test_reports_arrive_in_order_of_their_subject_through_kill_9_of_the_hub(
    server: plain.PlainServer, tmp_path: Path
) -> None:
    nc = await plain.client(server)
    hub = log.Log(nc, timeout_s=0.5)
    await plain.make_streams(hub)
    store = LmdbStore(tmp_path / "s")
    box = outbox.Outbox(store)
    task = asyncio.create_task(box.run(hub))
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
