"""The engine: everything about devices that is the same for every protocol.

One engine runs one protocol on one node.  It keeps a DeviceRunner (``device.py``) for each device of the daemon's list and
changes them as the list changes, without a restart:

    list of devices  ->  runners  ->  samples  ->  the leaf's TELEMETRY stream
                                  ->  twins    ->  the daemon (``outbox.py``)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from mappers.device import DeviceRunner
from mappers.driver import Driver
from mappers.local import Daemon, DaemonUnavailable, Samples
from mappers.outbox import TwinOutbox
from mappers.plan import Key, difference
from mappers.schedule import Backoff
from mappers.settings import Settings
from mappers.values import Measured
from schemas import subjects
from schemas.devices import DeviceConfig, DeviceList, DeviceState
from schemas.reports import Hop, TwinValue
from schemas.telemetry import Sample

log = structlog.get_logger(__name__)


class Engine:
    """``run`` until cancelled.  ``boot`` names this run of the mapper and must be new each time: sample and twin sequences
    start at 1 with it."""

    def __init__(
        self,
        make_driver: Callable[[], Driver],
        daemon: Daemon,
        samples: Samples,
        *,
        boot: str,
        wall_us: Callable[[], int],
        random: Callable[[], float],
        settings: Settings | None = None,
    ) -> None:
        self._make_driver = make_driver
        self._daemon = daemon
        self._samples = samples
        self._boot = boot
        self._wall_us = wall_us
        self._random = random
        self._settings = settings or Settings()
        self._changed = asyncio.Event()
        self._outbox = TwinOutbox(daemon, boot, self._settings, random, unknown=self._changed.set)
        self._node = ""
        self._runners: dict[Key, DeviceRunner] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        # For as long as this run lives, also over a device's removal and return: a sequence never starts twice in a boot.
        self._sequences: dict[tuple[str, str, str], int] = {}

    async def run(self) -> None:
        outbox = asyncio.create_task(self._outbox.run(), name="mapper.outbox")
        try:
            async with self._daemon.watching(self._changed.set):
                while True:
                    self._changed.clear()
                    await self._apply(await self._list())
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._settings.refresh_s):
                            await self._changed.wait()
        finally:
            await _end([outbox, *self._tasks.values()])
            self._tasks.clear()
            self._runners.clear()

    async def _list(self) -> DeviceList:
        backoff = Backoff(self._settings.list_first_s, self._settings.list_cap_s, self._random)
        while True:
            try:
                return await self._daemon.devices()
            except DaemonUnavailable as e:
                if not backoff.failures:
                    log.warning("mapper.no_device_list", error=str(e))
                await asyncio.sleep(backoff.next_s())

    async def _apply(self, listed: DeviceList) -> None:
        self._node = listed.node
        change = difference({key: runner.config for key, runner in self._runners.items()}, listed.devices)
        for key in [*change.gone, *((c.namespace, c.name) for c in change.again)]:
            await self._drop(key)
        for config in change.again:
            self._start(config)
        for config in change.changed:
            self._runners[config.namespace, config.name].update(config)

    def _start(self, config: DeviceConfig) -> None:
        key = (config.namespace, config.name)
        runner = DeviceRunner(
            config, self._make_driver, self, settings=self._settings, wall_us=self._wall_us, random=self._random
        )
        self._runners[key] = runner
        self._tasks[key] = asyncio.create_task(runner.run(), name=f"mapper.device.{'/'.join(key)}")
        log.info("mapper.device_added", device="/".join(key))

    async def _drop(self, key: Key) -> None:
        task = self._tasks.pop(key, None)
        if task is None:
            return
        await _end([task])
        del self._runners[key]
        self._outbox.forget(key)
        log.info("mapper.device_removed", device="/".join(key))

    # --- the runners' outlet ---------------------------------------------------------------------------------------

    def sample(self, config: DeviceConfig, property: str, measured: Measured, time_us: int) -> None:
        key = (config.namespace, config.name, property)
        seq = self._sequences[key] = self._sequences.get(key, 0) + 1
        sample = Sample(
            value=measured.value, quality=measured.quality, reason=measured.reason, time=time_us, seq=seq, boot=self._boot
        )
        self._samples.offer(subjects.telemetry(self._node, config.namespace, config.name, property), sample)

    def twin(
        self,
        config: DeviceConfig,
        state: DeviceState,
        message: str,
        values: Iterable[TwinValue] = (),
        hops: Iterable[Hop] = (),
    ) -> None:
        self._outbox.put(config, state, message, values, hops)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("mapper.task_failed", error=f"{type(outcome).__name__}: {outcome}")
