"""A revocation can't be missed: not by a push that was lost, not by accounts that were restored from an old copy, not by a
server that was away."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus import connect, log, stamp
from bus.hub import init
from bus.identity import accounts, creds, join, keys, tokens
from cloud import revoking
from schemas import codec, identity, subjects
from tests.contract.hub import test_three_servers as three
from tests.contract.isolation import raw
from tests.contract.isolation.conftest import Scene

pytestmark = pytest.mark.contract

WAIT_S = 60.0


@contextlib.asynccontextmanager
async def holding(scene: Scene) -> AsyncIterator[revoking.Revoking]:
    assert scene.service._sys is not None
    keeper = revoking.Revoking(scene.hub.log, scene.hub.hub, scene.service._sys, look_s=0.5)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def write_down(scene: Scene, node: str) -> None:
    """The event of a revocation, after which whoever revoked died."""
    last = await scene.hub.log.last_of("IDENTITY", subjects.identity_node(node))
    assert last is not None
    state = codec.validate(identity.NodeState, last.event().data or {}).model_copy(update={"revoked": True, "reason": "x"})
    ev = tokens.identity_event(identity.NODE_REVOKED, "nodes", node, state.model_dump())
    await scene.hub.log.append(subjects.identity_node(node), ev, expect=log.Expect(last.seq))


async def until_refused(scene: Scene, node: str, text: str | None = None) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                r = await scene.connect(node, text)
                await r.flush()
            except raw.Refused:
                return
            await asyncio.sleep(0.2)


async def test_one_that_was_written_down_and_never_pushed_is_carried_out(scene: Scene) -> None:
    evil, good = await scene.connect("edge-1"), await scene.connect("edge-2")
    async with holding(scene):
        await evil.flush()
        await write_down(scene, "edge-1")
        async with asyncio.timeout(WAIT_S):
            await evil.closed.wait()
        await until_refused(scene, "edge-1")
        await until_refused(scene, "edge-1", (scene.dir("edge-1") / "late.creds").read_text())
    await good.flush()
    assert not good.closed.is_set()


async def test_the_key_that_a_node_had_before_it_was_replaced_is_refused_though_nobody_could_push_it(scene: Scene) -> None:
    old = scene.creds("edge-1")
    sys, scene.service._sys = scene.service._sys, None  # the join service can't reach the resolver
    shutil.rmtree(scene.dir("edge-1"))
    await join.join(await tokens.create_token(scene.hub.log, scene.hub.hub, node="edge-1"), "edge-1", scene.dir("edge-1"))
    scene.service._sys = sys
    clone = await scene.connect("edge-1", old)
    await clone.flush()
    async with holding(scene):
        async with asyncio.timeout(WAIT_S):
            await clone.closed.wait()
        await until_refused(scene, "edge-1", old)
        await (await scene.connect("edge-1")).flush()


async def test_accounts_that_were_restored_from_an_old_copy_learn_it_again(scene: Scene, tmp_path: Path) -> None:
    hub = scene.hub.hub
    shutil.copytree(hub.dir / "accounts", tmp_path / "copy")
    async with holding(scene):
        await write_down(scene, "edge-1")
        await until_refused(scene, "edge-1")
        await scene.hub.server.stop()
        shutil.rmtree(hub.dir / "accounts")
        shutil.copytree(tmp_path / "copy", hub.dir / "accounts")
        await scene.hub.server.start()
        await until_refused(scene, "edge-1")
        await (await scene.connect("edge-2")).flush()
    # And what the log has lost, restored from an older backup, the claims still know.
    kept = await accounts.revocations(hub, scene.service._sys, "edge")  # type: ignore[arg-type]
    assert revoking.changes({}, (), kept, await accounts.revocations(hub, scene.service._sys, "join"), 0) == (  # type: ignore[arg-type]
        revoking.Change(),
        revoking.Change(),
    )


def _node(hub: init.Hub, folder: Path) -> tuple[Path, str]:
    """Credentials of a node, as the join service makes them."""
    key, now_s = keys.generate("user"), stamp.now_us() // 1_000_000
    token = hub.node_signer().sign("edge-1", key.public, now_s=now_s, expires_s=now_s + 3600)
    creds.Credentials(token, key.seed).write(folder / "node.creds")
    return folder / "node.creds", key.public


async def test_a_server_that_was_away_hears_of_it_within_seconds_of_its_return(tmp_path: Path) -> None:
    async with three.running(tmp_path) as cluster:
        hub, away = cluster.hub, cluster.servers[2]
        file, public = _node(hub, tmp_path)

        async def lets_in() -> bool:
            try:
                r = await raw.connect(hub.urls[2], file, hub.ca_path)
            except (raw.Refused, OSError, TimeoutError) as e:
                return "Authorization" not in str(e)  # not up yet, or it said no
            await r.close()
            return True

        assert await lets_in()
        await away.stop()
        settings = connect.ConnectSettings(tuple(hub.urls[:2]), "sys", credentials=hub.sys_creds, ca=hub.ca_path)
        sys = await connect.connect(settings)
        try:
            await accounts.revoke(hub, sys, public)
        finally:
            await sys.close()
        await away.start()
        async with asyncio.timeout(WAIT_S):
            while await lets_in():
                await asyncio.sleep(0.2)
