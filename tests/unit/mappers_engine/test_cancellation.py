"""A cancellation that comes together with an answer is not lost (asyncio.wait_for before Python 3.12 loses it)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus import local
from bus.connect import Connection, ConnectSettings
from mappers import device


class Client:
    """nats-py's way to wait for an answer."""

    is_connected = True

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def request(self, subject: str, payload: bytes, timeout: float, headers: object = None) -> Any:
        return await asyncio.wait_for(self.answer, timeout)


async def test_a_task_that_is_ended_while_its_answer_comes_ends() -> None:
    connection = Connection(ConnectSettings(("nats://127.0.0.1:1",), "test"))
    client = Client()
    connection.client = client  # type: ignore[assignment]
    went_on = False

    async def ask_for_ever() -> None:
        nonlocal went_on
        await local.ask(connection, "device.twin", b"", 5)
        went_on = True

    task = asyncio.create_task(ask_for_ever())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    client.answer.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on


async def test_a_device_that_is_removed_while_it_answers_is_let_go() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call() -> str:
        await asyncio.wait_for(answer, 5)
        return "an answer"

    task = asyncio.create_task(device._limited(call(), 5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
