"""A node that fills a stream that others write into pushes out its own messages and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bus import stamp, tasks
from bus.hub import room, telemetry
from bus.identity import join, permissions
from cloud import fairness
from cloud.core.holdings import Rules
from schemas import subjects
from tests.contract.isolation import raw_leaf
from tests.contract.isolation.conftest import Scene
from tests.contract.isolation.raw_uplink import Uplink

pytestmark = pytest.mark.contract

MB = 1 << 20
WAIT_S = 60.0
SAMPLE = 32 << 10


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await check():
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def fair(scene: Scene, stream: str, rules: Rules, paused: list[str]) -> AsyncIterator[None]:
    shared = [fairness.Shared(s.name, s.prefix, rules) for s in fairness.streams(scene.shards) if s.name == stream]
    told: list[str] = []

    async def again(node: str) -> None:
        told.append(node)

    keeper = fairness.Fairness(
        scene.hub.log,
        scene.shards,
        pause=lambda node, seconds: paused.append(node),
        say_again=again,
        tell=lambda type_, what, node, reason: told.append(node),
        look_s=0.2,
        of=shared,
    )
    task = asyncio.create_task(keeper.run(), name="fairness")
    try:
        yield
        assert not task.done(), task
        assert set(told) == {"edge-1"}
    finally:
        await tasks.end(task)


async def uplink(scene: Scene, node: str) -> Uplink:
    """A raw leaf as the node, from which the hub fetches telemetry."""
    key = join.public_key(scene.dir(node))
    leaf = await raw_leaf.connect(
        scene.identities[node].leaf_urls[0], scene.creds(node), scene.dir(node) / "ca.pem", name=node
    )
    scene.opened.append(leaf)
    up = Uplink(leaf, subjects.uplink(node, permissions.life_of(key)))
    await leaf.flush()
    await telemetry.add_telemetry_source(scene.hub.log, node, key)
    await up.fetched()
    await leaf.flush()
    return up


async def held(scene: Scene, node: str) -> int:
    told = await scene.hub.log.request("STREAM.INFO.TELEMETRY", {"subjects_filter": subjects.telemetry_node(node)})
    return sum((told["state"].get("subjects") or {}).values())


async def limit(scene: Scene, stream: str, bytes_max: int) -> None:
    config = (await scene.hub.log.info(stream)).config
    await scene.hub.log.request(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": bytes_max})


async def test_a_flood_of_telemetry_pushes_out_its_own_and_its_node_is_paused(scene: Scene) -> None:
    """Ten times what the stream may hold; without the bound all of edge-2's samples were gone after the first time."""
    await limit(scene, "TELEMETRY", 8 * MB)
    evil, honest = await uplink(scene, "edge-1"), await uplink(scene, "edge-2")
    paused: list[str] = []
    async with fair(scene, "TELEMETRY", Rules(least=MB // 8), paused):
        for n in range(20):
            honest.deliver(subjects.telemetry("edge-2", "default", "meter", f"p{n}"), b"x" * 1000)
        await honest._leaf.flush()

        async def stored() -> bool:
            return await held(scene, "edge-2") == 20

        await until(stored)
        sent = 20

        async def taken() -> bool:
            """All of it is in, and there is room for the next ones: as fast as a link that is no faster than a look."""
            info = await scene.hub.log.info("TELEMETRY")
            return info.last_seq >= sent and info.bytes < 6.5 * MB

        for _ in range(80):
            for _ in range(32):
                evil.deliver(subjects.telemetry("edge-1", "default", "d", f"p{evil.seq % 7}"), b"x" * SAMPLE)
            sent += 32
            await evil._leaf.flush()
            await until(taken)
        assert await held(scene, "edge-2") == 20, "nothing of the quiet one went"
        assert 0 < await held(scene, "edge-1") * SAMPLE < 7 * MB
        assert set(paused) == {"edge-1"}


async def test_telemetry_in_anothers_name_is_taken_out_and_its_node_paused(scene: Scene) -> None:
    await limit(scene, "TELEMETRY", 8 * MB)
    evil, honest = await uplink(scene, "edge-1"), await uplink(scene, "edge-2")
    mine = subjects.telemetry("edge-2", "default", "meter", "volts")
    honest.deliver(mine, b"true")
    await honest._leaf.flush()
    for _ in range(90):
        evil.deliver(mine, b"f" * SAMPLE)
    await evil._leaf.flush()

    async def stored() -> bool:
        return await held(scene, "edge-2") == 91

    await until(stored)
    paused: list[str] = []
    async with fair(scene, "TELEMETRY", Rules(least=MB // 8), paused):

        async def cleaned() -> bool:
            return await held(scene, "edge-2") == 1

        await until(cleaned)
        assert set(paused) == {"edge-1"}
    last = await scene.hub.log.last_of("TELEMETRY", mine)
    assert last is not None and last.payload == b"true"


async def test_reports_of_a_node_that_fills_the_log_go_and_it_is_asked_to_say_them_again(scene: Scene) -> None:
    stream = f"REPORT-{subjects.shard_of('edge-1', scene.shards)}"
    other = next(n for n in (f"other-{i}" for i in range(100)) if subjects.shard_of(n, scene.shards) == int(stream[-1]))
    for n in range(10):
        subject = subjects.report(other, "pod", scene.shards, "default", f"p{n}")
        await scene.hub.log.append_bytes(subject, b"quiet", stamp.new_id())
    evil = await scene.connect("edge-1")
    for n in range(200):
        evil.pub(subjects.report("edge-1", "pod", scene.shards, "default", f"p{n}"), b"x" * (64 << 10))
    await evil.flush()

    async def counts(node: str) -> int:
        filter_ = subjects.report_node(node, scene.shards)
        told = await scene.hub.log.request(f"STREAM.INFO.{stream}", {"subjects_filter": filter_})
        return len(told["state"].get("subjects") or {})

    async def all_in() -> bool:
        return await counts("edge-1") == 200

    await until(all_in)
    # As the hub's room keeper says it on a disk that has 2 MB left for each stream.
    config = (await scene.hub.log.info("CLUSTER")).config
    metadata = {**(config.get("metadata") or {}), f"{room.METADATA}1": f"tight {2 * MB}"}
    await scene.hub.log.request("STREAM.UPDATE.CLUSTER", {**config, "metadata": metadata})
    async with fair(scene, stream, Rules(least=MB), []):

        async def fewer() -> bool:
            return await counts("edge-1") < 130

        await until(fewer)
    assert await counts(other) == 10
    newest = await scene.hub.log.last_of(stream, subjects.report("edge-1", "pod", scene.shards, "default", "p199"))
    assert newest is not None, "the oldest went"
