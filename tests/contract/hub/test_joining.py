"""Tokens, joining, renewing, revoking: against a real hub, every refusal heard by the node and written to the audit log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from bus import connect, stamp, tasks
from bus.hub import init
from bus.identity import creds, join, jwt, keys, permissions, tokens
from cloud import joining
from schemas import codec, event, identity, subjects
from schemas.joining import JoinAnswer, JoinRequest, NodeIdentity
from tests.contract import node_fixture
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


async def audit(hub: RunningHub, what: str, name: str) -> event.Event:
    record = await hub.log.last_of("AUDIT", subjects.audit(what, name))
    assert record is not None
    return record.event()


async def test_a_node_joins_and_its_seed_stays_with_it(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub):
        token = await tokens.create_token(hub.log, hub.hub, actor="tester")
        got = await join.join(token, "edge-1", tmp_path / "n", labels={"site": "a"})
    assert (got.node, got.hub, got.shards) == ("edge-1", hub.hub.id, hub.hub.shards)
    seed = (tmp_path / "n" / "node.seed").read_text().strip()
    for path in (tmp_path / "n").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "n" / "join.creds").exists()
    for stream in ("IDENTITY", "AUDIT"):
        for record in (await hub.log.last(stream, [">"])).records:
            assert seed.encode() not in record.payload and token.encode() not in record.payload
    node = await hub.log.last_of("IDENTITY", subjects.identity_node("edge-1"))
    assert node is not None
    state = codec.validate(identity.NodeState, node.event().data or {})
    assert state.public_key == join.public_key(tmp_path / "n") and state.labels == {"site": "a"}
    accepted = await audit(hub, "join", "edge-1")
    assert accepted.type == identity.AUDIT_JOIN_ACCEPTED and accepted.trace == node.event().trace
    # joining again in the same folder changes nothing and needs no hub
    assert await join.join(token, "edge-1", tmp_path / "n") == got
    with pytest.raises(join.JoinError, match="belongs to node 'edge-1'"):
        await join.join(token, "edge-2", tmp_path / "n")


async def test_a_token_is_for_one_node_once_even_for_two_at_the_same_moment(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub) as service:
        token = await tokens.create_token(hub.log, hub.hub)
        results = await asyncio.gather(
            *(join.join(token, f"edge-{n}", tmp_path / str(n)) for n in range(5)), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, join.JoinRefused)]
        assert len(refused) == 4 and all("used already" in r.reason for r in refused)
        assert (service.accepted, service.refused) == (1, 4)
    loser = next(n for n, r in enumerate(results) if isinstance(r, join.JoinRefused))
    ev = await audit(hub, "join", f"edge-{loser}")
    assert ev.type == identity.AUDIT_JOIN_REFUSED and ev.data is not None and "used already" in ev.data["reason"]


async def test_a_repeated_join_whose_answer_was_lost_is_answered_again(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub):
        token = await tokens.create_token(hub.log, hub.hub)
        first = await join.join(token, "edge-1", tmp_path / "n")
        (tmp_path / "n" / "identity.json").unlink()  # killed before it was stored
        again = await join.join(token, "edge-1", tmp_path / "n")
    assert again.node == first.node
    assert jwt.claims_of(again.jwt)["sub"] == jwt.claims_of(first.jwt)["sub"]


async def test_wrong_expired_and_foreign_tokens_are_refused_and_audited(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_fixture.join_service(hub):
        good = tokens.decode(await tokens.create_token(hub.log, hub.hub))
        wrong = tokens.encode(good.model_copy(update={"secret": "0" * 64}))
        with pytest.raises(join.JoinRefused, match="not known here"):
            await join.join(wrong, "edge-1", tmp_path / "wrong")
        assert (await audit(hub, "join", "edge-1")).type == identity.AUDIT_JOIN_REFUSED
        assert not (tmp_path / "wrong" / "identity.json").exists()

        bound = await tokens.create_token(hub.log, hub.hub, node="edge-7")
        with pytest.raises(join.JoinRefused, match="for another node"):
            await join.join(bound, "edge-2", tmp_path / "bound")
        assert (await audit(hub, "join", "edge-2")).type == identity.AUDIT_JOIN_REFUSED

        expired = await tokens.create_token(hub.log, hub.hub, ttl_s=60)
        real = stamp.now_us
        with monkeypatch.context() as m:
            m.setattr(joining.stamp, "now_us", lambda: real() + 61 * 1_000_000)
            with pytest.raises(join.JoinRefused, match="has expired"):
                await join.join(expired, "edge-3", tmp_path / "expired")
        ev = await audit(hub, "join", "edge-3")
        assert ev.type == identity.AUDIT_JOIN_REFUSED and ev.data is not None and "expired" in ev.data["reason"]

        assert (await join.join(tokens.encode(good), "edge-1", tmp_path / "good")).node == "edge-1"  # none of it used it up


async def test_a_bad_name_from_a_node_that_does_not_check_is_refused(hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a node name"):
        await join.join(await tokens.create_token(hub.log, hub.hub), "Edge_1", tmp_path / "n")
    async with node_fixture.join_service(hub):
        for name in ("Edge_1", "all", "x" * 300, "../etc", "a.*.b"):
            token = tokens.decode(await tokens.create_token(hub.log, hub.hub))
            answer = await _ask_raw(hub, tmp_path, token, node=name)
            assert answer.status == "refused", name
            ev = await audit(hub, "join", name[: identity.NODE_NAME_MAX])
            assert ev.type == identity.AUDIT_JOIN_REFUSED


async def _ask_raw(hub: RunningHub, tmp_path: Path, token: object, *, node: str) -> JoinAnswer:
    assert isinstance(token, tokens.JoinToken)
    creds.Credentials(token.jwt, token.seed).write(tmp_path / "raw.creds")
    c = await connect.connect(
        connect.ConnectSettings(
            tuple(token.urls),
            "raw",
            credentials=tmp_path / "raw.creds",
            ca=hub.hub.ca_path,
            inbox=permissions.bootstrap_inbox(token.id),
        )
    )
    request = JoinRequest(token=token.id, secret=token.secret, node=node, public_key=keys.generate("user").public)
    msg = await c.request(subjects.join_request(token.id), codec.encode(request), timeout_s=10)
    await c.close()
    return codec.decode_as(JoinAnswer, msg.data)


async def test_a_known_name_with_another_key_needs_a_token_made_for_it(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub):
        await node_fixture.join_node(hub, tmp_path / "old", "edge-1")
        old = await connect.connect(node_fixture.direct_settings(tmp_path / "old", inbox=subjects.inbox("edge-1")))
        with pytest.raises(join.JoinRefused, match="another key"):
            await node_fixture.join_node(hub, tmp_path / "thief", "edge-1")
        assert (await audit(hub, "join", "edge-1")).type == identity.AUDIT_JOIN_REFUSED
        assert old.connected
        replace = await tokens.create_token(hub.log, hub.hub, node="edge-1")
        await join.join(replace, "edge-1", tmp_path / "new")
        while old.connected:  # the old key is cut off at once
            await asyncio.sleep(0.02)
        with pytest.raises(join.JoinRefused):
            await join.renew(tmp_path / "old")
        await old.close()
        (tmp_path / "old" / "identity.json").unlink()  # its key stays, and would stay out whatever the log said
        again = await tokens.create_token(hub.log, hub.hub, node="edge-1")
        with pytest.raises(join.JoinRefused, match="was replaced"):
            await join.join(again, "edge-1", tmp_path / "old")


async def test_without_a_hub_or_a_service_or_with_another_hub_the_node_says_so(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await tokens.create_token(hub.log, hub.hub)
    with pytest.raises(join.HubUnreachable, match="join service does not run"):
        await join.join(token, "edge-1", tmp_path / "a")
    monkeypatch.setattr(join, "CONNECT_S_MAX", 0.5)
    other = init.init_hub(tmp_path / "other", ports=init.HubPorts(client=0, leaf=0, websocket=0))
    foreign = tokens.encode(tokens.decode(token).model_copy(update={"ca": other.ca_path.read_text()}))
    with pytest.raises(join.HubUntrusted):
        await join.join(foreign, "edge-1", tmp_path / "b")
    nowhere = tokens.encode(tokens.decode(token).model_copy(update={"urls": [other.urls[0]]}))
    with pytest.raises(join.HubUnreachable, match="can't be reached"):
        await join.join(nowhere, "edge-1", tmp_path / "c")


def test_damaged_tokens_are_refused_without_repeating_them() -> None:
    for text in ("", "skerry1.", "skerry1.%%%", "skerry2.abc", "skerry1." + "A" * 20_000, "skerry1.gqFhAaFiAg"):
        with pytest.raises(tokens.BadToken) as e:
            tokens.decode(text)
        assert "gqFhAaFiAg" not in str(e.value)


async def test_renewing_over_the_link_and_after_the_jwt_expired(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub, jwt_s=1):
        first = await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        own = await connect.connect(node_fixture.direct_settings(tmp_path / "n", inbox=subjects.inbox("edge-1")))
        # the JWT ends after a second: the server hangs up, and the connection comes back with what is in the file by then
        while own.connected:
            await asyncio.sleep(0.02)
        late = await join.renew(tmp_path / "n", own)
        assert late.expires > first.expires and late.jwt != first.jwt
        while own.reconnects == 0 or not own.connected:
            if not own.connected:
                await join.renew(tmp_path / "n")
            await asyncio.sleep(0.1)
        await own.close()
    async with node_fixture.join_service(hub, jwt_s=3600):
        await join.renew(tmp_path / "n")
        own = await connect.connect(node_fixture.direct_settings(tmp_path / "n", inbox=subjects.inbox("edge-1")))
        over = await join.renew(tmp_path / "n", own)
        assert over.expires > late.expires + 3000
        assert 2200 < join.Renewer(tmp_path / "n").due_s() <= 2400
        await own.close()


async def test_a_node_that_comes_back_after_its_jwt_ended_renews_as_soon_as_it_is_answered(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for up to a quarter of an hour, by the back-off for a hub that is being repaired."""
    monkeypatch.setattr(join, "LATE_RETRY_S", 0.05)
    async with node_fixture.join_service(hub, jwt_s=1):
        first = await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
    renewer = join.Renewer(tmp_path / "n", linked=lambda: False, look_s=0.02)
    running = asyncio.create_task(renewer.run())
    async with asyncio.timeout(60):
        while "does not run" not in renewer.last_error:
            await asyncio.sleep(0.02)
        async with node_fixture.join_service(hub, jwt_s=3600):
            while join.load(tmp_path / "n").expires == first.expires:
                await asyncio.sleep(0.02)
    await tasks.end(running)


async def test_without_a_link_a_jwt_is_renewed_though_the_clock_calls_it_good(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that wakes up in the past is refused by the hub, and its own clock sees no reason."""
    monkeypatch.setattr(join, "UNLINKED_RETRY_S", 0.05)
    async with node_fixture.join_service(hub, jwt_s=3600):
        first = await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        running = asyncio.create_task(join.Renewer(tmp_path / "n", linked=lambda: False, look_s=0.02).run())
        async with asyncio.timeout(60):
            while join.load(tmp_path / "n").jwt == first.jwt:
                await asyncio.sleep(0.02)
        await tasks.end(running)


@pytest.mark.parametrize("off_s", [-30 * 86400, 2 * 86400], ids=["clock behind", "clock ahead"])
async def test_a_clock_that_is_days_off_renews_once_and_not_in_a_loop(
    hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    async with node_fixture.join_service(hub, jwt_s=3600):
        await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
    known, renewed = join.load(tmp_path / "n"), 0

    async def renew(*_: object, **__: object) -> NodeIdentity:
        nonlocal renewed
        renewed += 1
        return known

    real = time.time
    monkeypatch.setattr(join, "renew", renew)
    monkeypatch.setattr(join.time, "time", lambda: real() + off_s)
    running = asyncio.create_task(join.Renewer(tmp_path / "n", look_s=0.001).run())
    async with asyncio.timeout(60):
        while not renewed:
            await asyncio.sleep(0.001)
        for _ in range(30):
            await asyncio.sleep(0.002)
    await tasks.end(running)
    assert renewed == 1


async def test_a_revoked_node_is_cut_off_and_stays_out(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub) as service:
        await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        await node_fixture.join_node(hub, tmp_path / "m", "edge-2")
        bad = await connect.connect(node_fixture.direct_settings(tmp_path / "n", inbox=subjects.inbox("edge-1")))
        good = await connect.connect(node_fixture.direct_settings(tmp_path / "m", inbox=subjects.inbox("edge-2")))
        sys = service._sys
        assert sys is not None
        await joining.revoke_node(hub.log, hub.hub, sys, "edge-1", reason="stolen", actor="tester")
        while bad.connected:
            await asyncio.sleep(0.02)
        with pytest.raises(join.JoinRefused):
            await join.renew(tmp_path / "n")
        with pytest.raises(connect.ConnectFailed, match="Authorization"):
            await connect.connect(node_fixture.direct_settings(tmp_path / "n", inbox="_INBOX.edge-1", wait_s=3))
        await good.flush()
        assert good.connected and good.reconnects == 0
        assert (await audit(hub, "revoke", "edge-1")).type == identity.AUDIT_REVOKED
        with pytest.raises(LookupError):
            await joining.revoke_node(hub.log, hub.hub, sys, "edge-9", reason="x")
        await bad.close()
        await good.close()
    # a restart of the hub doesn't forget it
    again = init.init_hub(hub.hub.dir)
    claims = jwt.claims_of(again.account_jwt(again.accounts.edge).read_text())
    assert join.public_key(tmp_path / "n") in claims["nats"]["revocations"]


async def test_a_jwt_that_was_signed_after_its_key_was_revoked_opens_nothing(hub: RunningHub, tmp_path: Path) -> None:
    """A renewal that had read the node's state before, or was signed by a machine whose clock is ahead: a revocation up to
    its own second let such a JWT in, for its whole life."""
    async with node_fixture.join_service(hub) as service:
        await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        before = (await hub.log.last_of("IDENTITY", subjects.identity_node("edge-1"))).event()  # type: ignore[union-attr]
        sys = service._sys
        assert sys is not None
        await joining.revoke_node(hub.log, hub.hub, sys, "edge-1", reason="stolen", actor="tester")
        clock = stamp.now_us
        try:
            stamp.now_us = lambda: clock() + 3600 * 1_000_000
            late = service._identity("edge-1", codec.validate(identity.NodeState, before.data or {}))
        finally:
            stamp.now_us = clock
        seed = creds.read(join.creds_path(tmp_path / "n")).seed
        for path, token in ((join.creds_path, late.jwt), (join.late_creds_path, late.late_jwt)):
            creds.Credentials(token, seed).write(path(tmp_path / "n"))
        with pytest.raises(connect.ConnectFailed, match="Authorization"):
            await connect.connect(node_fixture.direct_settings(tmp_path / "n", inbox="_INBOX.edge-1", wait_s=3))
        with pytest.raises(join.JoinRefused):
            await join.renew(tmp_path / "n")


async def test_a_foreign_event_in_identity_refuses_and_the_service_goes_on(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub):
        token = tokens.decode(await tokens.create_token(hub.log, hub.hub))
        await hub.core.client.request(subjects.identity_node("edge-1"), b"no event")
        assert "can't read" in (await _ask_raw(hub, tmp_path, token, node="edge-1")).message
        assert (await node_fixture.join_node(hub, tmp_path / "n", "edge-2")).node == "edge-2"
    async with node_fixture.join_service(hub):  # and so it starts again
        pass
