"""One device: connect, poll, write what is desired, and start again when it is lost.  One task each, so that a slow or
dead device delays nobody else."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import structlog

from bus.connect import keep_cancellation
from mappers import plan as plans
from mappers.driver import ConfigError, DeviceUnreachable, Driver, PropertyError, Reading
from mappers.plan import Plan, Point
from mappers.schedule import Backoff, Schedule
from mappers.settings import Settings
from mappers.tracking import Tracked
from mappers.values import Measured, measure
from mappers.writing import Writer
from schemas.devices import DeviceConfig, DeviceState
from schemas.reports import Hop, TwinValue
from schemas.telemetry import Value

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Outlet(Protocol):
    """Where a device's news go; neither call waits or fails."""

    def sample(self, config: DeviceConfig, property: str, measured: Measured, time_us: int) -> None: ...

    def twin(
        self,
        config: DeviceConfig,
        state: DeviceState,
        message: str,
        values: Iterable[TwinValue] = (),
        hops: Iterable[Hop] = (),
    ) -> None: ...


class DeviceRunner:
    """``update`` at any time; ``run`` until cancelled."""

    def __init__(
        self,
        config: DeviceConfig,
        make_driver: Callable[[], Driver],
        outlet: Outlet,
        *,
        settings: Settings,
        wall_us: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self._config = config
        self._make_driver = make_driver
        self._outlet = outlet
        self._settings = settings
        self._wall_us = wall_us
        self._backoff = Backoff(settings.reconnect_first_s, settings.reconnect_cap_s, random)
        self._changed = asyncio.Event()
        self._tracked: dict[str, Tracked] = {}
        self._writer = Writer(settings, wall_us, random)
        self._state: DeviceState = "unknown"
        self._message = ""
        self._told_at_us = wall_us()

    @property
    def config(self) -> DeviceConfig:
        return self._config

    def update(self, config: DeviceConfig) -> None:
        assert config.uid == self._config.uid, "a device of another uid is another runner"
        self._config = config
        self._writer.told(self._wall_us())
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            config, driver = self._config, self._make_driver()
            try:
                plan = plans.make(config, driver)
            except ConfigError as e:
                self._lost(str(e), ())
                await self._changed.wait()
                continue
            if await self._once(driver, config, plan):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._backoff.next_s()):
                        await self._changed.wait()

    async def _once(self, driver: Driver, config: DeviceConfig, plan: Plan) -> bool:
        """One connection from beginning to end; whether it ended by a failure."""
        try:
            await _limited(driver.connect(plan.device), self._settings.connect_timeout_s)
            await self._session(driver, config, plan)
        except DeviceUnreachable as e:
            self._lost(str(e), plan.points)
        except Exception as e:  # a driver's bug must not end this device for ever: said, then tried again like a lost one
            log.exception("mapper.driver_bug", device=str(plan.device))
            self._lost(f"bug in the driver: {type(e).__name__}: {e}", plan.points)
        else:
            return False
        finally:
            with suppress(Exception):  # close() of a broken connection has nothing more to say than that
                await _limited(driver.close(), self._settings.close_timeout_s)
        return True

    async def _session(self, driver: Driver, config: DeviceConfig, plan: Plan) -> None:
        """Returns when the way to the device changed.  Raises DeviceUnreachable."""
        schedule = _schedule(plan)
        self._adopt(plan, fresh=True)
        if not plan.points:
            self._found([])
        while True:
            if self._changed.is_set():
                self._changed.clear()
                if plans.needs_reconnect(config, self._config):
                    return
                try:
                    config, plan = self._config, plans.make(self._config, driver)
                except ConfigError:
                    return  # said by run(), which tries the same
                if _cycles(plan) != schedule.cycles_ms:
                    schedule = _schedule(plan)
                self._adopt(plan, fresh=False)
            due = schedule.due(_now())
            if due:
                await self._poll(driver, [plan.points[name] for name in due])
                schedule.done(due, _now())
            await self._write(driver, plan)
            wake_at = min(schedule.next_at(), self._writer.next_at())
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(wake_at) else max(0.0, wake_at - _now())):
                    await self._changed.wait()

    def _adopt(self, plan: Plan, fresh: bool) -> None:
        """Takes over what is known of properties that stay, and says which can't be used."""
        self._tracked = {name: self._tracked.get(name) or Tracked(point) for name, point in plan.points.items()}
        for name, point in plan.points.items():
            self._tracked[name].point = point
        self._writer.adopt(plan.points, fresh=fresh)
        if plan.refused:
            now_us = self._wall_us()
            bad = [
                TwinValue(property=n, value=None, time=now_us, quality="bad", reason=why) for n, why in plan.refused.items()
            ]
            self._outlet.twin(self._config, self._state, self._message, bad)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, driver: Driver, points: Sequence[Point]) -> dict[str, Measured]:
        answers = await _limited(driver.read([p.spec for p in points]), self._settings.call_timeout_s)
        measured = {}
        for point in points:
            answer = answers.get(point.spec.name)
            if isinstance(answer, Reading):
                measured[point.spec.name] = measure(answer, point.property)
            else:
                why = answer.reason if isinstance(answer, PropertyError) else "the driver gave no answer for it"
                measured[point.spec.name] = Measured(None, "bad", why)
        return measured

    async def _poll(self, driver: Driver, points: Sequence[Point]) -> None:
        measured = await self._read(driver, points)
        now, now_us = _now(), self._wall_us()
        values: list[TwinValue] = []
        for name, one in measured.items():
            tracked = self._tracked[name]
            self._writer.seen(name, one)
            if tracked.sample_due(one, now):
                self._outlet.sample(self._config, name, one, now_us)
            tracked.seen(one, now_us)
            value = tracked.twin_due(now, self._writer.written(name), self._writer.failure(name))
            if value is not None:
                values.append(value)
        self._found(values)

    # --- writing ---------------------------------------------------------------------------------------------------

    async def _write(self, driver: Driver, plan: Plan) -> None:
        async def write(point: Point, value: Value) -> Value:
            return await _limited(driver.write(point.spec, value), self._settings.call_timeout_s)

        async def read_back(point: Point) -> Measured:
            return (await self._read(driver, [point]))[point.spec.name]

        for name in self._writer.due(_now()):
            seen, hops = await self._writer.write(name, write, read_back)
            tracked = self._tracked[name]
            if seen is not None:
                tracked.seen(seen, self._wall_us())
            self._found([tracked.twin(_now(), self._writer.written(name), self._writer.failure(name))], hops)

    # --- what is told ----------------------------------------------------------------------------------------------

    def _found(self, values: Iterable[TwinValue], hops: Iterable[Hop] = ()) -> None:
        if self._state != "online":
            log.info("mapper.device_online", device=f"{self._config.namespace}/{self._config.name}")
        self._backoff.reset()
        self._state, self._message = "online", ""
        self._outlet.twin(self._config, self._state, self._message, values, hops)

    def _lost(self, why: str, names: Iterable[str]) -> None:
        values: list[TwinValue] = []
        if self._state != "offline":
            log.warning("mapper.device_offline", device=f"{self._config.namespace}/{self._config.name}", why=why)
            now_us = self._wall_us()
            for name in names:
                self._outlet.sample(self._config, name, Measured(None, "bad", f"not reached: {why}"), now_us)
                tracked = self._tracked.get(name)
                if tracked is not None:
                    values.extend(tracked.lost(self._writer.written(name)))
        self._state, self._message = "offline", why
        self._outlet.twin(self._config, self._state, self._message, values)


async def _limited(call: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            answer = await call
    except TimeoutError as e:
        raise DeviceUnreachable(f"no answer within {seconds:g} s") from e
    keep_cancellation()  # libraries under a driver (pymodbus) wait with asyncio.wait_for
    return answer


def _cycles(plan: Plan) -> dict[str, int]:
    return {name: point.property.collect_cycle_ms for name, point in plan.points.items()}


def _schedule(plan: Plan) -> Schedule:
    return Schedule(_cycles(plan), _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
