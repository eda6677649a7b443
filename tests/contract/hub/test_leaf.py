"""A node's leaf: what crosses the link both ways, and that it lives on without daemon and hub."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import nats.errors
import pytest

from bus import connect, log, tasks
from bus.hub import leaf, links, uplink
from bus.identity import join
from schemas import event, subjects
from tests.contract import node_fixture
from tests.contract.bus import plain
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


def report(node: str) -> event.Event:
    ev = plain.make_event(plain.cm("x"), {"ready": True})
    return ev.model_copy(
        update={"type": event.REPORT, "scope": node, "resource": "node", "namespace": "", "name": "", "group": ""}
    )


async def linked(node: node_fixture.RunningNode) -> None:
    """Until a request through the leaf finds the hub."""
    while True:
        try:
            await node.daemon.request(subjects.beat(node.identity.node), b"", timeout_s=1)
            return
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError, connect.NotConnected):
            await asyncio.sleep(0.05)


async def serve_beats(hub: RunningHub) -> None:
    async def answer(msg: connect.Message) -> None:
        await msg.respond(b"alive")

    await hub.core.subscribe("beat.*", answer)


async def test_everything_a_node_needs_crosses_the_link(hub: RunningHub, tmp_path: Path) -> None:
    await serve_beats(hub)
    async with (
        node_fixture.join_service(hub),
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        await linked(node)
        shards = hub.hub.shards
        # report: stored at the hub, acknowledged by its JetStream
        seq = await node.log.append(subjects.report("edge-1", "node", shards), report("edge-1"))
        stored = await hub.log.get(subjects.stream_of(subjects.report("edge-1", "node", shards)), seq)
        assert stored is not None and stored.event().scope == "edge-1"
        # sync: a question without a reply subject, an answer on the subject derived from it
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        lives: asyncio.Queue[str] = asyncio.Queue()

        async def heard(msg: connect.Message) -> None:
            answers.put_nowait(msg.data)

        async def live(msg: connect.Message) -> None:
            lives.put_nowait(msg.subject)

        async def sync(msg: connect.Message) -> None:
            _, name, nonce = msg.subject.split(".")
            await hub.core.client.publish(f"answer.{name}.{nonce}", b"page for " + msg.data)

        await hub.core.subscribe("sync.*.*", sync, queue="sync")
        await node.daemon.subscribe("answer.edge-1.*", heard)
        for scope in ("edge-1", "all"):
            await node.daemon.subscribe(subjects.live_scope(scope), live)
        await node.daemon.flush()
        while answers.empty():  # interest travels behind the flush
            await node.daemon.client.publish(subjects.sync_request("edge-1", "n1"), b"me")
            await asyncio.sleep(0.05)
        assert await answers.get() == b"page for me"
        # live: what META republishes for the node and for all
        for scope in ("edge-1", "all"):
            subject = subjects.meta(scope, plain.cm("a"), shards)
            await hub.log.append(subject, plain.make_event(plain.cm("a"), {}, scope, 0))
        assert sorted([await lives.get(), await lives.get()]) == [
            f"live.all.{plain.cm('a').tokens()}",
            f"live.edge-1.{plain.cm('a').tokens()}",
        ]

        # cmd: a request from the cloud, answered by the node
        async def command(msg: connect.Message) -> None:
            await msg.respond(b"done: " + msg.data)

        await node.daemon.subscribe("cmd.edge-1.>", command)
        await node.daemon.flush()
        while True:
            try:
                done = await hub.core.request(subjects.command("edge-1", "ping"), b"x", timeout_s=1)
                break
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                await asyncio.sleep(0.05)
        assert done.data == b"done: x"


async def test_the_mapper_user_may_do_its_work_and_nothing_else(hub: RunningHub, tmp_path: Path) -> None:
    async with (
        node_fixture.join_service(hub),
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        mapper = await connect.connect(node.leaf.mapper("mapper"))
        sample = subjects.telemetry("edge-1", "default", "meter", "volts")
        ack = json.loads((await mapper.request(sample, b"1", timeout_s=5, headers={"Nats-Msg-Id": "a"})).data)
        assert ack["stream"] == "TELEMETRY" and ack["seq"] == 1
        last = await mapper.request(subjects.LOCAL_TELEMETRY_LAST, b'{"last_by_subj": "%s"}' % sample.encode(), timeout_s=5)
        assert json.loads(last.data)["message"]["seq"] == 1

        async def devices(msg: connect.Message) -> None:
            await msg.respond(b"list")

        await node.daemon.subscribe(subjects.LOCAL_DEVICES, devices)
        told: asyncio.Queue[str] = asyncio.Queue()

        async def changed(msg: connect.Message) -> None:
            told.put_nowait(msg.subject)

        await mapper.subscribe(subjects.local_devices_changed("modbus"), changed)
        await mapper.flush()
        await node.daemon.client.publish(subjects.local_devices_changed("modbus"), b"")
        assert await told.get() == "device.changed.modbus"
        assert (await mapper.request(subjects.LOCAL_DEVICES, b"", timeout_s=5)).data == b"list"

        # not: another node's telemetry, JetStream, reports, the daemon's inbox
        for subject in (
            subjects.telemetry("edge-2", "default", "meter", "volts"),
            "$JS.API.STREAM.PURGE.TELEMETRY",
            subjects.report("edge-1", "node", hub.hub.shards),
            "beat.edge-1",
        ):
            with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
                await mapper.request(subject, b"{}", timeout_s=0.3)
        # nor through the acknowledgement of its telemetry (confused deputy)
        for aimed in ("$JS.API.STREAM.DELETE.TELEMETRY", "$JS.API.STREAM.PURGE.TELEMETRY"):
            await mapper.client.publish(sample, b"2", reply=aimed)
        await mapper.flush()
        while (await node.log.info("TELEMETRY")).last_seq < 3:
            await asyncio.sleep(0.02)
        assert (await node.log.info("TELEMETRY")).messages == 3
        await mapper.close()


async def test_a_killed_daemon_leaves_the_leaf_running_and_its_successor_adopts_it(hub: RunningHub, tmp_path: Path) -> None:
    async with (
        node_fixture.join_service(hub),
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        pid = node.server.pid
        await node.server.release()
        again = leaf.prepare(leaf.LeafSettings(node.directory, port=0, compression="off"))
        assert again.port == node.leaf.port
        successor = again.server()
        await successor.start()
        assert successor.pid == pid and node.daemon.connected
        await successor.release()
        await node.server.start()
        assert node.server.pid == pid


async def test_a_renewed_jwt_takes_effect_when_the_old_one_ends(hub: RunningHub, tmp_path: Path) -> None:
    """The leaf server reads the credentials file at each attempt: the link breaks for a moment, once in a JWT's life."""
    await serve_beats(hub)
    async with (
        node_fixture.join_service(hub, jwt_s=2) as service,
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        await linked(node)
        text = node.leaf.directory / "log" / "nats-server.log"
        assert text.read_text().count("Leafnode connection created") == 1
        service._jwt_s = 3600
        assert (await join.renew(node.directory, node.daemon)).expires > node.identity.expires + 3000
        while text.read_text().count("Leafnode connection created") == 1:  # the first JWT ends
            await asyncio.sleep(0.05)
        await linked(node)


async def test_a_leaf_whose_jwt_expired_while_it_was_away_comes_back(hub: RunningHub, tmp_path: Path) -> None:
    await serve_beats(hub)
    async with (
        node_fixture.join_service(hub, jwt_s=1) as service,
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        text = node.leaf.directory / "log" / "nats-server.log"
        while "Authorization Violation" not in text.read_text():  # refused at a reconnect
            await asyncio.sleep(0.05)
        with pytest.raises((nats.errors.Error, TimeoutError)):
            await node.daemon.request(subjects.beat("edge-1"), b"", timeout_s=0.5)
        service._jwt_s = 3600
        await join.renew(node.directory, node.daemon)  # not over the link: directly, with the late credentials
        await linked(node)


async def test_links_are_told_as_they_come_and_go(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub) as service:
        sys = service._sys
        assert sys is not None
        told = links.Links(sys, hub.log, hub.hub.accounts.edge)
        await told.start()
        changes = told.changes()
        async with node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node:
            up = await anext(changes)
            assert (up.node, up.up, up.leaf) == ("edge-1", True, True)
            assert up.public_key == join.public_key(node.directory)
            pid = node.server.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            down = await anext(changes)
            assert (down.node, down.up, down.leaf) == ("edge-1", False, True)
            assert (await anext(changes)).up
        await told.stop()


async def test_a_link_that_is_dead_is_ended_and_made_anew(hub: RunningHub, tmp_path: Path) -> None:
    """That a cut makes it look dead is shown on real packets, in tests/chaos."""
    await serve_beats(hub)
    async with (
        node_fixture.join_service(hub),
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        await linked(node)
        told: list[str] = []
        system = node.leaf.system("uplink")
        healthy = uplink.Uplink(lambda: node.server.pid, system, on_dropped=lambda: told.append("healthy"))
        await healthy.look()
        assert healthy.dropped == 0 and told == [], "a link that works is left alone"
        peer = ("127.0.0.1", hub.hub.file.ports.leaf)
        dead = uplink.Uplink(
            lambda: node.server.pid, system, on_dropped=lambda: told.append("dead"), dead=lambda _: {peer, ("10.9.9.9", 1)}
        )
        looking = asyncio.create_task(dead.run())
        node.daemon.on_doubt(dead.doubt)
        silent = await node.daemon.subscribe(subjects.beat("nobody"), _nothing)
        with pytest.raises(nats.errors.TimeoutError):
            await node.daemon.request(subjects.beat("nobody"), b"", timeout_s=0.1)
        async with asyncio.timeout(60):
            while told != ["dead"]:
                await asyncio.sleep(0.02)
            await linked(node)
        await silent.unsubscribe()
        await tasks.end(looking)


async def _nothing(_: connect.Message) -> None:
    pass


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"client": {"user": 1, "name_tag": "a"}, "timestamp": ""}', b"\xff"]
)
def test_what_is_not_about_a_node_is_no_link_change(payload: bytes) -> None:
    assert links.parse("$SYS.ACCOUNT.A.CONNECT", payload) is None


async def test_the_leaf_works_without_the_hub(hub: RunningHub, tmp_path: Path) -> None:
    async with (
        node_fixture.join_service(hub),
        node_fixture.running_node(hub, tmp_path / "n", "edge-1") as node,
    ):
        await hub.server.stop()
        mapper = await connect.connect(node.leaf.mapper("mapper"))
        ack = await mapper.request(subjects.telemetry("edge-1", "default", "m", "v"), b"1", timeout_s=5)
        assert json.loads(ack.data)["seq"] == 1
        with pytest.raises(log.LogUnavailable):
            await node.log.append(subjects.report("edge-1", "node", hub.hub.shards), report("edge-1"))
        await mapper.close()
        await hub.server.start()
