"""The keys of service account tokens in a real hub's log: servers that start at once, a rotation, a key that is retired, and
the command that does it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bus import log, stamp
from bus.hub.init import Hub
from bus.identity import api_keys
from bus.kube.auth import jws
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract
WITHIN_S = 60


@contextlib.asynccontextmanager
async def server(hub: RunningHub) -> AsyncIterator[api_keys.Ring]:
    """The part of an API server that has the keys, over a connection of its own."""
    core = await hub.connect_core()
    store = log.Log(core)
    ring = api_keys.Ring(api_keys.seal_of(hub.hub))
    await ring.start(store)
    following = asyncio.create_task(ring.run(store))
    try:
        yield ring
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()
        await core.close()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not check():
            await asyncio.sleep(0.02)


async def command(hub: Hub, *args: str) -> str:
    pipe = asyncio.subprocess.PIPE
    line = ("-m", "ops.cli", "hub", "api-keys", *args, "--data", str(hub.dir))
    process = await asyncio.create_subprocess_exec(sys.executable, *line, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_servers_that_start_at_once_have_one_key_and_hear_of_the_next(hub: RunningHub) -> None:
    async with contextlib.AsyncExitStack() as stack:
        rings = await asyncio.gather(*(stack.enter_async_context(server(hub)) for _ in range(4)))
        now_us = stamp.now_us()
        assert len({r.signing(now_us)[0] for r in rings}) == 1, "one made it, the others found it"
        old, key = rings[0].signing(now_us)
        token = jws.sign({"a": 1}, old, key)
        new = (await command(hub.hub, "rotate")).split()[0]
        await until(lambda: all(new in r.verifying(now_us) for r in rings))
        assert all(r.signing(now_us)[0] == old for r in rings), "not before everybody knows it"
        later = stamp.now_us() + 2 * api_keys.SETTLE_US
        assert all(r.signing(later)[0] == new and jws.verify(token, r.verifying(later)) for r in rings)
        shown = json.loads(await command(hub.hub, "list", "--json"))["keys"]
        assert [k["kid"] for k in shown] == [old, new] and all(k["verifies"] for k in shown)
        assert old in (text := await command(hub.hub, "list")) and "signs" in text
        await command(hub.hub, "retire", old)
        await until(lambda: all(old not in r.verifying(now_us) for r in rings))
        assert all(r.signing(now_us)[0] == new for r in rings)
    async with server(hub) as again:
        assert again.signing(stamp.now_us())[0] == new, "what starts later has the same"


async def test_what_the_log_has_can_t_sign(hub: RunningHub) -> None:
    async with server(hub) as ring:
        kid, private = ring.signing(stamp.now_us())
    record = await hub.log.last_of("IDENTITY", "identity.keys.api")
    assert record is not None
    number = private.private_numbers().private_value
    assert number.to_bytes(32) not in record.payload and kid.encode() in record.payload
    stranger = api_keys.Ring(api_keys.Seal("another hub's seed"))
    with pytest.raises(api_keys.KeyProblem, match="can't be opened"):
        await stranger.start(hub.log)
