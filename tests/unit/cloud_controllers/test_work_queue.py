"""The queue of keys: once each, in turn, later ones later, and it lets itself be stopped."""

from __future__ import annotations

import asyncio

from cloud.standalone.workqueue import WorkQueue
from schemas.subjects import ObjectKey

A, B = ObjectKey("", "pods", "default", "a"), ObjectKey("", "pods", "default", "b")


async def test_a_key_is_given_once_however_often_it_is_asked_for() -> None:
    queue = WorkQueue()
    for key in (A, B, A, A):
        queue.add(key)
    assert [await queue.take(), await queue.take()] == [A, B]
    assert len(queue) == 2, "both are being looked at"
    queue.add(A)
    queue.add(A)
    queue.done(B)
    queue.done(A)
    assert await queue.take() == A
    queue.done(A)
    assert len(queue) == 0


async def test_the_earliest_time_counts() -> None:
    queue = WorkQueue()
    queue.add(A, 3600)
    queue.add(A, 0.001)
    queue.add(B, 3600)
    assert queue.waiting == 2
    assert await queue.take() == A
    assert queue.waiting == 1


async def test_a_stop_that_comes_together_with_a_key_is_a_stop() -> None:
    """asyncio.wait_for of Python 3.11 forgets a cancellation that meets its result: a process would hang at its end."""
    queue = WorkQueue()
    queue.add(B, 3600)

    async def work() -> None:
        while True:
            queue.done(await queue.take())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    queue.add(A, 0)
    await asyncio.sleep(0)
    task.cancel()
    stopped, _ = await asyncio.wait({task}, timeout=1)  # at once; a second only when it hangs
    task.cancel()
    await asyncio.wait({task})
    assert stopped and task.cancelled()
