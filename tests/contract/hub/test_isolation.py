"""What a node can't do, with its real credentials and without our code: the hub's accounts and permissions alone stop it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nats.errors
import pytest

from bus import connect, log
from bus.identity import join
from schemas import subjects
from tests.contract import node_fixture
from tests.contract.bus import plain
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


@dataclass
class Pair:
    hub: RunningHub
    evil: connect.Connection  # edge-1
    good: connect.Connection  # edge-2


@pytest.fixture
async def pair(hub: RunningHub, tmp_path: Path) -> AsyncIterator[Pair]:
    async with node_fixture.join_service(hub):
        for name in ("edge-1", "edge-2"):
            await node_fixture.join_node(hub, tmp_path / name, name)
        evil, good = (
            node_fixture.direct_settings(tmp_path / name, inbox=subjects.inbox(name)) for name in ("edge-1", "edge-2")
        )
        # Who attacks takes the credentials with more rights; who is honest and has no leaf, those that it needs.
        good = dataclasses.replace(good, credentials=join.direct_creds_path(tmp_path / "edge-2"))
        connections = [await connect.connect(settings) for settings in (evil, good)]
        yield Pair(hub, *connections)
        for c in connections:
            await c.close()


async def no_answer(c: connect.Connection, subject: str, payload: bytes = b"") -> None:
    with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
        await c.request(subject, payload, timeout_s=0.3)


async def heard(c: connect.Connection, *filters: str) -> asyncio.Queue[str]:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def take(msg: connect.Message) -> None:
        queue.put_nowait(msg.subject)

    for f in filters:
        await c.subscribe(f, take)
    await c.flush()
    return queue


async def test_a_node_hears_only_its_own_and_everybodys(pair: Pair) -> None:
    spying = await heard(
        pair.evil, "live.edge-2.>", "live.>", ">", "answer.edge-2.*", "_INBOX.edge-2.>", "cmd.edge-2.>", "live.all.>"
    )
    honest = await heard(pair.good, "live.edge-2.>")
    shards = pair.hub.hub.shards
    for scope in ("edge-2", "all"):
        await pair.hub.log.append(subjects.meta(scope, plain.cm("a"), shards), plain.make_event(plain.cm("a"), {}, scope, 0))
    await pair.hub.core.client.publish(subjects.sync_answer("edge-2", "n"), b"secret")
    await pair.hub.core.flush()
    await no_answer(pair.hub.core, subjects.command("edge-2", "exec"))
    assert (await honest.get()).startswith("live.edge-2.")
    await pair.evil.flush()
    assert spying.get_nowait().startswith("live.all.")
    assert spying.empty()


async def test_a_node_speaks_only_for_itself(pair: Pair) -> None:
    shards = pair.hub.hub.shards
    served = await heard(pair.hub.core, "beat.*", "sync.*.*", "renew.*", "cmd.>", "answer.>", "live.>", "join.*")
    for subject in (
        subjects.report("edge-2", "node", shards),
        subjects.report("edge-2", "pod", shards, "default", "x"),
        subjects.sync_request("edge-2", "n"),
        subjects.beat("edge-2"),
        subjects.renew_request("edge-2"),
        subjects.join_request("abc"),
        subjects.command("edge-2", "exec"),
        subjects.sync_answer("edge-2", "n"),
        "live.edge-2.core.pods.default.x",
        "cluster.core.pods.default.x",
        "meta.0.edge-2.core.pods.default.x",
        "identity.nodes.edge-2",
        "audit.join.edge-2",
        "telemetry.edge-2.d.p",
        f"{subjects.uplink('edge-2', 'x')}.deliver.S.x",
    ):
        await pair.evil.client.publish(subject, b"forged")
    await pair.evil.flush()
    await pair.hub.core.flush()
    assert served.empty()
    for stream in ("CLUSTER", "META-0", "META-1", "REPORT-0", "REPORT-1", "TELEMETRY"):
        assert (await pair.hub.log.info(stream)).messages == 0


async def test_jetstream_is_not_there_for_a_node(pair: Pair) -> None:
    for what in (
        "INFO",
        "STREAM.NAMES",
        "STREAM.DELETE.CLUSTER",
        "STREAM.INFO.META-0",
        "DIRECT.GET.META-0",
        "CONSUMER.CREATE.META-0",
    ):
        for prefix in ("$JS.API", "$JS.hub.API", "mirror.api"):
            await no_answer(pair.evil, f"{prefix}.{what}")
    await no_answer(pair.evil, "$SYS.REQ.SERVER.PING")
    await no_answer(pair.evil, "$SYS.REQ.CLAIMS.UPDATE")
    assert (await pair.hub.log.info("CLUSTER")).messages == 0


async def test_a_reply_cannot_be_aimed_at_jetstream_or_at_the_cloud(pair: Pair) -> None:
    """Confused deputy and reply injection: the answer to a permitted request goes where the asker said, but in EDGE."""
    hub = pair.hub
    await hub.log.append("cluster.core.configmaps.default.a", plain.make_event(plain.cm("a"), {}))

    async def answer(msg: connect.Message) -> None:
        await msg.respond(b"{}")  # a valid JetStream request

    for served in ("sync.*.*", "beat.*", "renew.*"):
        await hub.core.subscribe(served, answer)
    await hub.core.flush()
    listening = await heard(hub.core, "cluster.>", "meta.>", "live.>", "identity.>", "audit.join.>", "answer.>", "cmd.>")
    shards = hub.hub.shards
    askable = (
        subjects.sync_request("edge-1", "n"),
        subjects.beat("edge-1"),
        subjects.renew_request("edge-1"),
        subjects.report("edge-1", "node", shards),
    )
    aims = (
        "$JS.API.STREAM.DELETE.CLUSTER",
        "$JS.API.STREAM.PURGE.CLUSTER",
        "$JS.hub.API.STREAM.DELETE.CLUSTER",
        "cluster.core.configmaps.default.a",
        "meta.0.edge-2.core.configmaps.default.a",
        "identity.nodes.edge-1",
        "audit.join.x",
        "live.edge-2.core.configmaps.default.a",
        "answer.edge-2.n",
    )
    for subject in askable:
        for aim in aims:
            await pair.evil.client.publish(subject, b"x", reply=aim)
    await pair.evil.flush()
    while sum([(await hub.log.info(f"REPORT-{n}")).last_seq for n in range(shards)]) < len(aims):
        await asyncio.sleep(0.02)
    await hub.core.flush()
    await asyncio.sleep(0.2)  # an aimed answer would have to cross two accounts
    assert (await hub.log.info("CLUSTER")).last_seq == 1
    assert (await hub.log.info("META-0")).last_seq == 0
    assert listening.empty()


async def test_known_limit_an_answer_can_be_aimed_at_another_node_and_is_refused_there(pair: Pair) -> None:
    """Within EDGE the server delivers an answer to whatever subject the asker named.  So a node gets bytes that the
    asker can choose only among our answers (an acknowledgement here), and every reader checks: this is no event."""
    got: asyncio.Queue[connect.Message] = asyncio.Queue()

    async def take(msg: connect.Message) -> None:
        got.put_nowait(msg)

    await pair.good.subscribe("live.edge-2.>", take)
    await pair.good.flush()
    aim = f"live.edge-2.{plain.cm('a').tokens()}"
    await pair.evil.client.publish(subjects.report("edge-1", "node", pair.hub.hub.shards), b"x", reply=aim)
    msg = await got.get()
    assert json.loads(msg.data)["stream"].startswith("REPORT-")
    record = log.Recorded("live", 1, msg.subject, 0, msg.data)
    with pytest.raises(log.codec.DecodeError):
        record.event()


async def test_a_token_holder_can_ask_to_join_and_nothing_else(pair: Pair, tmp_path: Path) -> None:
    from bus.identity import creds, permissions, tokens

    token = tokens.decode(await tokens.create_token(pair.hub.log, pair.hub.hub))
    creds.Credentials(token.jwt, token.seed).write(tmp_path / "t.creds")
    c = await connect.connect(
        connect.ConnectSettings(
            tuple(token.urls),
            "token",
            credentials=tmp_path / "t.creds",
            ca=pair.hub.hub.ca_path,
            inbox=permissions.bootstrap_inbox(token.id),
        )
    )
    spying = await heard(c, ">", "_INBOX.>", "join.*", "live.>")
    for subject in ("join.other", "renew.edge-1", "sync.edge-1.n", "$JS.API.INFO", "report.0.edge-1.node"):
        await no_answer(c, subject)
    assert spying.empty()
    await c.close()
