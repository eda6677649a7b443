"""Desired values to the device: write, read back, and only then say that it is so.

A desired value is written when it changes, and when the device was (re)connected and shows another one: a device that lost
its set-point in a power cut gets it back.  Between those times a value that somebody set at the device itself is left alone
and shows as the difference of desired and reported: a mapper that fought with a person would win.

A refused write is tried again with backoff, a bounded number of times; a value that can never be written (out of range, not
a number) isn't tried at all.  Either way the reason is told.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from mappers.driver import BadValue, PropertyError
from mappers.plan import Point
from mappers.schedule import Backoff
from mappers.settings import Settings
from mappers.values import Measured, convert, parse_desired, same
from schemas.reports import Hop
from schemas.telemetry import Value

log = structlog.get_logger(__name__)

Write = Callable[[Point, Value], Awaitable[Value]]
ReadBack = Callable[[Point], Awaitable[Measured]]


@dataclass(slots=True)
class _Target:
    point: Point
    backoff: Backoff
    desired: str | None = None
    written: str | None = None
    failure: str = ""
    due_at: float = math.inf
    unsure: bool = False  # (re)connected: the device may hold it already
    tries: int = 0
    told_us: int = field(default=0)


class Writer:
    def __init__(self, settings: Settings, wall_us: Callable[[], int], random: Callable[[], float]) -> None:
        self._settings = settings
        self._wall_us = wall_us
        self._random = random
        self._targets: dict[str, _Target] = {}
        self._told_us = wall_us()

    def told(self, time_us: int) -> None:
        """The list of devices was changed at this time."""
        self._told_us = time_us

    def adopt(self, points: Mapping[str, Point], *, fresh: bool) -> None:
        """The properties as they are now; ``fresh`` after a (re)connection."""
        targets = {}
        for name, point in points.items():
            target = self._targets.get(name)
            if target is None:
                backoff = Backoff(self._settings.write_first_s, self._settings.write_cap_s, self._random)
                target = _Target(point, backoff, unsure=True)
            target.point = point
            desired = point.property.desired if point.property.writable else None
            if fresh or desired != target.desired:
                target.desired, target.failure, target.tries = desired, "", 0
                target.unsure = fresh or target.unsure
                target.due_at = math.inf if desired is None else 0.0
                target.told_us = self._told_us
                target.backoff.reset()
            targets[name] = target
        self._targets = targets

    def seen(self, name: str, measured: Measured) -> None:
        """A reading: after a (re)connection it may show that nothing needs to be written."""
        target = self._targets[name]
        if not target.unsure:
            return
        target.unsure = False
        if target.desired is None or math.isinf(target.due_at):
            return
        try:
            wanted = parse_desired(target.desired, target.point.property)
        except BadValue:
            return  # said when its turn to be written comes
        if same(measured.value, wanted):
            target.written, target.due_at = target.desired, math.inf

    def written(self, name: str) -> str | None:
        """The desired value, as in the manifest, that the device was last seen to have taken."""
        return self._targets[name].written

    def failure(self, name: str) -> str:
        return self._targets[name].failure

    def due(self, now: float) -> list[str]:
        return [name for name, target in self._targets.items() if target.due_at <= now]

    def next_at(self) -> float:
        return min((target.due_at for target in self._targets.values()), default=math.inf)

    async def write(self, name: str, write: Write, read_back: ReadBack) -> tuple[Measured | None, list[Hop]]:
        """One try: what was read back, and the steps with their times.  Raises DeviceUnreachable (from the two calls)."""
        target = self._targets[name]
        text, point = target.desired, target.point
        assert text is not None
        target.unsure = False
        target.due_at = 0.0  # stays due if the device is lost on the way
        try:
            wanted = parse_desired(text, point.property)
            shown = convert(await write(point, wanted), point.property)
        except BadValue as e:
            self._failed(target, str(e), for_good=True)
            return None, []
        except PropertyError as e:
            self._failed(target, e.reason)
            return None, []
        hops = [
            Hop(what="mapper.told", time=target.told_us, about=f"{name}={text}"),
            Hop(what="device.written", time=self._wall_us(), about=f"{name}={text}"),
        ]
        seen = await self._until_shown(point, shown, read_back)
        if same(seen.value, shown):
            target.written, target.failure, target.due_at, target.tries = text, "", math.inf, 0
            target.backoff.reset()
            return seen, [*hops, Hop(what="device.read-back", time=self._wall_us(), about=f"{name}={seen.value!r}")]
        why = f"reads back {seen.value!r}" if seen.value is not None else f"can't be read back: {seen.reason}"
        self._failed(target, f"written, but {why}")
        return seen, hops

    async def _until_shown(self, point: Point, shown: Value, read_back: ReadBack) -> Measured:
        seen = await read_back(point)
        for _ in range(self._settings.readback_tries - 1):
            if same(seen.value, shown):
                break
            await asyncio.sleep(self._settings.readback_wait_s)
            seen = await read_back(point)
        return seen

    def _failed(self, target: _Target, why: str, *, for_good: bool = False) -> None:
        target.tries += 1
        given_up = for_good or target.tries >= self._settings.write_tries
        tries = "" if for_good else f" (try {target.tries} of {self._settings.write_tries})"
        target.failure = f"desired {target.desired} is not written{tries}: {why}"
        now = asyncio.get_running_loop().time()
        target.due_at = math.inf if given_up else now + target.backoff.next_s()
        log.warning("mapper.write_failed", property=target.point.property.name, why=target.failure, given_up=given_up)
