"""Ending a task for sure.

Python 3.11's ``asyncio.wait_for`` swallows a cancellation that comes in the same turn of the loop as its result (fixed in
3.12; CPython issue 86296), and nats-py swallows some too.  A task that only loops then runs on, and ``await task`` waits for
ever.  Seen: a request's answer and the stop of its asker in one packet.
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.5  # a task that cleans up for longer is cancelled again in the middle of it: keep clean-ups short


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels until it has ended.  What it failed with before is raised; its cancellation is not."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
