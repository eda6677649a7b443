"""One quota, two API servers on one log: pods are created through both at once, and never more than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.identity import api_keys
from bus.kube import registry, upkeep
from bus.kube.errors import StatusError
from bus.kube.storage import Origin
from bus.kube.targets import Write
from cloud.standalone import rules
from cloud.standalone.controllers import quota as counting
from cloud.standalone.run_controllers import ControllerRunner
from cloud.standalone.storage import ClusterStorage
from tests.contract.bus import plain
from tests.contract.cloud.test_storage import api

pytestmark = pytest.mark.contract

HOW = Write(Origin("test"))
ROOM, ASKED = 20, 60
WITHIN_S = 60


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[plain.PlainServer]:
    s = plain.PlainServer(tmp_path / "jetstream")
    await s.start()
    yield s
    s.kill()


def served(storage: ClusterStorage) -> registry.Registry:
    return rules.make_registry(storage, issuer=rules.make_issuer(storage, api_keys.lone()))


async def create(through: registry.Registry, name: str) -> bool:
    spec = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}
    try:
        await through.create("", "pods", "default", {"metadata": {"name": name}, "spec": spec}, how=HOW)
    except StatusError as e:
        if e.code != 409 and "exceeded quota: q" not in e.message:
            raise
        return False
    return True


async def used(through: registry.Registry) -> Any:
    return (await through.get("", "resourcequotas", "default", "q"))["status"]["used"]


async def test_they_never_take_more_than_there_is(server: plain.PlainServer) -> None:
    async with api(server) as (one, _, _a), api(server) as (two, _, _b):
        servers = [served(one), served(two)]
        await upkeep.bootstrap(servers[0], Origin("test"))
        hard = {"pods": str(ROOM), "requests.cpu": "10"}
        q = await servers[0].create(
            "", "resourcequotas", "default", {"metadata": {"name": "q"}, "spec": {"hard": hard}}, how=HOW
        )
        await servers[1].wait_revision(int(q["metadata"]["resourceVersion"]))
        # The controller that counts runs beside the writers: what it writes must not make room that isn't there.
        runner = ControllerRunner(servers[0], [counting.NAME])
        controlling = asyncio.create_task(runner.run())
        try:
            made = await asyncio.gather(*(create(servers[i % 2], f"p{i}") for i in range(ASKED)))
            # A loser of many races is told to try again (409), and may: until it is full, everybody who asks again gets in.
            async with asyncio.timeout(WITHIN_S):
                while sum(made) < ROOM:
                    left = [i for i, ok in enumerate(made) if not ok]
                    again = await asyncio.gather(*(create(servers[i % 2], f"p{i}") for i in left))
                    for i, ok in zip(left, again, strict=True):
                        made[i] = ok
            assert sum(made) == ROOM
            assert not any(await asyncio.gather(*(create(servers[i % 2], f"more{i}") for i in range(10))))
            pods = (await servers[0].list("", "pods", "default"))[0]
            assert len(pods) == ROOM
            async with asyncio.timeout(WITHIN_S):
                while await used(servers[0]) != {"pods": str(ROOM), "requests.cpu": "2"}:
                    await asyncio.sleep(0.05)
            for pod in pods[:5]:
                await servers[1].delete("", "pods", "default", pod["metadata"]["name"], how=HOW)
            async with asyncio.timeout(WITHIN_S):
                while await used(servers[1]) != {"pods": str(ROOM - 5), "requests.cpu": "1500m"}:
                    await asyncio.sleep(0.05)
            again = await asyncio.gather(*(create(servers[i % 2], f"new{i}") for i in range(12)))
            async with asyncio.timeout(WITHIN_S):
                while sum(again) < 5:
                    again = [ok or await create(servers[i % 2], f"new{i}") for i, ok in enumerate(again)]
            assert sum(again) == 5 and len((await servers[0].list("", "pods", "default"))[0]) == ROOM
        finally:
            controlling.cancel()
            await asyncio.gather(controlling, return_exceptions=True)
