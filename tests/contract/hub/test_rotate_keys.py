"""New signing keys and users while the hub runs: nodes and cloud go on, what is old is believed for its grace only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus import connect
from bus.hub import init, rotate, signers
from bus.identity import accounts, creds, join, jwt, keys, tokens
from cloud import revoking
from schemas import subjects
from tests.contract import hub_fixture, node_fixture
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


async def reports(directory: Path) -> str:
    """The node says something over a new connection; in which stream it is."""
    node = join.load(directory)
    c = await connect.connect(node_fixture.direct_settings(directory, inbox=subjects.inbox(node.node), wait_s=30))
    try:
        return (await c.request(subjects.report(node.node, "node", node.shards), b"x", timeout_s=15)).data.decode()
    finally:
        await c.close()


async def refused(directory: Path, credentials: Path) -> bool:
    node = join.load(directory)
    settings = connect.ConnectSettings(
        tuple(node.urls), "old", credentials=credentials, ca=join.ca_path(directory), inbox=subjects.inbox(node.node),
        wait_s=30, refusal_is_final=True,
    )  # fmt: skip
    try:
        await (await connect.connect(settings)).close()
    except connect.ConnectFailed:
        return True
    return False


def issuer(path: Path) -> str:
    return str(jwt.claims_of(creds.read(path).jwt)["iss"])


async def test_nodes_go_on_through_a_rotation_and_the_old_keys_end_with_the_grace(hub: RunningHub, tmp_path: Path) -> None:
    node, late = tmp_path / "edge-1", tmp_path / "edge-2"
    async with node_fixture.join_service(hub) as service:
        sys = service._sys
        assert sys is not None
        before = await tokens.create_token(hub.log, hub.hub)
        for d in (node, late):
            await node_fixture.join_node(hub, d, d.name)
        for d in (node, late):
            (d / "old.creds").write_text((d / "node.creds").read_text())
        first = hub.hub.key("edge-signing").public
        held = await connect.connect(node_fixture.direct_settings(node, inbox=subjects.inbox("edge-1")))
        done = await rotate.signing_keys(hub.hub, sys, grace_s=3600)
        assert {d.account for d in done} == {"edge", "join"} and done[0].old == first
        second = hub.hub.key("edge-signing").public
        assert second not in (first, "") and set(await accounts.signers(hub.hub, sys, "edge")) == {first, second}
        await held.request(subjects.report("edge-1", "node", hub.hub.shards), b"x", timeout_s=15)
        assert "REPORT" in await reports(node), "the old JWT is believed"
        await join.renew(node)
        assert issuer(node / "node.creds") == second and "REPORT" in await reports(node)
        await join.join(before, "edge-3", tmp_path / "edge-3")  # a token made before

        # The same once more with no grace, through a crash after each step.
        new = keys.generate("account")
        keys.write_private(hub.hub.dir / "keys" / "edge-signing.new.seed", new.seed + "\n")
        await accounts.change(hub.hub, sys, "edge", add_signers=[new.public])
        signers.remember(hub.hub.dir, signers.Rotated(account="edge", public=second, until_s=2**40))
        await rotate.signing_keys(hub.hub, sys, grace_s=0)
        assert hub.hub.key("edge-signing").public == new.public
        assert set(await accounts.signers(hub.hub, sys, "edge")) == {first, new.public}, "the grace of the first goes on"
        assert await refused(node, node / "node.creds"), "signed by the second"
        assert await refused(node, node / "late.creds")
        assert "REPORT" in await reports(late), "signed by the first"
        await join.renew(late)  # by the late credentials of before: believed for its grace
        assert issuer(late / "node.creds") == new.public

        # The grace is over: whoever holds the accounts to the hub's folder tells the servers.
        await held.close()
        path = hub.hub.dir / "keys" / "rotated.json"
        path.write_text(path.read_text().replace(str(max(r.until_s for r in signers.rotated(hub.hub.dir))), "1"))
        signers.remember(hub.hub.dir, signers.Rotated(account="edge", public=first, until_s=1))
        keeping = asyncio.create_task(revoking.Revoking(hub.log, hub.hub, sys, look_s=0.5).run())
        try:
            async with asyncio.timeout(30):
                while set(await accounts.signers(hub.hub, sys, "edge")) != {new.public}:
                    await asyncio.sleep(0.1)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        assert await refused(late, late / "old.creds")
        assert "REPORT" in await reports(late)
    # What the folder says is what the servers said, when the hub is made up to date or restored.
    again = init.init_hub(hub.hub.dir)
    claims = jwt.claims_of(again.account_jwt(again.accounts.edge).read_text())["nats"]
    assert set(accounts.signing_keys(claims)) == {new.public}


async def test_new_users_of_the_cloud_are_taken_up_and_the_old_ones_end(hub: RunningHub) -> None:
    stolen = creds.read(hub.hub.core_creds)
    async with node_fixture.join_service(hub) as service:
        assert service._sys is not None
        await rotate.users(hub.hub, service._sys)
        assert creds.read(hub.hub.core_creds).key.public != stolen.key.public
        old = connect.ConnectSettings(
            tuple(hub.hub.urls), "old", credentials_text=stolen.text(), ca=hub.hub.ca_path, wait_s=30, refusal_is_final=True
        )
        with pytest.raises(connect.ConnectFailed):
            await connect.connect(old)
        async with asyncio.timeout(30):  # what runs reads the file when it connects again
            while True:
                try:
                    await hub.log.info("CLUSTER")
                    await accounts.revocations(hub.hub, service._sys, "edge")
                    break
                except Exception:
                    await asyncio.sleep(0.1)
        fresh = await connect.connect(hub_fixture.core_settings(hub.hub))
        await fresh.close()
