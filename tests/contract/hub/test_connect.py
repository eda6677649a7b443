"""The connection that never gives up, closed and cut at awkward moments."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bus import connect, log
from bus.client import Client
from tests.contract.hub_fixture import RunningHub, core_settings

pytestmark = pytest.mark.contract


async def test_closing_at_any_moment_of_a_reconnect_leaves_nothing_behind(hub: RunningHub) -> None:
    connections = [await hub.connect_core(f"c{n}") for n in range(12)]
    await hub.server.stop()
    for n, c in enumerate(connections[:6]):
        await asyncio.sleep(0.01 * n)
        await c.close()
        assert c.closed and not c.connected
    starting = asyncio.create_task(hub.server.start())
    for n, c in enumerate(connections[6:]):
        await asyncio.sleep(0.01 * n)
        await c.close()
        await c.close()
    await starting


async def test_an_error_of_the_server_leads_to_a_reconnect_and_not_to_the_end(hub: RunningHub) -> None:
    c = await hub.connect_core("victim")
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(msg: connect.Message) -> None:
        heard.put_nowait(msg.data)

    await c.subscribe("live.>", take)
    await c.client._process_err("'User Authentication Expired'")
    while c.reconnects == 0:
        await asyncio.sleep(0.01)
    await hub.core.client.publish("live.x", b"still here")
    assert await heard.get() == b"still here"
    # a refused subject is told and is no reason to reconnect
    await c.client._process_err("'Permissions Violation for Publish to \"x\"'")
    await c.flush()
    assert c.connected and c.reconnects == 1
    await c.close()


async def test_the_watchdog_revives_a_reconnect_loop_that_died(hub: RunningHub) -> None:
    settings = core_settings(hub.hub, "watched")
    c = await connect.connect(
        connect.ConnectSettings(settings.urls, "watched", credentials=settings.credentials, ca=settings.ca, rtt_every_s=0.2)
    )
    await hub.server.stop()
    while c.connected:
        await asyncio.sleep(0.01)
    client = c.client
    assert isinstance(client, connect.Client)
    while not client.stuck:  # as an error that nats-py doesn't expect would leave it
        for task in list(client._reconnecting):
            task.cancel()
        await asyncio.sleep(0)
    await hub.server.start()
    while not c.connected:
        await asyncio.sleep(0.05)
    await c.flush()
    while c.rtt_s is None:
        await asyncio.sleep(0.05)
    await c.close()


async def test_whoever_waited_for_the_end_of_a_connection_and_was_cancelled_stops_no_later_attempt(hub: RunningHub) -> None:
    c = await connect.connect(core_settings(hub.hub, "waits"))
    client = c.client
    assert isinstance(client, connect.Client)
    transport: Any = client._transport
    transport._io_writer.transport.get_protocol()._get_close_waiter(None).cancel()  # as the death of an attempt leaves it
    await hub.server.stop()
    while c.connected:
        await asyncio.sleep(0.01)
    await hub.server.start()
    async with asyncio.timeout(60):
        while not c.connected:
            await asyncio.sleep(0.05)
        await c.flush()
    await c.close()


async def test_a_server_that_falls_silent_is_noticed_by_the_first_question_it_does_not_answer(hub: RunningHub) -> None:
    """Long before the watchdog's own time (here an hour)."""
    s = core_settings(hub.hub)
    c = await connect.connect(
        connect.ConnectSettings(s.urls, "doubting", credentials=s.credentials, ca=s.ca, rtt_every_s=3600)
    )
    store, told = log.Log(c, timeout_s=0.2), list[bool]()
    c.on_change(told.append)
    assert (await store.info("CLUSTER")).last_seq == 0
    pid = hub.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(log.LogUnavailable):
            await store.info("CLUSTER")
        async with asyncio.timeout(60):
            while told != [False]:
                await asyncio.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):  # if this took long, its supervisor has replaced it
            os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(60):
        while not c.connected:
            await asyncio.sleep(0.02)
    await store.close()
    await c.close()


async def test_who_publishes_when_the_connection_is_ended_is_told_so_in_words_that_are_expected(hub: RunningHub) -> None:
    """asyncio answers a write on aborted TLS with an AttributeError, which ended a whole cloud process."""
    c = await hub.connect_core("unlucky")
    client = c.client
    assert isinstance(client, connect.Client) and client._flusher_task is not None
    client._flusher_task.cancel()  # what nats-py's flusher does of itself when it meets the error: then publishers write
    await asyncio.sleep(0)
    client._abort()
    assert client._transport is not None
    client._transport.close()
    with pytest.raises((connect.NotConnected, OSError)):
        while True:
            await c.publish("live.x", b"")
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while not (c.connected and c.reconnects):
            await asyncio.sleep(0.02)
    await c.publish("live.x", b"")
    await c.flush()
    await c.close()


@pytest.mark.parametrize("comes", ["an error", "a connection"])
async def test_an_end_that_comes_together_with_the_outcome_of_an_attempt_is_an_end(
    comes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``asyncio.wait_for`` of Python 3.11, with which nats-py waits, loses it then."""
    abandoned = 0

    async def connecting(self: Client, **_: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        if comes == "an error":
            raise OSError("certificate verify failed")

    async def abandon(self: Client) -> None:
        nonlocal abandoned
        abandoned += 1

    monkeypatch.setattr(Client, "connect", connecting)
    monkeypatch.setattr(Client, "abandon", abandon)
    async with asyncio.timeout(30):
        with pytest.raises(connect.ConnectFailed):
            await connect.connect(connect.ConnectSettings(("tls://127.0.0.1:1",), "nobody", wait_s=0.1))
    assert abandoned == 1


async def test_without_a_server_connect_waits_as_long_as_it_was_told(hub: RunningHub, tmp_path: Path) -> None:
    await hub.server.stop()
    settings = core_settings(hub.hub)
    with pytest.raises(connect.ConnectFailed, match="Connect call failed"):
        await connect.connect(
            connect.ConnectSettings(settings.urls, "x", credentials=settings.credentials, ca=settings.ca, wait_s=0.3)
        )
    waiting = asyncio.create_task(
        connect.connect(
            connect.ConnectSettings(settings.urls, "x", credentials=settings.credentials, ca=settings.ca, wait_s=None)
        )
    )
    await asyncio.sleep(0.2)
    await hub.server.start()
    c = await waiting
    assert c.connected
    await c.close()


async def test_a_pong_that_comes_after_its_flush_gave_up_does_not_deafen_the_connection(hub: RunningHub) -> None:
    c = await hub.connect_core("late")
    gave_up = asyncio.get_running_loop().create_future()
    gave_up.cancel()
    await c.client._send_ping(gave_up)
    await c.flush()
    assert c.connected and c.reconnects == 0
    await c.close()
