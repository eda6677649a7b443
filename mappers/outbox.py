"""What the daemon must still be told about twins: the latest per property, and a sign of life.

State, not history: while the daemon is away only the last value of each property is kept (that is what bounds it), and
nothing is lost by that, because a twin is what is, not what was.  The history is the telemetry's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from mappers.local import Daemon, DaemonUnavailable
from mappers.plan import Key
from mappers.schedule import Backoff
from mappers.settings import Settings
from schemas.devices import DeviceConfig, DeviceState, TwinUpdate
from schemas.reports import Hop, TwinValue

log = structlog.get_logger(__name__)

HOPS_MAX = 16  # of one update: the steps of a few writes


@dataclass(slots=True)
class _Device:
    uid: str
    state: DeviceState = "unknown"
    message: str = ""
    values: dict[str, TwinValue] = field(default_factory=dict)
    hops: list[Hop] = field(default_factory=list)
    dirty: bool = False
    told_at: float = 0.0


class TwinOutbox:
    """``unknown`` is called when the daemon doesn't know a device: the list is old."""

    def __init__(
        self, daemon: Daemon, boot: str, settings: Settings, random: Callable[[], float], unknown: Callable[[], None]
    ) -> None:
        self._daemon = daemon
        self._boot = boot
        self._settings = settings
        self._unknown = unknown
        self._backoff = Backoff(settings.list_first_s, settings.list_cap_s, random)
        self._devices: dict[Key, _Device] = {}
        self._seq = 0
        self._wake = asyncio.Event()

    def put(
        self,
        config: DeviceConfig,
        state: DeviceState,
        message: str,
        values: Iterable[TwinValue] = (),
        hops: Iterable[Hop] = (),
    ) -> None:
        key = (config.namespace, config.name)
        device = self._devices.get(key)
        if device is None or device.uid != config.uid:
            device = self._devices[key] = _Device(config.uid)
            device.dirty = True
        before = (device.state, device.message)
        device.state, device.message = state, message
        device.values.update((v.property, v) for v in values)
        device.hops = (device.hops + list(hops))[-HOPS_MAX:]
        device.dirty = device.dirty or bool(device.values) or before != (state, message)
        if device.dirty:
            self._wake.set()

    def forget(self, key: Key) -> None:
        self._devices.pop(key, None)

    async def run(self) -> None:
        while True:
            self._wake.clear()
            try:
                for key in list(self._devices):
                    await self._tell_if_due(key)
            except DaemonUnavailable as e:
                if not self._backoff.failures:
                    log.warning("mapper.daemon_lost", error=str(e))
                await asyncio.sleep(self._backoff.next_s())
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_heartbeat()):
                    await self._wake.wait()

    def _until_heartbeat(self) -> float:
        now = asyncio.get_running_loop().time()
        oldest = min((d.told_at for d in self._devices.values()), default=now)
        return max(0.0, oldest + self._settings.heartbeat_s - now)

    async def _tell_if_due(self, key: Key) -> None:
        now = asyncio.get_running_loop().time()
        device = self._devices.get(key)
        if device is None or not (device.dirty or now - device.told_at >= self._settings.heartbeat_s):
            return
        values, hops = device.values, device.hops
        device.values, device.hops, device.dirty = {}, [], False
        self._seq += 1
        update = TwinUpdate(
            namespace=key[0],
            device=key[1],
            uid=device.uid,
            boot=self._boot,
            seq=self._seq,
            state=device.state,
            message=device.message,
            values=list(values.values()),
            hops=hops,
        )
        try:
            answer = await self._daemon.report(update)
        except DaemonUnavailable:
            self._put_back(device, values, hops)
            raise
        if self._backoff.failures:
            log.info("mapper.daemon_back")
            self._backoff.reset()
        device.told_at = asyncio.get_running_loop().time()
        if not answer.known:
            self._unknown()
        elif not answer.ok:
            # Asked again with the next heartbeat: the daemon's disk may be full, which takes longer than a retry.
            log.warning("mapper.twin_refused", device="/".join(key), message=answer.message)
            self._put_back(device, values, hops)
            device.dirty = False

    def _put_back(self, device: _Device, values: dict[str, TwinValue], hops: list[Hop]) -> None:
        device.values = {**values, **device.values}
        device.hops = (hops + device.hops)[-HOPS_MAX:]
        device.dirty = True
