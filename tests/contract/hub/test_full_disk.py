"""A hub whose disk was full: nats-server takes nothing more into a stream after a write that failed, until it is started
anew.  Its supervisor does that once there is room, and what was acknowledged before is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import log
from bus.hub import health
from ops.chaos import disk
from schemas import subjects
from tests.contract import hub_fixture
from tests.contract.bus import plain

pytestmark = pytest.mark.contract

DISK = "96m"
TEXT = "x" * 200_000
WAIT_S = 60


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[tuple[hub_fixture.RunningHub, disk.Disk]]:
    full = disk.small(tmp_path / "disk", DISK)
    try:
        made = await hub_fixture.start_hub(tmp_path / "disk" / "hub", health_every_s=0.5)
        yield made, full
        await hub_fixture.stop_hub(made)
    finally:
        full.close()


async def _write(store: log.Log, name: str, text: str = "") -> int:
    ev = plain.make_event(plain.cm(name), {"text": text}, "edge-1", 0)
    async with asyncio.timeout(2):
        return await store.append(subjects.cluster(plain.cm(name)), ev)


async def test_it_takes_writes_again_when_there_is_room(small: tuple[hub_fixture.RunningHub, disk.Disk]) -> None:
    made, full = small
    pid, first = made.server.pid, await _write(made.log, "before")
    assert pid is not None
    full.fill(pid)
    with pytest.raises((log.LogError, TimeoutError)):
        for n in range(100):
            await _write(made.log, f"big-{n}", TEXT)
    assert made.server.pid == pid, "without room a start anew would be no help"
    full.free(pid)
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(log.LogError, TimeoutError):
                await _write(made.log, "after")
                break
            await asyncio.sleep(0.1)
    assert (await made.log.get("CLUSTER", first)) is not None
    system = made.server._system
    assert system is not None
    assert await health.write_error("127.0.0.1", made.hub.file.ports.client, system) == ""
