"""A node that floods the log with reports: others' reports are acknowledged and read, their nodes stay ready; the flooding
node is shut out for a while, longer the next time, the operator sees it, and it comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bus import stamp
from bus.identity import join
from bus.kube import registry as registries
from cloud import access_log, beats, gatekeeper, revoking
from cloud.core import gates
from cloud.reports import ReportsWorker
from cloud.standalone.storage import ClusterStorage
from schemas import codec, event, identity, reports, subjects
from schemas.subjects import ObjectKey
from tests.contract.isolation import raw
from tests.contract.isolation.conftest import Scene

pytestmark = pytest.mark.contract

WAIT_S = 60.0
LIMITS = gates.Limits(messages_at_once=3000, bytes_at_once=16 << 20, shut_s=1.0, shut_s_max=3600.0)
STATUS = {"nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"}}


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            found = check()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


def report(node: str, kind: str, data: dict[str, Any], name: str = "") -> bytes:
    ident = stamp.new_id()
    ev = event.Event(
        id=ident, type=event.REPORT, scope=node, resource=kind, namespace="default" if name else "", name=name or node,
        time=stamp.now_us(), source="test@0", trace=ident, data=data,
    )  # fmt: skip
    return codec.encode_event(ev)


@dataclass
class Cloud:
    """What ``skerry cloud run`` has of it, over the scene's hub."""

    scene: Scene
    storage: ClusterStorage
    worker: ReportsWorker
    gate: gatekeeper.Gatekeeper

    def conditions(self, node: str) -> dict[str, dict[str, Any]]:
        stored = self.storage.get(ObjectKey("", "nodes", "", node))
        status = (stored.object.get("status") or {}) if stored is not None else {}
        return {c["type"]: c for c in status.get("conditions", [])}

    def condition(self, node: str, kind: str) -> str:
        return str(self.conditions(node).get(kind, {}).get("status"))

    def label(self, node: str) -> str:
        stored = self.storage.get(ObjectKey("", "nodes", "", node))
        return "" if stored is None else str((stored.object["metadata"].get("labels") or {}).get("n", ""))

    async def door(self, node: str) -> identity.DoorState:
        record = await self.scene.hub.log.last_of("IDENTITY", subjects.identity_door(node))
        assert record is not None
        return codec.validate(identity.DoorState, record.event().data or {})


@contextlib.asynccontextmanager
async def running_cloud(scene: Scene) -> AsyncIterator[Cloud]:
    sys, store = scene.service._sys, scene.hub.log
    assert sys is not None
    watch = access_log.AccessLog(store)
    gate = gatekeeper.Gatekeeper(store, scene.hub.hub, sys, limits=LIMITS, tell=watch.tell)
    storage = ClusterStorage(store)
    await storage.start()
    worker = ReportsWorker(
        store, registries.Registry(storage), scene.shards, on_spent=functools.partial(gate.spend, "report")
    )
    gate.on_doors(worker.doors_shut)
    answers = beats.Beats(
        scene.hub.core, lambda node, _: worker.beat(node), worker.loaded.is_set, on_spent=gate.spender("beat")
    )
    await answers.start()
    keeper = revoking.Revoking(store, scene.hub.hub, sys, lambda: [d.public_key for d in gate.shut().values()], look_s=1)
    tasks = [asyncio.create_task(w.run()) for w in (watch, gate, worker, keeper)]
    try:
        await asyncio.wait_for(worker.loaded.wait(), WAIT_S)
        yield Cloud(scene, storage, worker, gate)
        assert not any(t.done() for t in tasks), [t for t in tasks if t.done()]
    finally:
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await answers.stop()
        await storage.stop()


class Honest:
    """A node that goes on with its work: a report, its acknowledgement, a beat, and so on."""

    def __init__(self, scene: Scene, connection: raw.Raw, node: str) -> None:
        self._scene, self._raw, self.node = scene, connection, node
        self.acknowledged = 0

    async def run(self) -> None:
        inbox = f"_INBOX.{self.node}.acks"
        self._raw.sub(f"{inbox}.>")
        while True:
            n = self.acknowledged + 1
            data = {"status": STATUS, "ready": True, "boot": "b", "labels": {"n": str(n)}}
            subject = subjects.report(self.node, "node", self._scene.shards)
            self._raw.pub(subject, report(self.node, "node", data), reply=f"{inbox}.{n}")
            self._raw.pub(subjects.beat(self.node), codec.encode(reports.Beat(boot="b", time=0)))
            async with asyncio.timeout(WAIT_S):
                while not any(h.subject == f"{inbox}.{n}" for h in self._raw.heard):
                    await asyncio.sleep(0.01)
            ack = json.loads(next(h.payload for h in self._raw.heard if h.subject == f"{inbox}.{n}"))
            assert "error" not in ack, ack
            self._raw.heard.clear()
            self.acknowledged = n
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def at_work(scene: Scene, node: str) -> AsyncIterator[Honest]:
    honest = Honest(scene, await scene.connect(node), node)
    task = asyncio.create_task(honest.run())
    try:
        await until(lambda: honest.acknowledged > 3)
        yield honest
        assert not task.done(), "it was never disturbed"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def flood(evil: raw.Raw, send: Callable[[int], None]) -> None:
    """Until the server hangs up."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(WAIT_S):
            n = 0
            while not evil.closed.is_set():
                for _ in range(20):
                    send(n)
                    n += 1
                with contextlib.suppress(OSError):
                    await evil.writer.drain()
                await asyncio.sleep(0.005)  # some thousands a second: this test has to breathe, too


async def comes_in(scene: Scene, node: str) -> raw.Raw:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await scene.connect(node)
            except raw.Refused:
                await asyncio.sleep(0.2)


async def goes_on(cloud: Cloud, honest: Honest) -> None:
    """What it says now is acknowledged, read, and in the API."""
    said = honest.acknowledged + 3
    await until(lambda: honest.acknowledged >= said)
    await until(lambda: int(cloud.label(honest.node) or 0) >= said)
    assert cloud.condition(honest.node, "Ready") == "True"


async def test_a_flood_of_reports_shuts_its_own_door_longer_each_time_and_nobody_elses(scene: Scene) -> None:
    async with running_cloud(scene) as cloud, at_work(scene, "edge-2") as honest:
        evil = await scene.connect("edge-1")
        first = report("edge-1", "node", {"status": STATUS, "ready": True, "boot": "b"})
        evil.pub(subjects.report("edge-1", "node", scene.shards), first)
        await until(lambda: cloud.condition("edge-1", "Ready") == "True")
        pod = codec.encode(reports.Beat(boot="b", time=0))  # no report at all: what it costs is the same
        subject = subjects.report("edge-1", "pod", scene.shards, "default", "x").removesuffix("x")
        await flood(evil, lambda n: evil.pub(f"{subject}p{n}", pod))
        once = await cloud.door("edge-1")
        assert once.times >= 1 and "report: more than 3000 messages" in once.reason
        await scene.until_audited("flood", "edge-1", "shut out until")
        await until(lambda: "report: more than" in cloud.conditions("edge-1").get("Flooding", {}).get("message", "")
                    or cloud.condition("edge-1", "Flooding") == "False")  # fmt: skip
        await goes_on(cloud, honest)

        evil = await comes_in(scene, "edge-1")  # by the same credentials, when its time is over
        await until(lambda: cloud.condition("edge-1", "Flooding") == "False")
        assert (await cloud.door("edge-1")).until == 0
        evil.pub(subjects.report("edge-1", "node", scene.shards), first)
        await evil.flush()

        await flood(evil, lambda n: evil.pub(subjects.beat("edge-1"), pod))  # this time a service
        twice = await cloud.door("edge-1")
        assert twice.times > once.times and "beat: more than" in twice.reason
        shut_us = twice.until - (await scene.hub.log.last_of("IDENTITY", subjects.identity_door("edge-1"))).time_us  # type: ignore[union-attr]
        assert shut_us > LIMITS.shut_s * 1e6, "longer than the first time"
        await goes_on(cloud, honest)
        assert await scene.audited("flood", "edge-2") == []
        await comes_in(scene, "edge-1")


async def test_giant_reports_are_refused_or_shut_out_and_others_are_read(scene: Scene) -> None:
    """Whoever reads them asks for so few that its own connection never has more to swallow than it can."""
    async with running_cloud(scene) as cloud, at_work(scene, "edge-2") as honest:
        subject = subjects.report("edge-1", "twin", scene.shards, "default", "d")
        evil = await scene.connect("edge-1")
        evil.sub("_INBOX.edge-1.>")
        above = b"x" * (reports.REPORT_BYTES_MAX + (8 << 10))
        evil.pub(subject, above, reply="_INBOX.edge-1.a")
        await until(lambda: bool(evil.heard))
        assert json.loads(evil.heard[0].payload)["error"]["err_code"] == 10054, "the stream refuses it by its size"
        evil.pub(subject, b"x" * (1 << 20))
        with pytest.raises((raw.Refused, TimeoutError)):
            await evil.flush()
        await scene.until_audited("refused", "edge-1", "Payload")

        evil = await scene.connect("edge-1")
        giant = b"x" * reports.REPORT_BYTES_MAX
        await flood(evil, lambda n: evil.pub(f"{subject}{n}", giant))
        assert "report: more than 1.67772e+07 bytes" in (await cloud.door("edge-1")).reason
        await goes_on(cloud, honest)
        await comes_in(scene, "edge-1")


async def test_the_door_stays_shut_for_renewed_credentials_and_opens_after_a_crash_of_the_gatekeeper(scene: Scene) -> None:
    async with running_cloud(scene) as cloud:
        key = scene.identities["edge-1"]
        now = stamp.now_us()
        public = join.public_key(scene.dir("edge-1"))
        far = identity.DoorState(public_key=public, until=now + 3600 * 10**6, times=3, reason="by this test")
        seq = await cloud.gate._write(identity.DOOR_SHUT, "edge-1", far, 0)  # and it died before the claims were pushed
        await until(functools.partial(_refused, scene, "edge-1"))
        with pytest.raises(join.JoinRefused, match="is shut out until .*: by this test"):
            await join.renew(scene.dir("edge-1"))
        assert join.load(scene.dir("edge-1")) == key
        over = far.model_copy(update={"until": now})  # its time is over, whoever shut it
        await cloud.gate._write(identity.DOOR_SHUT, "edge-1", over, seq)
        await comes_in(scene, "edge-1")
        await join.renew(scene.dir("edge-1"))
        await scene.connect("edge-1")
    await scene.connect("edge-2")


async def _refused(scene: Scene, node: str) -> bool:
    try:
        await (await scene.connect(node)).flush()
    except raw.Refused:
        return True
    return False
