"""The role that the key which signs for nodes is bound to: what it lets a JWT be, and hubs from before there was one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from bus import connect
from bus.hub import init, rotate, signers
from bus.identity import accounts, creds, join, jwt, keys, permissions
from schemas import subjects
from tests.contract import node_fixture
from tests.contract.hub.test_rotate_keys import issuer, refused, reports
from tests.contract.hub_fixture import RunningHub
from tests.contract.isolation import raw

pytestmark = pytest.mark.contract
JWT_BYTES_MAX = 720  # 1.4 kB with its permissions spelled out


def member(hub: RunningHub, key: keys.Key, name: str, signer: keys.Key, nats: dict[str, Any]) -> str:
    now_s = int(time.time())
    claims = {"type": "user", "issuer_account": hub.hub.accounts.edge, **nats}
    return creds.Credentials(jwt.sign(key.public, name, claims, signer, now_s=now_s, expires_s=now_s + 600), key.seed).text()


async def heard_and_said(hub: RunningHub, text: str) -> tuple[set[str], set[str]]:
    """Which of everything of interest such a user hears, and which of it reaches the cloud from it."""
    said: set[str] = set()

    async def told(msg: connect.Message) -> None:
        said.add(msg.subject)

    listening = [
        await hub.core.subscribe(s, told) for s in ("sync.*.*", "beat.*", "renew.*", "tunnel.*.up.>", "up.*.*.deliver.>")
    ]
    await hub.core.flush()
    r = await raw.connect(hub.hub.urls[0], text, hub.hub.ca_path)
    try:
        r.sub(">")
        hear = [f"{h}.{n}.x" for n in ("edge-1", "edge-2", "all") for h in ("live", "answer", "cmd")]
        hear += ["tunnel.edge-1.down.a.b", "tunnel.edge-2.down.a.b"]
        for n in {s.split(".")[1] for s in hear} | {"*"}:
            for pattern in (f"live.{n}.>", f"answer.{n}.*", f"cmd.{n}.>", f"tunnel.{n}.down.>"):
                r.sub(pattern)
        for n in ("edge-1", "edge-2", "*"):
            for subject in (f"sync.{n}.x", f"beat.{n}", f"renew.{n}", f"tunnel.{n}.up.a.b", f"up.{n}.L.deliver.x"):
                r.pub(subject)
        await r.flush()
        for subject in hear:
            await hub.core.publish(subject, b"")
        await hub.core.flush()
        await r.flush()
        await hub.core.flush()
        return {m.subject for m in r.heard}, said
    finally:
        await r.close()
        for subscribed in listening:
            await subscribed.unsubscribe()


async def test_a_jwt_of_the_role_is_short_and_says_and_hears_what_is_its_own(hub: RunningHub) -> None:
    key = keys.generate("user")
    now_s = int(time.time())
    token = hub.hub.node_signer().sign("edge-1", key.public, now_s=now_s, expires_s=now_s + 600)
    assert len(token) < JWT_BYTES_MAX and not {"pub", "sub", "subs"} & set(jwt.claims_of(token)["nats"])
    heard, said = await heard_and_said(hub, creds.Credentials(token, key.seed).text())
    assert heard == {"live.edge-1.x", "live.all.x", "answer.edge-1.x", "cmd.edge-1.x", "tunnel.edge-1.down.a.b"}
    assert said == {"sync.edge-1.x", "beat.edge-1", "renew.edge-1", "tunnel.edge-1.up.a.b"}, "not the up of another life"


async def test_a_node_without_a_leaf_server_is_given_less_and_is_served_by_it(hub: RunningHub, tmp_path: Path) -> None:
    async with node_fixture.join_service(hub):
        await node_fixture.join_node(hub, tmp_path / "n", "edge-1")
        directory = tmp_path / "n"
        life = permissions.life_of(join.public_key(directory))
        of_leafs = (f"up.edge-1.{life}.api.CONSUMER.CREATE.TELEMETRY.>", "$JS.FC.TELEMETRY.>")
        for path, is_leaf in ((join.creds_path(directory), True), (join.direct_creds_path(directory), False)):
            r = await raw.connect(hub.hub.urls[0], path, hub.hub.ca_path)
            r.sub(*of_leafs)
            r.pub(f"up.edge-1.{life}.deliver.x")
            r.pub("_R_.a.b")  # an answer to what it was not asked
            await r.flush()
            assert len(r.errors) == (0 if is_leaf else 4), r.errors
            await r.close()
        direct = connect.ConnectSettings(
            tuple(hub.hub.urls), "n", credentials=join.direct_creds_path(directory), ca=join.ca_path(directory),
            inbox="_INBOX.edge-1",
        )  # fmt: skip
        c = await connect.connect(direct)
        try:  # asks, is answered, is asked and answers
            await c.request(subjects.report("edge-1", "node", hub.hub.shards), b"x", timeout_s=15)

            async def answer(msg: connect.Message) -> None:
                await c.publish(msg.reply, b"mine")

            await c.subscribe("cmd.edge-1.tunnel", answer)
            await c.flush()
            assert (await hub.core.request("cmd.edge-1.tunnel", b"", timeout_s=15)).data == b"mine"
            before = join.load(directory).direct_jwt
            await asyncio.sleep(1.1)  # a JWT's time has seconds
            await join.renew(directory, c)
            assert creds.read(join.direct_creds_path(directory)).jwt == join.load(directory).direct_jwt != before
        finally:
            await c.close()
        (directory / "direct.creds").unlink()  # as of a node that joined before there were such
        assert join.direct_creds_path(directory) == join.creds_path(directory)


async def test_the_key_that_signs_for_nodes_can_make_nothing_that_is_more_than_a_node(hub: RunningHub) -> None:
    """Whoever stole it: a JWT with rights of its own is refused, and one of no role has none."""
    bound, key = hub.hub.key("edge-signing"), keys.generate("user")
    for nats in (permissions.everything(), {"pub": {"allow": [">"]}}, {"subs": -1, "data": -1, "payload": -1}):
        with pytest.raises(raw.Refused):
            await heard_and_said(hub, member(hub, key, "edge-1", bound, nats))
    for tags in ([], ["shard:0"], ["shard:>", "life:x"], ["shard:0", "life:*"]):  # no, half a, or a hostile description
        try:
            heard, said = await heard_and_said(hub, member(hub, key, "edge-1", bound, {"tags": tags}))
        except raw.Refused:
            continue
        assert all("edge-1" in s or s.startswith("live.all") for s in heard | said), (tags, heard, said)
    # By a key that is bound to nothing: the account's own.  It may give rights; who is given none has none.
    heard, said = await heard_and_said(hub, member(hub, key, "edge-1", hub.hub.key("edge"), {"subs": -1}))
    assert not heard and not said


async def test_a_hub_from_before_goes_on_as_it_was_until_its_keys_are_rotated(hub: RunningHub, tmp_path: Path) -> None:
    (hub.hub.dir / "keys" / "scoped.json").unlink()  # as such a hub is
    await hub.server.stop()
    old = init.init_hub(hub.hub.dir)
    plain = old.key("edge-signing").public
    assert jwt.claims_of(old.account_jwt(old.accounts.edge).read_text())["nats"]["signing_keys"] == [plain]
    await hub.server.start()
    async with asyncio.timeout(60):
        while not hub.core.connected:
            await asyncio.sleep(0.05)
    async with node_fixture.join_service(hub) as service:
        assert service._sys is not None
        node = tmp_path / "edge-1"
        await node_fixture.join_node(hub, node, "edge-1")
        spelled = creds.read(node / "node.creds").jwt
        assert jwt.claims_of(spelled)["nats"]["pub"]["allow"] and len(spelled) > JWT_BYTES_MAX
        assert "REPORT" in await reports(node)
        (node / "old.creds").write_text((node / "node.creds").read_text())

        await rotate.signing_keys(old, service._sys, grace_s=3600)
        assert signers.scoped(old.dir) == {old.key("edge-signing").public}
        assert "REPORT" in await reports(node), "spelled out by the old key, which is believed for its grace"
        await join.renew(node)
        assert issuer(node / "node.creds") == old.key("edge-signing").public
        assert len(creds.read(node / "node.creds").jwt) < JWT_BYTES_MAX and "REPORT" in await reports(node)

        # What the folder says is what the servers were told, role and all.
        told = accounts.signing_keys((await accounts._claims(old, service._sys, "edge"))["nats"])
        bound = old.key("edge-signing").public
        assert told == {plain: plain, bound: signers.entry(old.dir, bound)} and isinstance(told[bound], dict)

        # A second rotation without grace: bound keys end as others do.
        await rotate.signing_keys(old, service._sys, grace_s=0)
        async with asyncio.timeout(30):
            while not await refused(node, node / "node.creds"):
                await asyncio.sleep(0.1)
        assert not await refused(node, node / "old.creds"), "the grace of the first goes on"
