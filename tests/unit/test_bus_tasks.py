"""A task is ended although something in it swallows a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from bus import tasks


async def test_a_task_that_swallowed_one_cancellation_is_ended() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await tasks.end(task)
    assert task.cancelled() and swallowed == 1
    await tasks.end(task)


async def test_what_a_task_failed_with_is_raised() -> None:
    async def failing() -> None:
        raise LookupError("its own")

    task = asyncio.create_task(failing())
    await asyncio.wait({task})
    with pytest.raises(LookupError, match="its own"):
        await tasks.end(task)
