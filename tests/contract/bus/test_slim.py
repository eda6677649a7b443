"""The slim connection against a real hub with TLS, and against a server that falls silent."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import nats.errors
import pytest

from bus import connect
from bus.connect import Message, NotConnected
from bus.slim import connection as slim
from ops.fleet import minting
from schemas import subjects
from tests.contract.hub_fixture import RunningHub, hub

__all__ = ["hub"]
pytestmark = pytest.mark.contract

NODE = "slim-1"
PATIENCE_S = 45.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.05)


def settings(hub: RunningHub, credentials: str, *, wait_s: float | None = PATIENCE_S) -> connect.ConnectSettings:
    return connect.ConnectSettings(
        tuple(hub.hub.urls),
        NODE,
        credentials_text=credentials,
        ca=hub.hub.ca_path,
        inbox=subjects.inbox(NODE),
        wait_s=wait_s,
    )


@asynccontextmanager
async def connected(of: connect.ConnectSettings) -> AsyncIterator[slim.SlimConnection]:
    made = await slim.connected(of, asyncio.Semaphore(4))
    try:
        yield made
    finally:
        await made.close()
        with pytest.raises(NotConnected):
            await made.publish("beat.x", b"")


async def test_it_asks_hears_and_goes_on_after_the_hub_was_killed(hub: RunningHub) -> None:
    heard: list[tuple[str, bytes, str]] = []

    async def take(msg: Message) -> None:
        heard.append((msg.subject, msg.data, (msg.headers or {}).get("A", "")))

    async def answer(msg: Message) -> None:
        await hub.core.publish(msg.reply, b"pong " + msg.data)

    changes: list[bool] = []
    async with connected(settings(hub, minting.Mint(hub.hub).node(NODE))) as node:
        node.on_change(changes.append)
        subscribed = await node.subscribe(subjects.live_scope(NODE), take)
        with pytest.raises(nats.errors.NoRespondersError):
            await node.request(subjects.beat(NODE), b"1", timeout_s=10)
        await hub.core.subscribe("beat.*", answer)
        await hub.core.flush()
        assert (await node.request(subjects.beat(NODE), b"2", timeout_s=10)).data == b"pong 2"

        await node.publish("report.0.another", b"")  # refused: said, and the connection stays
        await node.subscribe("live.another.>", take)
        await until(lambda: "Permissions Violation" in node.last_error)
        assert node.connected and not changes

        live = f"live.{NODE}.core.pods.default.p"
        await hub.core.client.publish(live, b"x" * 300_000, headers={"A": "b"})
        await until(lambda: bool(heard))
        assert heard == [(live, b"x" * 300_000, "b")], "a large message comes whole, with its headers"

        assert hub.server.pid is not None
        os.kill(hub.server.pid, signal.SIGKILL)
        await until(lambda: False in changes and node.connected and hub.core.connected)
        assert changes[-1] and node.reconnects >= 1

        async def asked() -> bytes:
            try:
                return (await node.request(subjects.beat(NODE), b"3", timeout_s=2)).data
            except (nats.errors.Error, NotConnected):  # the other side comes back in its own time
                return b""

        async with asyncio.timeout(PATIENCE_S):
            while await asked() != b"pong 3":
                await asyncio.sleep(0.1)
        heard.clear()
        await hub.core.publish(live, b"again")
        await until(lambda: bool(heard))

        await subscribed.unsubscribe()
        await node.request(subjects.beat(NODE), b"4", timeout_s=10)  # what was sent before is done
        heard.clear()
        await hub.core.publish(live, b"too late")
        await hub.core.flush()
        await node.request(subjects.beat(NODE), b"5", timeout_s=10)
        assert not heard


async def test_who_is_refused_is_told_why(hub: RunningHub) -> None:
    mint = minting.Mint(hub.hub)
    mint._signer._key = hub.hub.key("join-signing")  # another account's
    with pytest.raises(connect.ConnectFailed, match="Authorization Violation"):
        await slim.connected(settings(hub, mint.node(NODE), wait_s=5), asyncio.Semaphore(1))


async def test_a_server_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "RTT_S_MAX", 0.3)
    greeted = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(b'INFO {"max_payload":1000}\r\n')
        while not (await reader.readline()).startswith(b"PING"):
            pass
        writer.write(b"PONG\r\n")
        while await reader.read(1000):  # and never a word more
            pass
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    of = connect.ConnectSettings((f"nats://127.0.0.1:{port}",), NODE, rtt_every_s=0.1)
    async with server, connected(of) as node:
        assert node.payload_bytes_max == 1000
        await until(lambda: greeted >= 2 and node.reconnects >= 1)


async def test_a_callback_that_waits_is_a_bug_that_is_said() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(slim.SlimError, match="must not wait"):
        slim._run(waits())
