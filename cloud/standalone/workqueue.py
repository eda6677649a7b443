"""Turns (turns.py) for coroutines: ``take`` waits until there is one."""

from __future__ import annotations

import asyncio

from cloud.standalone.turns import Turns
from schemas.subjects import ObjectKey


class WorkQueue:
    def __init__(self) -> None:
        self._turns = Turns()
        self._bell = asyncio.Event()

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def waiting(self) -> int:
        """Keys that are due later."""
        return self._turns.waiting

    def add(self, key: ObjectKey, delay_s: float = 0.0) -> None:
        now_s = asyncio.get_running_loop().time() if delay_s > 0 else 0.0
        if self._turns.add(key, now_s, delay_s):
            self._bell.set()

    async def take(self) -> ObjectKey:
        """The next key; it belongs to the caller until ``done``."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            key = self._turns.take(now)
            if key is not None:
                return key
            self._bell.clear()
            next_s = self._turns.next_s
            try:
                async with asyncio.timeout(None if next_s is None else next_s - now):
                    await self._bell.wait()
            except TimeoutError:
                continue

    def done(self, key: ObjectKey) -> None:
        if self._turns.done(key):
            self._bell.set()
