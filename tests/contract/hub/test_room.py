"""A hub whose disk fills up: histories give way, then writes are refused with a reason before anything breaks, reports wait
on their nodes, and all goes on when there is room."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus import log, outbox
from bus.hub import room
from bus.identity import tokens
from bus.kube import registry as registries
from bus.kube.errors import StatusError
from bus.kube.storage import Origin
from bus.stores.memory import MemoryStore
from cloud.standalone.storage import ClusterStorage
from ops import doctor
from ops.chaos import disk
from schemas import subjects
from tests.contract import hub_fixture
from tests.contract.bus import plain
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract

MB = 1 << 20
DISK = 112 * MB
RESERVE = 16 * MB
HOW = registries.Write(Origin("test"))


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            found = check()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


@dataclass
class Small:
    """A disk of ours alone, where that is permitted; else so much of the machine's as we say is ours."""

    folder: Path
    policy: room.Policy

    def free(self) -> int:
        return shutil.disk_usage(self.folder).free - self.policy.least + RESERVE

    def leave(self, free: int) -> None:
        """Something else takes all but that."""
        with (self.folder / "filler").open("ab", buffering=0) as f:
            while self.free() > free:
                f.write(os.urandom(64 << 10))

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    folder = tmp_path / "disk"
    try:
        mounted = disk.SmallDisk(folder, f"{DISK}")
    except OSError:
        taken = shutil.disk_usage(tmp_path).free - DISK
        yield Small(folder, room.Policy(share=0.0, least=taken + RESERVE, most=1 << 60))
        return
    yield Small(folder, room.Policy(share=0.0, least=RESERVE))
    mounted.close()


@pytest.fixture
async def hub(small: Small) -> AsyncIterator[RunningHub]:
    running = await hub_fixture.start_hub(small.folder / "hub")
    yield running
    await hub_fixture.stop_hub(running)


async def test_a_full_disk_is_refused_before_it_is_one_and_all_goes_on_when_there_is_room(
    small: Small, hub: RunningHub
) -> None:
    keeper = room.RoomKeeper(hub.log, hub.hub.dir, policy=small.policy, look_s=0.2)
    storage = ClusterStorage(hub.log)
    await storage.start()
    api = registries.Registry(storage)
    box = outbox.Outbox(store := MemoryStore())
    tasks = [asyncio.create_task(keeper.run()), asyncio.create_task(box.run(hub.log))]
    written = 0

    async def write(name: str) -> bool:
        """Whether it was taken; refused is 507."""
        nonlocal written
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"x": os.urandom(150_000).hex()},
        }
        try:
            await api.create("", "configmaps", "default", body, how=HOW)
        except StatusError as e:
            if e.code != 507 or "disk is nearly full" not in str(e):
                raise
            return False
        written += 1
        return True

    try:
        await api.create("", "namespaces", "", {"metadata": {"name": "default"}}, how=HOW)
        assert await write("first")

        async def limited() -> bool:
            return bool((await hub.log.info("CLUSTER")).config["max_bytes"] > RESERVE / 2)

        await until(limited)  # there is always a limit

        # Histories give way.
        key = plain.cm("often")
        for _ in range(60):
            await hub.log.append(subjects.cluster(key), plain.make_event(key, {"x": os.urandom(150_000).hex()}))
        assert (await hub.log.info("HISTORY-CLUSTER")).first_seq == 1
        small.leave(RESERVE + 8 * MB)

        async def gave_way() -> bool:
            return (await hub.log.info("HISTORY-CLUSTER")).first_seq > 1

        await until(gave_way)
        state = await hub.log.info("CLUSTER")
        assert state.first_seq == 1, "of state nothing gives way"

        # Nothing more is taken, when there is nothing left that could give way.
        async def full() -> bool:
            small.leave(RESERVE - 2 * MB)
            return (await hub.log.info("HISTORY-CLUSTER")).bytes < 2 * MB and await room.told(hub.log) == "full"

        await until(full)
        n = 0
        while await write(f"o{n}"):
            n += 1
            assert small.free() > 2 * MB, "refused before it is full"
        subject = subjects.report("edge-1", "node", hub.hub.shards)
        with store.transact() as txn:
            added = [(box.add(txn, subject, plain.make_event(plain.cm("x"), {"n": 1}, "edge-1", 0)), subject)]

        async def refused() -> bool:
            try:
                await hub.log.append(subject, plain.make_event(plain.cm("x"), {"n": 0}, "edge-1", 0))
            except log.LogFull:
                return True
            return False

        await until(refused)
        box.committed(added)
        assert await tokens.create_token(hub.log, hub.hub), "who comes in is still written down"
        assert await room.told(hub.log) == "full"
        checks = {c.name: c async for c in doctor.hub(hub.hub.dir, 30)}
        assert checks["room for the log"].level == "fail" and checks["streams"].level == "ok"
        assert box.pending == 1

        # And again.
        small.make_room()
        await until(lambda: write("again"))
        await until(lambda: box.pending == 0)
        assert await room.told(hub.log) == "ok"
        found = await hub.log.last("CLUSTER", ["cluster.core.configmaps.>"])
        assert len(found.records) == written + 1, "all that was acknowledged"
    finally:
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await storage.stop()
