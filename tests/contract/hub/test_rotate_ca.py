"""A new authority for the hub's certificates: nodes that are there notice nothing, one that was away finds back by itself,
and nobody else is believed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bus import connect, tasks
from bus.hub import authority, init, tls
from bus.identity import join, trust
from schemas import codec, reports, subjects
from schemas.joining import JoinAnswer
from tests.contract import hub_fixture, node_fixture
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract

WAIT_S = 60.0


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await check():
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def renewing(
    directory: Path, connection: connect.Connection, on_trust: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """What the daemon has of it."""
    renewer = join.Renewer(directory, connection, on_trust=on_trust, look_s=0.1, spread_s=0.1)

    async def asked(msg: connect.Message) -> None:
        if msg.data == reports.RENEW:
            renewer.now()

    sub = await connection.subscribe(subjects.command(join.load(directory).node, "beat"), asked)
    await connection.flush()
    task = asyncio.create_task(renewer.run())
    try:
        yield
        assert not task.done()
    finally:
        await tasks.end(task)
        await sub.unsubscribe()


async def reports_through(connection: connect.Connection, node: str, shards: int) -> bool:
    try:
        answer = await connection.request(subjects.report(node, "node", shards), b"x", timeout_s=2)
    except Exception:  # the link is on its way back
        return False
    return b"REPORT" in answer.data


async def rotate(hub: RunningHub, *more: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.cli", "hub", "rotate-ca", "--data", str(hub.hub.dir), *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    return process.returncode or 0, said.decode()


async def restarted(hub: RunningHub) -> None:
    """All links are made anew."""
    await hub.server.stop()
    await hub.server.start()


async def test_nodes_go_on_and_one_that_was_away_all_the_time_finds_back(hub: RunningHub, tmp_path: Path) -> None:
    old = hub.hub.ca_path.read_text()
    away, direct, leaf = (tmp_path / n for n in ("away", "direct", "leaf"))
    shards = hub.hub.shards
    async with node_fixture.join_service(hub), node_fixture.running_node(hub, leaf, "leaf") as node:
        for d in (away, direct):
            await node_fixture.join_node(hub, d, d.name)
        held = await connect.connect(node_fixture.direct_settings(direct, inbox=subjects.inbox("direct")))
        async with renewing(direct, held), renewing(leaf, node.daemon, node.server.reload):
            code, said = await rotate(hub, "--wait", "0m")
            assert code == 3 and "nodes have not fetched it yet" in said
            assert authority.state(hub.hub).phase == "announced"

            async def only_one_lacks_it() -> bool:
                await authority.prompt(hub.core, ["leaf", "direct", "away"])
                return (await authority.holders(hub.log, authority.state(hub.hub).generation)).lacking == ["away"]

            await until(only_one_lacks_it)
            assert len(trust.certificates((leaf / "ca.pem").read_text())) == 2
            code, said = await rotate(hub, "--without-the-rest", "--wait", "0m")
            assert code == 0 and "1 of 3 nodes have not fetched it yet: away" in said, said
            assert "1 servers show certificates of the new authority" in said
            new = hub.hub.ca_path.read_text()
            assert len(trust.certificates(new)) == 1 and not trust.share(old, new)
            assert await reports_through(held, "direct", shards) and await reports_through(node.daemon, "leaf", shards)
            await restarted(hub)
            await until(lambda: reports_through(held, "direct", shards))
            await until(lambda: reports_through(node.daemon, "leaf", shards))

            async def old_is_forgotten() -> bool:
                with contextlib.suppress(connect.NotConnected):
                    await authority.prompt(hub.core, ["leaf", "direct"])
                return (leaf / "ca.pem").read_text() == (direct / "ca.pem").read_text() == new

            await until(old_is_forgotten)
        await held.close()

        # Nobody trusts what is of the old one any more; who was away does, and is told otherwise by a proof.
        assert (away / "ca.pem").read_text() == old
        lost = join.Renewer(away, linked=lambda: False, look_s=0.1, unlinked_s=0.2)
        task = asyncio.create_task(lost.run())  # its JWT is good for a day: it looks because it has no link

        async def back() -> bool:
            return (away / "ca.pem").read_text() == new

        await until(back)

        async def told() -> bool:
            return (await authority.holders(hub.log, authority.state(hub.hub).generation)).lacking == []

        await until(told)
        await tasks.end(task)
        c = await connect.connect(node_fixture.direct_settings(away, inbox=subjects.inbox("away")))
        assert await reports_through(c, "away", shards)
        await c.close()
        assert authority.announce(hub.hub).generation == 5, "and once more"


async def test_another_hub_at_the_same_address_is_not_believed(hub: RunningHub, tmp_path: Path) -> None:
    """It has all but the account's key: even the node's late credentials open its door."""
    node = tmp_path / "edge-1"
    async with node_fixture.join_service(hub):
        await node_fixture.join_node(hub, node, "edge-1")
    before, identity = (node / "ca.pem").read_text(), (node / "identity.json").read_text()
    await hub.server.stop()
    tls.make_ca(hub.hub.dir / "tls", "impostor", init._now())
    init.render(hub.hub, hub.hub.dir)
    await hub.server.start()
    impostor = await connect.connect(hub_fixture.core_settings(hub.hub))
    try:
        asked = []
        good = join.load(node)

        async def answer(msg: connect.Message) -> None:
            """An older word of the hub is all that it has: the one of when the node joined."""
            asked.append(msg)
            lie = good.model_copy(update={"ca": hub.hub.ca_path.read_text(), "ca_generation": 9})
            await impostor.publish(msg.reply, codec.encode(JoinAnswer(status="ok", identity=lie)))

        await impostor.subscribe("renew.*", answer)
        await impostor.flush()
        with pytest.raises(join.HubUntrusted, match="no proof that it is hub"):
            await join.renew(node)
        assert asked, "it was asked, and not believed"
        assert ((node / "ca.pem").read_text(), (node / "identity.json").read_text()) == (before, identity)
    finally:
        await impostor.close()


def test_each_step_can_be_the_last_one_before_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that says which step it is, is written last: without it the step is taken again, to the same end."""
    hub = init.init_hub(tmp_path / "hub", hosts=["127.0.0.1"], ports=init.HubPorts(client=0, leaf=0, websocket=0))
    old = hub.ca_path.read_text()

    def crash(step: Callable[[init.Hub], authority.State], at: int) -> None:
        """Before the ``at``-th file is in place."""
        written = 0
        write = authority.keys.write_private

        def counted(path: Path, text: str) -> None:
            nonlocal written
            written += 1
            if written == at:
                raise OSError("the power went")
            write(path, text)

        with monkeypatch.context() as patch:
            patch.setattr(authority.keys, "write_private", counted)
            with pytest.raises(OSError, match="power"):
                step(hub)

    for at in (1, 2, 3, 4):  # the new authority's key, the bundle, ca.json
        with contextlib.suppress(pytest.fail.Exception):
            crash(authority.announce, at)
        if authority.state(hub).phase != "stable":
            break
        init.init_hub(hub.dir)
        assert tls.good(hub.dir / "tls" / "server.pem", ["127.0.0.1"], init._now())
        assert trust.certificates(hub.ca_path.read_text())[0] == old.strip()
    if authority.state(hub).phase == "stable":
        authority.announce(hub)
    bundle = trust.certificates(hub.ca_path.read_text())
    assert len(bundle) == 2 and bundle[0] == old.strip()
    with pytest.raises(init.HubError, match="announced already"):
        authority.announce(hub)
    with pytest.raises(init.HubError, match="no old authority"):
        authority.drop(hub)
    for at in range(1, 9):
        with contextlib.suppress(pytest.fail.Exception):
            crash(authority.switch, at)
        if authority.state(hub).phase == "switched":
            break
    if authority.state(hub).phase != "switched":
        authority.switch(hub)
    assert trust.certificates(hub.ca_path.read_text()) == [bundle[1], bundle[0]]
    assert tls.good(hub.dir / "tls" / "server.pem", ["127.0.0.1"], init._now())
    assert not (hub.dir / "tls" / "next").exists()
    cert, key = init.issue_server_cert(hub, "api", ["localhost"])
    assert cert.exists() and key.exists()
    authority.drop(hub)
    assert trust.certificates(hub.ca_path.read_text()) == [bundle[1]]
    assert authority.state(hub).generation == 4
