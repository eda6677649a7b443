"""Writes the Events that controllers tell (controllers/telling.py) beside their work: no turn waits for one or
fails with it.

Best effort, as client-go's recorders are: what finds the queue full, or a hub that stays away, is not told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from bus.kube import registry as registries
from cloud import api
from cloud.standalone.controllers import events
from cloud.standalone.controllers.base import View
from cloud.standalone.controllers.correlating import Correlator
from cloud.standalone.controllers.telling import Said

logger = structlog.get_logger(__name__)

QUEUED_MAX = 1000  # client-go's: as many as a broadcaster holds
PACE_S = 0.02  # after each: a storm of Events must not hold up the writes that they tell of
TRIES_MAX, RETRY_S = 3, 1.0


class Recorder:
    """``run`` until cancelled.  ``leads`` is asked before every write."""

    def __init__(
        self, registry: registries.Registry, view: View, *, leads: Callable[[], bool], now_us: Callable[[], int]
    ) -> None:
        self._registry, self._view, self._leads, self._now_us = registry, view, leads, now_us
        self._correlator = Correlator()
        self._queue: deque[tuple[Said, str]] = deque()
        self._bell = asyncio.Event()
        self.untold = 0  # since the start: found the queue full, or the API away
        self._full = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, said: Said, actor: str) -> None:
        """Returns at once.  ``actor``: who tells it."""
        if len(self._queue) >= QUEUED_MAX:
            self.untold += 1
            if not self._full:  # once, until it has been empty again
                self._full = True
                logger.warning(
                    "controllers.events_dropped", queued=QUEUED_MAX, object=str(said.about.key), reason=said.reason
                )
            return
        self._queue.append((said, actor))
        self._bell.set()

    async def run(self) -> None:
        while True:
            while not self._queue:
                self._full = False
                self._bell.clear()
                await self._bell.wait()
            said, actor = self._queue.popleft()
            taken = self._correlator.take(said, self._now_us())
            if taken is None:
                continue
            try:
                await self._write(*taken, actor)
            except Exception as e:  # beside the controllers: never their end
                self.untold += 1
                logger.error("controllers.event_failed", object=str(said.about.key), reason=repr(e))
            await asyncio.sleep(PACE_S)

    async def _write(self, said: Said, series: str, actor: str) -> None:
        for tried in range(TRIES_MAX):
            if not self._leads():
                return
            words = (said.about, said.reason, said.message, self._now_us(), said.component)
            outcome: api.Outcome | None = None
            for write in events.tell(self._view, *words, kind=said.type, say_us=0, series=series):
                outcome = await api.execute(self._registry, write, actor)
            away = isinstance(outcome, api.Unreachable) and not outcome.denied
            if not away and not isinstance(outcome, api.Stale):
                return  # told; or not let in: its namespace is going, or is full
            if tried + 1 < TRIES_MAX:
                await asyncio.sleep(RETRY_S)
        self.untold += 1
        logger.debug("controllers.event_untold", object=str(said.about.key), reason=said.reason)
