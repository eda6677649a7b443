"""A node without a bus of its own speaks to the hub itself, also to one whose authority changed while it was away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus import connect, tasks
from bus.hub import authority
from bus.identity import join
from edge import daemon
from schemas import subjects
from tests.contract import hub_fixture, node_fixture

pytestmark = pytest.mark.contract


async def test_it_finds_the_hub_when_it_starts_after_the_authority_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "UNLINKED_RETRY_S", 0.1)
    hub = await hub_fixture.start_hub(tmp_path / "hub")
    try:
        async with node_fixture.join_service(hub):
            await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
            old = (tmp_path / "n" / "ca.pem").read_text()
            for step in (authority.announce, authority.switch, authority.drop):
                step(hub.hub)
            await hub.server.reload()
            assert await authority.served(hub.hub) == []
            heard = asyncio.Event()

            async def beat(_: connect.Message) -> None:
                heard.set()

            await hub.core.subscribe(subjects.beat("edge-1"), beat)
            await hub.core.flush()
            running = asyncio.create_task(daemon.run(daemon.Settings(tmp_path / "n", link_mode="direct")))
            async with asyncio.timeout(60):
                await heard.wait()
            assert not running.done()
            assert old != (tmp_path / "n" / "ca.pem").read_text() == hub.hub.ca_path.read_text()
            await tasks.end(running)
    finally:
        await hub_fixture.stop_hub(hub)
