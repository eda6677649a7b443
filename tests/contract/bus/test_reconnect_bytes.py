"""What a reconnect carries, against a real hub with TLS: for nats-py's client as bent by ``bus.client``, and for the slim
one that stands for it in benchmarks."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import connect
from bus.slim import connection as slim
from bus.slim.connection import SlimConnection
from ops.fleet import minting, wire
from schemas import subjects
from tests.contract.hub_fixture import RunningHub, hub

__all__ = ["hub"]
pytestmark = pytest.mark.contract

NODE = "counted-1"
PATIENCE_S = 45.0
TICKETED_BYTES_MAX = 2400  # of TCP payload, both ways
WHOLE_BYTES_MAX = 3100  # without a ticket: the certificate comes again
PACKETS_MAX = 20  # 13 in peace; acknowledgements of their own come when the machine is busy


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.02)


def transport(c: connect.Connection) -> Any:
    """asyncio's, of either kind."""
    return c._transport if isinstance(c, SlimConnection) else c.client._transport._io_writer.transport  # type: ignore[union-attr]


@asynccontextmanager
async def connected(hub: RunningHub, kind: str, folder: Path) -> AsyncIterator[connect.Connection]:
    text = minting.Mint(hub.hub).node(NODE)
    settings = connect.ConnectSettings(
        tuple(hub.hub.urls), NODE, ca=hub.hub.ca_path, inbox=subjects.inbox(NODE), wait_s=PATIENCE_S, credentials_text=text
    )
    c: connect.Connection
    if kind == "slim":
        c = await slim.connected(settings, asyncio.Semaphore(1))
    else:
        (folder / "node.creds").write_text(text)
        c = await connect.connect(dataclasses.replace(settings, credentials=folder / "node.creds", credentials_text=""))
    try:
        yield c
    finally:
        await c.close()


@pytest.mark.parametrize("kind", ["client", "slim"])
async def test_a_reconnect_brings_its_ticket_and_is_short_and_one_after_a_restart_is_whole(
    hub: RunningHub, kind: str, tmp_path: Path
) -> None:
    heard: list[bytes] = []
    came_back = 0

    def changed(up: bool) -> None:
        nonlocal came_back
        came_back += up

    async def take(msg: connect.Message) -> None:
        heard.append(msg.data)

    async def pong(msg: connect.Message) -> None:
        await hub.core.publish(msg.reply, b"pong")

    async def hears(c: connect.Connection) -> None:
        """What it subscribed to before still comes, once each."""
        heard.clear()
        for n, subject in enumerate(listens):
            await hub.core.publish(subject, b"%d" % n)
        await until(lambda: len(heard) >= len(listens))
        assert (await c.request(subjects.beat(NODE), b"", timeout_s=PATIENCE_S)).data == b"pong"
        assert sorted(heard) == [b"%d" % n for n in range(len(listens))]

    listens = [f"live.{NODE}.a", "live.all.a", f"answer.{NODE}.a", f"cmd.{NODE}.beat", f"tunnel.{NODE}.down.a.b"]
    await hub.core.subscribe("beat.*", pong)
    await hub.core.flush()
    async with connected(hub, kind, tmp_path) as c:
        for subject in listens:
            await c.subscribe(subject, take)
        await c.request(subjects.beat(NODE), b"", timeout_s=PATIENCE_S)
        c.on_change(changed)

        async def again() -> tuple[bool, wire.Wire]:
            """Whether the next connection was made with a ticket, and what it took to make it."""
            before = came_back
            await c.reconnect()
            await until(lambda: came_back > before)
            made = transport(c)
            return made.get_extra_info("ssl_object").session_reused, wire.of_socket(made.get_extra_info("socket"))

        for _ in range(2):
            reused, cost = await again()
            assert reused and cost.sent + cost.received < TICKETED_BYTES_MAX, cost
            assert cost.segments <= PACKETS_MAX, cost
            await hears(c)

        before, pid = came_back, hub.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: came_back > before and hub.core.connected)
        made = transport(c)
        cost = wire.of_socket(made.get_extra_info("socket"))
        assert not made.get_extra_info("ssl_object").session_reused, "the server forgot its tickets with its life"
        assert cost.sent + cost.received < WHOLE_BYTES_MAX, cost
        await hears(c)
        assert (await again())[0]


async def test_what_is_subscribed_and_unsubscribed_while_it_comes_back_is_so_afterwards(
    hub: RunningHub, tmp_path: Path
) -> None:
    """At any moment of a reconnect."""
    for kind in ("client", "slim"):
        async with connected(hub, kind, tmp_path) as c:
            heard: list[str] = []

            async def take(msg: connect.Message, heard: list[str] = heard) -> None:
                heard.append(msg.subject)

            wanted = []
            for n in range(8):
                gone = await c.subscribe(f"cmd.{NODE}.gone-{n}", take)
                before = c.reconnects
                await c.reconnect()
                await asyncio.sleep(0.03 * n)  # a reconnect takes 0.02 to 0.2 s
                await gone.unsubscribe()
                await c.subscribe(f"cmd.{NODE}.new-{n}", take)
                wanted.append(f"cmd.{NODE}.new-{n}")
                await until(lambda before=before: c.connected and c.reconnects > before)  # type: ignore[misc]
            live = f"cmd.{NODE}.last"
            await c.subscribe(live, take)

            async def all_heard(wanted: list[str] = wanted, live: str = live, heard: list[str] = heard) -> bool:
                heard.clear()
                for n in range(8):
                    await hub.core.publish(f"cmd.{NODE}.gone-{n}", b"")
                for subject in [*wanted, live]:
                    await hub.core.publish(subject, b"")
                await hub.core.flush()
                await asyncio.sleep(0.1)
                return set(heard) >= {*wanted, live}

            async with asyncio.timeout(PATIENCE_S):
                while not await all_heard():
                    pass
            assert sorted(heard) == sorted([*wanted, live]), kind
