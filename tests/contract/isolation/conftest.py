from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bus.hub import refusals
from cloud import joining
from schemas import codec, identity, subjects
from schemas.joining import NodeIdentity
from tests.contract import node_fixture
from tests.contract.hub_fixture import RunningHub, hub
from tests.contract.isolation import raw

__all__ = ["hub", "scene"]


@dataclass
class Scene:
    """A hub, two nodes that joined it, and their stolen credentials: edge-1 is the compromised one."""

    hub: RunningHub
    service: joining.JoinService
    identities: dict[str, NodeIdentity]
    folder: Path
    opened: list[raw.Raw] = field(default_factory=list)

    @property
    def shards(self) -> int:
        return self.hub.hub.shards

    def dir(self, node: str) -> Path:
        return self.folder / node

    def creds(self, node: str) -> str:
        return (self.dir(node) / "node.creds").read_text()

    async def connect(self, node: str, creds: str | None = None, **more: str) -> raw.Raw:
        """Raises raw.Refused."""
        r = await raw.connect(self.identities[node].urls[0], creds or self.creds(node), self.dir(node) / "ca.pem", **more)
        self.opened.append(r)
        return r

    async def audited(self, what: str, name: str) -> list[identity.Audited]:
        out: list[identity.Audited] = []
        async with contextlib.aclosing(self.hub.log.follow("AUDIT", [subjects.audit(what, name)])) as batches:
            async for batch in batches:
                out += [codec.validate(identity.Audited, r.event().data or {}) for r in batch.records]
                if batch.pending == 0:
                    break
        return out

    async def until_audited(self, what: str, name: str, *about: str) -> None:
        """Until each of ``about`` is in a reason there."""
        async with asyncio.timeout(20):
            while True:
                reasons = [a.reason for a in await self.audited(what, name)]
                if reasons and all(any(text in r for r in reasons) for text in about):
                    return
                await asyncio.sleep(0.1)

    async def last_seqs(self) -> dict[str, int]:
        names = ["CLUSTER", *(f"META-{n}" for n in range(self.shards)), "IDENTITY", "TELEMETRY"]
        names += [f"REPORT-{n}" for n in range(self.shards)]
        return {n: (await self.hub.log.info(n)).last_seq for n in names}


@pytest.fixture
async def scene(hub: RunningHub, tmp_path: Path) -> AsyncIterator[Scene]:
    async with node_fixture.join_service(hub) as service:
        identities = {n: await node_fixture.join_node(hub, tmp_path / n, n) for n in ("edge-1", "edge-2")}
        sys = service._sys
        assert sys is not None
        watching = refusals.Refusals(sys, hub.log, hub.hub.dir / "log" / "nats-server.log")
        task = asyncio.create_task(watching.run(), name="refusals")
        await asyncio.sleep(0)
        scene = Scene(hub, service, identities, tmp_path)
        yield scene
        for r in scene.opened:
            await r.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
