"""Two machines with one identity, and a node that floods: the true node and all others go on."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bus import connect, link
from cloud import access_log, beats, hints
from cloud.sync import SyncService
from schemas import codec, identity, reports, subjects, sync
from tests.contract import node_fixture
from tests.contract.isolation.conftest import Scene

pytestmark = pytest.mark.contract


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            found = check()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        yield
    finally:
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Machine:
    """A daemon's half of the link, on its own connection with the node's credentials."""

    def __init__(self, connection: connect.Connection, node: str, run: str, *, beat_s: float = 300.0) -> None:
        self.connection, self.node, self.ups, self.asked = connection, node, 0, 0
        self.link = link.Link(
            connection, node, lambda: reports.Beat(boot="b", time=0, run=run), on_up=self._up, on_down=lambda: None,
            beat_s=beat_s, answer_timeout_s=2, retry_s=0.2,
        )  # fmt: skip

    def _up(self) -> None:
        self.ups += 1

    async def _ask(self, msg: connect.Message) -> None:
        self.asked += 1
        self.link.nudge(renewed=msg.data == reports.RENEWED)

    async def run(self) -> None:
        await self.connection.subscribe(subjects.command(self.node, "beat"), self._ask)
        await self.link.run()


async def own(scene: Scene, node: str) -> connect.Connection:
    return await connect.connect(node_fixture.direct_settings(scene.dir(node), inbox=subjects.inbox(node)))


async def test_a_clone_is_fenced_within_a_beat_the_operator_told_and_the_first_goes_on(scene: Scene) -> None:
    watch = access_log.AccessLog(scene.hub.log)
    told: list[tuple[str, str]] = []

    def on_clone(node: str, message: str) -> None:
        told.append((node, message))
        watch.tell(identity.AUDIT_CLONE, "clone", node, message)

    heard: list[str] = []
    service = beats.Beats(scene.hub.core, lambda n, b: heard.append(b.run), lambda: True, on_clone=on_clone)
    await service.start()
    one, two = await own(scene, "edge-1"), await own(scene, "edge-1")
    first, clone = Machine(one, "edge-1", "first"), Machine(two, "edge-1", "clone")
    async with running(watch.run(), first.run()):
        await until(lambda: first.link.state == "up")
        async with running(clone.run()):  # beats are 5 minutes apart: it is found because both are asked
            await until(lambda: clone.link.fenced and clone.link.state == "down")
            assert clone.link.fenced and not first.link.fenced and first.link.state == "up"
            assert len(told) == 1 and "run first is kept, run clone is fenced" in told[0][1]
            before = len(heard)
            clone.link.nudge()
            await asyncio.sleep(0.3)
            assert "clone" not in heard[before:], "a fenced beat is no sign of life of the node"
        await scene.until_audited("clone", "edge-1", "two daemons live on the identity")
    await service.stop()
    await one.close()
    await two.close()


async def test_who_takes_over_knows_which_daemon_was_there_first(scene: Scene) -> None:
    """The leader of the reports dies between two beats of the true node, and a clone is heard before it."""
    leads = {"one": True, "other": False}
    services = [beats.Beats(scene.hub.core, lambda *_: None, lambda name=name: leads[name]) for name in leads]
    for service in services:
        await service.start()
    one, two = await own(scene, "edge-1"), await own(scene, "edge-1")
    first, clone = Machine(one, "edge-1", "first"), Machine(two, "edge-1", "clone")
    async with running(first.run()):
        await until(lambda: first.link.state == "up")
        await services[0].stop()
        leads.update(one=False, other=True)
        async with running(clone.run()):
            await until(lambda: clone.link.fenced)
            assert not first.link.fenced
    await services[1].stop()
    await one.close()
    await two.close()


async def test_a_link_that_ends_is_told_in_seconds_and_a_flap_is_not(scene: Scene) -> None:
    lost: list[str] = []
    service = beats.Beats(scene.hub.core, lambda *_: None, lambda: True, grace_s=600)
    await service.start()
    assert scene.service._sys is not None
    hinting = hints.Hints(
        scene.service._sys, scene.hub.core, scene.hub.log, scene.hub.hub.accounts.edge, service, lost.append, debounce_s=1.0
    )
    one, two = await own(scene, "edge-1"), await own(scene, "edge-2")
    flapping, leaving = Machine(one, "edge-1", "a"), Machine(two, "edge-2", "b")
    async with running(hinting.run(), flapping.run(), leaving.run()):
        await until(lambda: flapping.link.state == leaving.link.state == "up")
        await until(lambda: flapping.asked > 0 and leaving.asked > 0)  # everybody, when the cloud began
        asked, ups = flapping.asked, flapping.ups
        await one.reconnect()
        await until(lambda: flapping.asked > asked and flapping.ups > ups)  # it catches up now, not in 5 minutes
        await two.close()
        await until(lambda: lost == ["edge-2"])
        await asyncio.sleep(0.5)
        assert lost == ["edge-2"]
    await service.stop()
    await one.close()


async def test_a_silent_node_is_asked_before_its_grace_is_over(scene: Scene) -> None:
    service = beats.Beats(scene.hub.core, lambda *_: None, lambda: True, grace_s=2.0)
    await service.start()
    connection = await own(scene, "edge-1")
    machine = Machine(connection, "edge-1", "a")
    async with running(service.run(), machine.run()):
        await until(lambda: machine.link.state == "up")
        seen = service.seen("edge-1")
        await until(lambda: service.seen("edge-1") > seen and machine.asked > 0)
    await service.stop()
    await connection.close()


async def test_a_flood_of_questions_is_dropped_and_told_and_others_are_served(scene: Scene) -> None:
    """Measured in the report of this test, not asserted: how long another node's catch-up takes meanwhile."""
    watch = access_log.AccessLog(scene.hub.log)
    service = SyncService(scene.hub.core, scene.hub.log, shards=scene.shards, on_flood=watch.on_flood("sync"))
    answers = beats.Beats(scene.hub.core, lambda *_: None, lambda: True, on_flood=watch.on_flood("beat"))
    await service.start()
    await answers.start()
    good, evil = await scene.connect("edge-2"), await scene.connect("edge-1")
    good.sub("answer.edge-2.*")
    mine = codec.encode(sync.SyncRequest(scopes=[sync.ScopeCursor(scope="edge-2")]))
    theirs = codec.encode(sync.SyncRequest(scopes=[sync.ScopeCursor(scope="edge-1")]))

    async def catch_up(n: int) -> float:
        began = time.monotonic()
        good.pub(f"sync.edge-2.q{n}", mine)
        async with asyncio.timeout(20):
            while not any(h.subject == f"answer.edge-2.q{n}" for h in good.heard):
                await asyncio.sleep(0.001)
        return time.monotonic() - began

    async def flood() -> None:
        beat = codec.encode(reports.Beat(boot="b", time=0))
        while True:
            for n in range(500):
                evil.pub(f"sync.edge-1.f{n}", theirs)
                evil.pub("beat.edge-1", beat)
            await evil.writer.drain()
            await asyncio.sleep(0.01)

    async with running(watch.run()):
        quiet = [await catch_up(n) for n in range(20)]
        async with running(flood()):
            await until(lambda: service._shares.dropped > 2000)
            busy = [await catch_up(n) for n in range(100, 120)]
        answered = service.answered
        assert answered < 40 + 300 + 20 * 30, "not more than its share was answered"
        await scene.until_audited("flood", "edge-1", "sync: asks too much", "beat: asks too much")
        assert await scene.audited("flood", "edge-2") == []
    ms = [statistics.median(times) * 1e3 for times in (quiet, busy)]
    print(f"catch-up of another node: quiet {ms[0]:.1f} ms, during the flood {ms[1]:.1f} ms")
    await service.stop()
    await answers.stop()
