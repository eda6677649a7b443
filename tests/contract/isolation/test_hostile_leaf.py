"""A node in the wrong hands that speaks the protocol between servers: its real credentials at the hub's leaf port, and
messages, interest, replies and claims that no nats-server would send.

Each attempt is refused (the link ends, which the server writes down) or harmless.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bus import connect, outbox
from bus.hub import leaf as leaves
from bus.stores.memory import MemoryStore
from cloud import joining
from schemas import codec, subjects, sync
from tests.contract.bus import plain
from tests.contract.isolation import raw, raw_leaf
from tests.contract.isolation.conftest import Scene

pytestmark = pytest.mark.contract

INBOX = "_INBOX.edge-1.x"
VICTIM = plain.cm("secret")
# What a leaf may say of itself.  ``is_hub``: that it is the one that others' rights are checked at.
CLAIMS: list[dict[str, Any]] = [
    {},
    {"is_hub": True},
    {"is_hub": True, "isolate": True},
    {"name": "leaf-edge-2", "domain": "edge-edge-2"},
    {"domain": "hub", "cluster": "hub"},
    {"remote_account": "CORE"},
    {"deny_pub": [">"]},
]


async def link(scene: Scene, node: str = "edge-1", **claims: object) -> raw_leaf.RawLeaf:
    """Raises raw.Refused."""
    r = await raw_leaf.connect(scene.identities[node].leaf_urls[0], scene.creds(node), scene.dir(node) / "ca.pem", **claims)
    scene.opened.append(r)
    return r


async def said(leaf: raw_leaf.RawLeaf) -> bool:
    """Whether the hub took what was sent and is still there."""
    try:
        await leaf.flush()
    except (raw.Refused, TimeoutError):
        return False
    return True


async def heard_by_cloud(scene: Scene) -> list[connect.Message]:
    """Everything that nodes may say to the cloud, as it comes in."""
    out: list[connect.Message] = []

    async def take(msg: connect.Message) -> None:
        out.append(msg)

    for subject in ("beat.*", "sync.*.*", "renew.*", "join.*", "up.>", "tunnel.>"):
        await scene.hub.core.subscribe(subject, take)
    await scene.hub.core.flush()
    return out


async def put_secret(scene: Scene) -> None:
    for scope in ("edge-1", "edge-2"):
        ev = plain.make_event(VICTIM, {"data": {"k": f"top-secret of {scope}"}}, scope, 0)
        await scene.hub.log.append(subjects.meta(scope, VICTIM, scene.shards), ev)
    await scene.hub.core.publish(subjects.sync_answer("edge-2", "n"), b"top-secret of edge-2")
    await scene.hub.core.publish(subjects.command("edge-2", "exec"), b"top-secret of edge-2")
    await scene.hub.core.flush()


FOREIGN = (
    ">", "*.>", "live.>", "live.*.>", "live.edge-2.>", "answer.>", "answer.edge-2.*", "cmd.>", "cmd.edge-2.>",
    "_INBOX.>", "_INBOX.edge-2.>", "tunnel.>", "tunnel.edge-2.down.>", "report.>", "beat.*", "sync.*.*", "renew.*", "up.>",
    "meta.>", "cluster.>", "identity.>", "telemetry.>", "$SYS.>", "$JS.>", "_R_.>", "$JS.API.>",
)  # fmt: skip


async def test_it_is_told_nothing_that_is_not_its_own_whatever_it_claims_to_be(scene: Scene) -> None:
    links: list[raw_leaf.RawLeaf] = []
    for claims in CLAIMS:
        for foreign in (FOREIGN, FOREIGN[:1]):  # some interest ends the link: then at least that of everything
            try:
                leaf = await link(scene, **claims)
            except raw.Refused:
                break
            leaf.interested(*foreign)
            leaf.interested("live.edge-2.>", queue="replicas")
            leaf.interested("live.edge-1.>")
            if await said(leaf):
                links.append(leaf)
                break
    assert links, "the control: an honest leaf's claims and interest are taken"
    victim = await scene.connect("edge-2")
    victim.sub("live.edge-2.>", "answer.edge-2.*", "cmd.edge-2.>", "_INBOX.edge-2.>")
    await victim.flush()
    await put_secret(scene)
    victim.pub(subjects.report("edge-2", "node", scene.shards), b"x", reply="_INBOX.edge-2.ack")
    async with asyncio.timeout(30):
        while not {"live", "answer", "_INBOX"} <= {h.subject.split(".")[0] for h in victim.heard}:
            await asyncio.sleep(0.02)
        while not any(h.subject.startswith("live.edge-1.") for leaf in links for h in leaf.heard):
            await asyncio.sleep(0.02)
    for leaf in links:
        if not leaf.closed.is_set():
            await said(leaf)
        foreign_heard = [h for h in leaf.heard if b"of edge-2" in h.payload or not h.subject.startswith("live.edge-1.")]
        assert foreign_heard == []


def _forged(scene: Scene) -> list[str]:
    other = (subjects.shard_of("edge-1", scene.shards) + 1) % scene.shards
    return [
        subjects.report("edge-2", "node", scene.shards), f"report.{other}.edge-1.node",
        subjects.meta("edge-1", VICTIM, scene.shards), subjects.meta("edge-2", VICTIM, scene.shards),
        *(f"live.{scope}.core.configmaps.default.a" for scope in ("edge-1", "edge-2", "all")),
        "cluster.core.pods.default.x", "identity.nodes.edge-2", "audit.join.edge-2", "telemetry.edge-2.d.p",
        "sync.edge-2.n", "beat.edge-2", "renew.edge-2", "join.abc", "answer.edge-2.n", "cmd.edge-2.exec",
        "tunnel.edge-2.up.g.s", "_INBOX.edge-2.x", "up.edge-2.x.deliver.S.a", "$SYS.REQ.CLAIMS.UPDATE",
        "$JS.API.STREAM.DELETE.CLUSTER", "$JS.hub.API.STREAM.PURGE.META-0", "mirror.api.CONSUMER.CREATE.CLUSTER.x",
        "$JS.API.DIRECT.GET.META-0", "$JS.ACK.CLUSTER.x.1.1.1.1.1", "$GR._INBOX.edge-2.x", "_GR_.x.y.beat.edge-2",
        "$LDS.x", "$KV.x.a",
    ]  # fmt: skip


@pytest.mark.parametrize("claims", [{}, {"is_hub": True}], ids=["a leaf", "a hub"])
async def test_it_speaks_for_nobody_else_whatever_it_claims_to_be(scene: Scene, claims: dict[str, Any]) -> None:
    cloud = await heard_by_cloud(scene)
    victim = await scene.connect("edge-2")
    victim.sub("live.edge-2.>", "live.all.>", "answer.edge-2.*", "cmd.edge-2.>", "_INBOX.edge-2.>", "tunnel.edge-2.down.>")
    await victim.flush()
    before = await scene.last_seqs()
    leaf, taken = await link(scene, **claims), set()
    for subject in _forged(scene):
        for reply, queues in (("", ()), (INBOX, ()), ("_INBOX.edge-2.x", ("sync", "joining", "replicas"))):
            leaf.lmsg(subject, b"forged", reply=reply, queues=queues, headers="Nats-Sequence: 1")
        if not await said(leaf):
            leaf = await link(scene, **claims)
        else:
            taken.add(subject)
    leaf.lmsg(subjects.beat("edge-1"), b"own", reply=INBOX)
    assert await said(leaf)
    async with asyncio.timeout(30):
        while not any(m.subject == "beat.edge-1" for m in cloud):
            await asyncio.sleep(0.02)
    await victim.flush()
    assert {m.subject for m in cloud} == {"beat.edge-1"}, "the cloud heard what is its own, and nothing else"
    assert victim.heard == []
    assert await scene.last_seqs() == before
    if not claims:
        assert taken <= {"$JS.ACK.CLUSTER.x.1.1.1.1.1"}, "each other one ended the link"
        await scene.until_audited("refused", "edge-1", "Protocol Violation")


async def test_no_answer_to_it_purges_deletes_writes_or_looks_like_the_clouds_word(scene: Scene) -> None:
    """Confused deputy and reply injection, with replies that no server would carry in a leaf's message.  An answer may be
    aimed at another node's subjects (both are in one account): it is an acknowledgement, and no event, page or command."""
    from cloud.beats import Beats
    from cloud.sync import SyncService

    service = SyncService(scene.hub.core, scene.hub.log, shards=scene.shards)
    answers = Beats(scene.hub.core, lambda *_: None, lambda: True)
    await service.start()
    await answers.start()
    await put_secret(scene)
    victim = await scene.connect("edge-2")
    victim.sub("live.edge-2.>", "answer.edge-2.*", "_INBOX.edge-2.>", "cmd.edge-2.>")
    await victim.flush()
    own = f"REPORT-{subjects.shard_of('edge-1', scene.shards)}"
    before = await scene.last_seqs()
    report = subjects.report("edge-1", "node", scene.shards)
    aims = [f"{p}.STREAM.{what}.{s}" for s in (*before, "AUDIT", "HISTORY-CLUSTER") for what in ("PURGE", "DELETE")
            for p in ("$JS.API", "$JS.hub.API")]  # fmt: skip
    aims += ["cluster.core.pods.default.x", subjects.meta("edge-2", VICTIM, scene.shards), "identity.nodes.edge-2",
             "$SYS.REQ.CLAIMS.UPDATE", "report.0.edge-2.node", "report.1.edge-2.node", "renew.edge-2", "sync.edge-2.n",
             "live.edge-2.core.configmaps.default.a", "cmd.edge-2.exec", "answer.edge-2.n", "_INBOX.edge-2.x"]  # fmt: skip
    ask = codec.encode(sync.SyncRequest(scopes=[sync.ScopeCursor(scope="edge-2")]))
    leaf = await link(scene)
    leaf.interested("answer.edge-1.*", "_INBOX.edge-1.>")
    for aim in aims:
        for queues in ((), ("sync",)):
            leaf.lmsg("sync.edge-1.n", ask, reply=aim, queues=queues)
            leaf.lmsg(subjects.beat("edge-1"), b"x", reply=aim, queues=queues)
            leaf.lmsg(report, b"x", reply=aim, queues=queues, headers="Nats-Msg-Id: once")
    if not await said(leaf):
        leaf = await link(scene)
        leaf.interested("answer.edge-1.*")
    async with asyncio.timeout(60):
        while not any(h.subject == "answer.edge-1.last" for h in leaf.heard):
            leaf.lmsg("sync.edge-1.last", ask)  # again: what is beyond a node's share is dropped
            await asyncio.sleep(0.5)
    await victim.flush()
    after = await scene.last_seqs()
    assert {k: v for k, v in after.items() if k != own} == {k: v for k, v in before.items() if k != own}
    assert after[own] <= before[own] + 1, "one report of its own, once"
    infos = [await scene.hub.log.info(n) for n in (*before, "AUDIT", "HISTORY-CLUSTER")]
    assert all(i.messages > 0 for i in infos if i.last_seq), "nothing was purged or deleted"
    for h in leaf.heard:
        if h.subject.startswith("answer."):
            assert codec.decode_as(sync.SyncAnswer, h.payload).status in ("refused", "busy")
        assert b"of edge-2" not in h.payload
    for h in victim.heard:
        with pytest.raises(codec.DecodeError):
            codec.decode_event(h.payload)
        with pytest.raises(codec.DecodeError):
            codec.decode_as(sync.SyncAnswer, h.payload)
    await service.stop()
    await answers.stop()


async def test_headers_with_power_over_a_stream_have_none(scene: Scene) -> None:
    """Roll-ups, times to live, schedules, expectations: refused, or about its own report alone."""
    leaf = await link(scene)
    leaf.interested("_INBOX.edge-1.>")
    subject, other = subjects.report("edge-1", "node", scene.shards), subjects.report("edge-2", "node", scene.shards)
    stream = f"REPORT-{subjects.shard_of('edge-1', scene.shards)}"
    leaf.lmsg(subject, b"kept", reply=INBOX)
    async with asyncio.timeout(30):
        while not leaf.heard:
            await asyncio.sleep(0.02)
    dangerous = [
        "Nats-Rollup: all", "Nats-Rollup: sub", "Nats-TTL: 1s", "Nats-Incr: 1", "Nats-Marker-Reason: Purge",
        f"Nats-Schedule: @at 2020-01-01T00:00:00Z\r\nNats-Schedule-Target: {other}",
        f"Nats-Schedule: @every 1s\r\nNats-Schedule-Target: {subjects.meta('edge-2', VICTIM, scene.shards)}",
        "Nats-Expected-Stream: META-0", "Nats-Expected-Last-Sequence: 99",
    ]  # fmt: skip
    for n, headers in enumerate(dangerous, start=2):
        leaf.lmsg(subject, b"dangerous", reply=INBOX, headers=headers)
        async with asyncio.timeout(30):
            while len(leaf.heard) < n:
                assert await said(leaf), "its own link stays"
                await asyncio.sleep(0.02)
    answers = [json.loads(h.payload or b"{}") for h in leaf.heard]
    refused = {headers: "error" in a for headers, a in zip(dangerous, answers[1:], strict=True)}
    assert {h for h, no in refused.items() if not no} <= {"Nats-Marker-Reason: Purge"}, refused
    record = await scene.hub.log.get(stream, 1)
    assert record is not None and record.payload == b"kept"
    assert (await scene.hub.log.last_of(stream, other)) is None
    last = await scene.last_seqs()
    assert [last[f"META-{n}"] for n in range(scene.shards)] == [0] * scene.shards


async def test_batches_that_are_begun_and_never_ended_keep_nobodys_reports_back(scene: Scene) -> None:
    """Of those a stream holds some 50, for all nodes whose reports are in it: another's then go one by one."""
    shard = subjects.shard_of("edge-1", scene.shards)
    other = next(n for n in (f"edge-{i}" for i in range(2, 99)) if subjects.shard_of(n, scene.shards) == shard)
    leaf, subject = await link(scene), subjects.report("edge-1", "node", scene.shards)
    for n in range(300):
        leaf.lmsg(subject, b"x", headers=f"Nats-Batch-Id: b{n}\r\nNats-Batch-Sequence: 1")
    await said(leaf)
    store = MemoryStore()
    box = outbox.Outbox(store)
    added = []
    with store.transact() as txn:
        for n in range(30):
            to = subjects.report(other, "node", scene.shards)
            added.append((box.add(txn, to, plain.make_event(plain.cm("x"), {"n": n}, other, 0)), to))
    box.committed(added)
    sending = asyncio.create_task(box.run(scene.hub.log, scene.hub.log))
    try:
        async with asyncio.timeout(60):
            while box.pending:
                await asyncio.sleep(0.05)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert box.sent == 30 and box.refused == 0


async def test_sizes_numbers_and_garbage_end_its_own_link_only(scene: Scene) -> None:
    good = await link(scene, "edge-2")
    good.interested("_INBOX.edge-2.>")
    many = await link(scene)
    for n in range(3000):
        many.interested(f"_INBOX.edge-1.{n}")
    await said(many)
    assert len([e for e in many.errors if e == "maximum subscriptions exceeded"]) >= 2000
    report = subjects.report("edge-1", "node", scene.shards).encode()
    garbage = [
        *(b"LMSG %s %d\r\n%s\r\n" % (report, size, b"x" * size) for size in (3 << 20, 1 << 20)),
        *(b"LMSG %s %d\r\n" % (report, size) for size in (2_000_000_000, -1)),
        b"HMSG " + report + b" 100 10\r\nxxxxxxxxxx\r\n",
        b"LS+ " + b"a" * 100_000 + b"\r\n", b"RMSG CORE cluster.core.pods.default.x 1\r\nx\r\n", b"RS+ CORE >\r\n",
        b"SUB > 1\r\n", b"PUB cluster.core.pods.default.x 1\r\nx\r\n", b"\x00" * 4096,
    ]  # fmt: skip
    before = await scene.last_seqs()
    for line in garbage:
        evil = await link(scene)
        evil.send(line)
        assert not await said(evil), line[:40]
    harmless = await link(scene)  # words between the servers of one cluster, and of the detection of loops
    for line in (b"A+ CORE\r\n", b"A- CORE\r\n", b"LS- >\r\n", b"LS+ $LDS.x\r\n", b'INFO {"import": {}, "export": {}}\r\n'):
        harmless.send(line)
    await said(harmless)
    assert await scene.last_seqs() == before
    good.lmsg(subjects.report("edge-2", "node", scene.shards), b"x", reply="_INBOX.edge-2.ack")
    async with asyncio.timeout(30):
        while not good.heard:
            await asyncio.sleep(0.02)
    assert json.loads(good.heard[0].payload)["stream"].startswith("REPORT-")
    assert not good.closed.is_set()


async def test_a_revoked_leaf_is_cut_and_comes_back_by_no_claim(scene: Scene) -> None:
    leaf, good = await link(scene), await link(scene, "edge-2")
    assert scene.service._sys is not None
    await joining.revoke_node(scene.hub.log, scene.hub.hub, scene.service._sys, "edge-1", reason="stolen")
    async with asyncio.timeout(30):
        await leaf.closed.wait()
    for claims in CLAIMS:
        with pytest.raises((raw.Refused, TimeoutError)):
            await link(scene, **claims)
    assert await said(good)


async def test_it_puts_no_other_node_out_by_calling_itself_as_that_one_does(scene: Scene) -> None:
    """A leaf that comes with the name of another is taken for the same one come back, and the earlier link is ended, though
    their credentials differ.  So the name is a secret of the node."""
    made = leaves.prepare(leaves.LeafSettings(scene.dir("edge-2"), port=0, compression="off"))
    server = made.server()
    await server.start()
    try:
        log = made.directory / "log" / "nats-server.log"
        async with asyncio.timeout(30):
            while "Leafnode connection created" not in log.read_text():
                await asyncio.sleep(0.05)
        for name in ("leaf-edge-2", "edge-2", scene.hub.hub.server_name, "leaf-edge-2-"):
            for cluster in ({}, {"cluster": name}):
                evil = await link(scene, name=name, remote_account="EDGE", **cluster)
                assert await said(evil)
        assert "Duplicate" not in log.read_text()
        # The control, with the name that nobody knows: the link ends, so the test would have seen it.
        evil = await link(scene, name=made.server_name, cluster=made.server_name, remote_account="EDGE")
        async with asyncio.timeout(30):
            while "Duplicate" not in log.read_text():
                await said(evil)
                await asyncio.sleep(0.05)
    finally:
        await server.stop()
    assert made.server_name.startswith("leaf-edge-2-") and len(made.server_name) > 30
