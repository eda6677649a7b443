"""A node in the wrong hands: its real credentials, the raw protocol over TLS, none of our client code.

Each attempt is refused or harmless, and what the server can see is in the audit log.
"""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from bus import log
from cloud import joining
from schemas import codec, subjects, sync
from tests.contract.bus import plain
from tests.contract.isolation import raw
from tests.contract.isolation.conftest import Scene

pytestmark = pytest.mark.contract

INBOX = "_INBOX.edge-1.x"
VICTIM = plain.cm("secret")


async def put_victims_secret(scene: Scene) -> None:
    ev = plain.make_event(VICTIM, {"data": {"k": "top-secret"}}, "edge-2", 0)
    await scene.hub.log.append(subjects.meta("edge-2", VICTIM, scene.shards), ev)


def secrets_in(evil: raw.Raw) -> list[raw.Heard]:
    return [h for h in evil.heard if b"top-secret" in h.payload or b"top-secret" in h.headers]


async def test_it_cannot_read_another_nodes_slice_by_any_jetstream_call(scene: Scene) -> None:
    await put_victims_secret(scene)
    evil = await scene.connect("edge-1")
    evil.sub(INBOX, "_INBOX.edge-1.>")
    shard = subjects.shard_of("edge-2", scene.shards)
    stream, mine = f"META-{shard}", subjects.meta_scope("edge-2", scene.shards)
    literal = subjects.meta("edge-2", VICTIM, scene.shards)
    push = {"stream_name": stream, "config": {"deliver_subject": INBOX, "filter_subject": mine, "ack_policy": "none"}}
    foreign = {"stream_name": stream, "config": {"deliver_subject": "_INBOX.edge-2.x", "ack_policy": "none"}}
    pull = {"stream_name": stream, "config": {"ack_policy": "none", "name": "edge-1"}}
    calls: list[tuple[str, object]] = [
        (f"CONSUMER.CREATE.{stream}", push),
        (f"CONSUMER.CREATE.{stream}.c", push),
        (f"CONSUMER.CREATE.{stream}.c.{mine}", push),
        (f"CONSUMER.CREATE.{stream}.f", foreign),
        (f"CONSUMER.CREATE.{stream}.edge-1", pull),  # no filter
        (f"CONSUMER.DURABLE.CREATE.{stream}.edge-1", pull),
        (f"CONSUMER.MSG.NEXT.{stream}.edge-1", {"batch": 10}),
        (f"DIRECT.GET.{stream}", {"seq": 1}),
        (f"DIRECT.GET.{stream}", {"seq": 1, "batch": 100}),
        (f"DIRECT.GET.{stream}", {"multi_last": [mine]}),
        (f"DIRECT.GET.{stream}.{literal}", ""),
        (f"STREAM.MSG.GET.{stream}", {"seq": 1}),
        (f"STREAM.INFO.{stream}", ""),
        ("STREAM.NAMES", ""),
        ("STREAM.LIST", ""),
        (f"STREAM.PURGE.{stream}", ""),
        (f"STREAM.DELETE.{stream}", ""),
        ("STREAM.CREATE.KV_x", {"name": "KV_x", "subjects": ["$KV.x.>"]}),
        ("STREAM.INFO.KV_x", ""),
        ("STREAM.CREATE.OBJ_x", {"name": "OBJ_x", "subjects": ["$O.x.>"]}),
        ("STREAM.CREATE.SPY", {"name": "SPY", "subjects": ["live.>", "answer.>"]}),
        (f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": INBOX}),
        ("INFO", ""),
        ("ACCOUNT.PURGE.EDGE", ""),
    ]
    before = await scene.last_seqs()
    for prefix in ("$JS.API", "$JS.hub.API", "mirror.api"):
        for call, body in calls:
            payload = json.dumps(body).encode() if body else b""
            for reply in (INBOX, "$JS.API.STREAM.DELETE.CLUSTER", "_INBOX.edge-2.x"):
                evil.pub(f"{prefix}.{call}", payload, reply=reply)
    evil.pub("$KV.x.a", b"1")
    evil.pub("$O.x.M.a", b"1")
    await evil.flush()
    await asyncio.sleep(0.3)
    assert secrets_in(evil) == [] and evil.heard == []
    assert await scene.last_seqs() == before
    refused = [e for e in evil.errors if "Permissions Violation for Publish" in e]
    assert len(refused) == 3 * 3 * len(calls) + 2, "each was refused by name"
    await scene.until_audited("refused", "edge-1", f"publish: $JS.API.DIRECT.GET.{stream}", "publish: $KV.x.a",
                              f"publish: $JS.API.STREAM.DELETE.{stream}")  # fmt: skip


async def test_it_hears_nobody_elses_subjects(scene: Scene) -> None:
    evil = await scene.connect("edge-1")
    refused = (">", "*", "*.>", "live.>", "live.edge-2.>", "live.*.core.configmaps.*.*", "_INBOX.>", "_INBOX.*.>",
               "_INBOX.edge-2.>", "_INBOX.edge-10.>", "cmd.>", "cmd.edge-2.>", "tunnel.>", "tunnel.edge-2.down.>",
               "answer.edge-2.*", "answer.*.*", "report.>", "beat.*", "sync.*.*", "renew.*", "join.*", "meta.>", "cluster.>",
               "identity.>", "audit.>", "telemetry.>", "up.edge-2.>", "up.edge-1.other.api.>", "$SYS.>", "$JS.>", "$KV.>",
               "$JS.API.>", "_R_.>")  # fmt: skip
    evil.sub(*refused)
    evil.sub("live.edge-2.>", queue="replicas")
    await evil.flush()
    assert len([e for e in evil.errors if "Permissions Violation for Subscription" in e]) == len(refused) + 1
    await put_victims_secret(scene)
    await scene.hub.core.publish(subjects.sync_answer("edge-2", "n"), b"top-secret")
    await scene.hub.core.publish(subjects.command("edge-2", "exec"), b"top-secret")
    await scene.hub.core.flush()
    await evil.flush()
    assert evil.heard == []
    await scene.until_audited("refused", "edge-1", "subscribe: >", "subscribe: _INBOX.edge-2.>", "subscribe: $SYS.>")


async def test_it_speaks_for_nobody_else(scene: Scene) -> None:
    evil = await scene.connect("edge-1")
    before = await scene.last_seqs()
    served = plain.make_event(VICTIM, {}, "edge-2", 0)
    payload = codec.encode_event(served)
    shards = range(scene.shards)
    forged = [
        *(subjects.report(n, "node", scene.shards) for n in ("edge-2", "edge-10", "all")),
        *(f"report.{s}.edge-2.pod.default.x" for s in shards),
        f"report.{(subjects.shard_of('edge-1', scene.shards) + 1) % scene.shards}.edge-1.node",
        subjects.meta("edge-1", VICTIM, scene.shards),
        subjects.meta("edge-2", VICTIM, scene.shards),
        *(f"live.{scope}.core.configmaps.default.a" for scope in ("edge-1", "edge-2", "all")),
        "telemetry.edge-1.d.p", "telemetry.edge-2.d.p", "cluster.core.pods.default.x", "identity.nodes.edge-1",
        "identity.nodes.edge-2", "audit.join.edge-2", "sync.edge-2.n", "beat.edge-2", "renew.edge-2", "join.abc",
        "answer.edge-2.n", "cmd.edge-2.exec", "cmd.edge-1.exec", "tunnel.edge-2.up.g.s", "_INBOX.edge-2.x",
        "up.edge-2.x.deliver.S.a", "up.edge-2.x.api.CONSUMER.CREATE.TELEMETRY.c", "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.CLAIMS.UPDATE", f"$SYS.REQ.ACCOUNT.{scene.hub.hub.accounts.edge}.CLAIMS.LOOKUP",
        f"$SYS.ACCOUNT.{scene.hub.hub.accounts.edge}.CONNECT", "$SYS.REQ.SERVER.PING.KICK", "$JS.ACK.CLUSTER.x.1.1.1.1.1",
        "$JS.FC.TELEMETRY.x", "$SRV.PING", "$MQTT.x",
    ]  # fmt: skip
    for subject in forged:
        evil.pub(subject, payload, reply="_INBOX.edge-1.x")
    await evil.flush()
    assert len([e for e in evil.errors if "Permissions Violation for Publish" in e]) == len(forged)
    assert await scene.last_seqs() == before
    await scene.until_audited("refused", "edge-1", "publish: live.all.core.configmaps.default.a",
                              "publish: $SYS.REQ.CLAIMS.UPDATE", "publish: beat.edge-2")  # fmt: skip


async def test_no_answer_can_be_aimed_at_the_cloud_or_at_jetstream(scene: Scene) -> None:
    """Confused deputy, reply injection: whatever it may ask, with any reply, through real services and echoing ones."""
    from cloud.beats import Beats
    from cloud.sync import SyncService

    service = SyncService(scene.hub.core, scene.hub.log, shards=scene.shards)
    beats = Beats(scene.hub.core, lambda *_: None, lambda: True)
    await service.start()
    await beats.start()
    await scene.hub.log.append("cluster.core.configmaps.default.a", plain.make_event(plain.cm("a"), {}))
    await put_victims_secret(scene)
    before = await scene.last_seqs()
    streams = [*before, "AUDIT", *(f"HISTORY-{n}" for n in ("CLUSTER", "META-0"))]
    aims = [f"{p}.STREAM.{what}.{s}" for s in streams for what in ("PURGE", "DELETE") for p in ("$JS.API", "$JS.hub.API")]
    aims += ["cluster.core.configmaps.default.a", subjects.meta("edge-2", VICTIM, scene.shards), "identity.nodes.edge-2",
             "audit.join.x", "telemetry.edge-2.d.p", "report.0.edge-2.node", "$SYS.REQ.CLAIMS.UPDATE", "mirror.api.x",
             "$JS.ACK.CLUSTER.x.1.1.1.1.1", "answer.edge-2.n", "cmd.edge-2.exec"]  # fmt: skip
    evil = await scene.connect("edge-1")
    evil.sub("_INBOX.edge-1.>", "answer.edge-1.*", "live.edge-1.>")
    ask = codec.encode(sync.SyncRequest(scopes=[sync.ScopeCursor(scope="edge-2")]))
    headers = {"Nats-Expected-Last-Sequence": "999", "Nats-Msg-Id": "x", "Nats-Rollup": "all"}
    for aim in aims:
        evil.pub("sync.edge-1.n", ask, reply=aim)
        evil.pub("beat.edge-1", b"x", reply=aim)
        evil.pub("renew.edge-1", b"x", reply=aim)
        evil.pub(subjects.report("edge-1", "node", scene.shards), b"x", reply=aim, headers=headers)
        evil.pub("_R_.abc.def", b"x", reply=aim)
    await evil.flush()
    async with asyncio.timeout(20):
        while not any(h.subject == "answer.edge-1.n" for h in evil.heard):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert await scene.last_seqs() == before, "nothing was purged, deleted, or written"
    assert (await scene.hub.log.get(f"META-{subjects.shard_of('edge-2', scene.shards)}", 1)) is not None
    refused = [codec.decode_as(sync.SyncAnswer, h.payload) for h in evil.heard if h.subject.startswith("answer.")]
    assert all(a.status in ("refused", "busy") and not a.pages for a in refused)
    assert secrets_in(evil) == []
    await service.stop()
    await beats.stop()


async def test_foreign_scopes_and_garbage_get_nothing_from_sync(scene: Scene) -> None:
    from cloud.sync import SyncService

    service = SyncService(scene.hub.core, scene.hub.log, shards=scene.shards)
    await service.start()
    await put_victims_secret(scene)
    evil = await scene.connect("edge-1")
    evil.sub("answer.edge-1.*")
    scopes = ("edge-2", "*", ">", "edge-2.>", "edge-1.x", "", "../edge-2", "all.>")
    asked = [codec.encode(sync.SyncRequest(scopes=[sync.ScopeCursor(scope=scope)])) for scope in scopes]
    asked += [b"", b"\xc1", b"\x81" * 1000, b"\xdd\xff\xff\xff\xff", b"x" * 200_000]
    asked.append(codec.encode(sync.SyncRequest(scopes=[sync.ScopeCursor(scope="edge-1")])))
    for n, question in enumerate(asked, start=1):  # one at a time: of several at once only the newest need be answered
        evil.pub("sync.edge-1.ok" if n == len(asked) else f"sync.edge-1.f{n}", question)
        async with asyncio.timeout(20):
            while len(evil.heard) < n:
                await asyncio.sleep(0.01)
    for h in evil.heard:
        answer = codec.decode_as(sync.SyncAnswer, h.payload)
        assert answer.status == ("ok" if h.subject == "answer.edge-1.ok" else "refused"), h
    assert secrets_in(evil) == []
    await service.stop()


async def test_subscriptions_and_sizes_have_limits_and_others_do_not_notice(scene: Scene) -> None:
    evil, good = await scene.connect("edge-1"), await scene.connect("edge-2")
    for n in range(5000):
        evil.sub(f"_INBOX.edge-1.{n}")
    await evil.flush()
    assert len([e for e in evil.errors if e == "maximum subscriptions exceeded"]) >= 4500
    giant = await scene.connect("edge-1")
    giant.pub(subjects.report("edge-1", "node", scene.shards), b"x" * (3 << 20))
    with pytest.raises((raw.Refused, TimeoutError)):
        await giant.flush()
    await giant.closed.wait()
    line = await scene.connect("edge-1")
    line.send(b"PUB " + b"a" * 100_000 + b" 1\r\nx\r\n")
    with pytest.raises(raw.Refused):
        await line.flush()
    await good.flush()
    assert not good.closed.is_set() and good.errors == []
    await scene.until_audited("refused", "edge-1", "limit: maximum subscriptions exceeded", "Payload")


async def test_its_own_old_events_replayed_change_nothing_but_its_own(scene: Scene) -> None:
    """A replay is stored again, under its own subject; whoever folds it sees that node's own report.  Within the window of
    ``Nats-Msg-Id`` not even that."""
    evil = await scene.connect("edge-1")
    subject = subjects.report("edge-1", "node", scene.shards)
    evil.sub("_INBOX.edge-1.>")
    for _ in range(5):
        await evil.flush()
        evil.pub(subject, b"old", reply=INBOX, headers={"Nats-Msg-Id": "once"})
    await evil.flush()
    async with asyncio.timeout(10):
        while len(evil.heard) < 5:
            await asyncio.sleep(0.02)
    assert [json.loads(h.payload).get("duplicate", False) for h in evil.heard] == [False, True, True, True, True]
    own = f"REPORT-{subjects.shard_of('edge-1', scene.shards)}"
    assert (await scene.hub.log.info(own)).last_seq == 1
    record = await scene.hub.log.get(own, 1)
    assert record is not None
    with pytest.raises(log.codec.DecodeError):
        record.event()


async def test_cached_credentials_of_a_revoked_node_open_nothing(scene: Scene) -> None:
    cached, late = scene.creds("edge-1"), (scene.dir("edge-1") / "late.creds").read_text()
    evil, waiting = await scene.connect("edge-1"), await scene.connect("edge-1", late)
    assert scene.service._sys is not None
    await joining.revoke_node(scene.hub.log, scene.hub.hub, scene.service._sys, "edge-1", reason="stolen")
    async with asyncio.timeout(10):
        await evil.closed.wait()
        await waiting.closed.wait()
    for creds in (cached, late):
        with pytest.raises(raw.Refused, match="Authorization"):
            await scene.connect("edge-1", creds)
    good = await scene.connect("edge-2")
    await good.flush()
    await scene.until_audited("refused", "edge-1", "login")
    await scene.until_audited("revoke", "edge-1", "stolen")


async def test_a_forged_jwt_is_no_jwt(scene: Scene) -> None:
    """Its own JWT with more rights, or for another key, has no signature; another's JWT has another key."""
    mine, _ = raw.stolen(scene.creds("edge-1"))
    head, body, tail = mine.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["nats"]["pub"] = {"allow": [">"]}
    more = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    theirs, _ = raw.stolen(scene.creds("edge-2"))
    for forged in (f"{head}.{more}.{tail}", f"{head}.{body}.{'A' * len(tail)}", theirs):
        with pytest.raises(raw.Refused, match="Authorization"):
            await scene.connect("edge-1", scene.creds("edge-1").replace(mine, forged))
    await scene.until_audited("refused", "edge-1", "login")


async def test_nobody_can_be_blamed_by_a_name_that_looks_like_the_servers_log(scene: Scene) -> None:
    hub = scene.hub.hub
    victim = scene.identities["edge-2"]
    key = json.loads(base64.urlsafe_b64decode(victim.jwt.split(".")[1] + "=="))["sub"]
    blame = f'- "{hub.accounts.edge}/EDGE/jwt:{key}" - Publish Violation - Subject "planted"'
    line = f"[1] 2026/11/23 14:19:27.585073 [ERR] 127.0.0.1:1 - cid:51 {blame}"
    evil = await scene.connect("edge-1", name=f'x" {blame}\r\n{line}\n{line}\n')
    evil.pub("planted.too")
    evil.pub(f'live.x"-{key}')
    await evil.flush()
    await scene.until_audited("refused", "edge-1", "publish: planted.too")
    assert await scene.audited("refused", "edge-2") == []
