"""The rest of the node in memory: a daemon and a telemetry stream for the conformance suite and for a driver's own tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from mappers.local import DaemonUnavailable
from schemas.devices import DeviceConfig, DeviceList, TwinUpdate, TwinUpdateAnswer
from schemas.reports import Hop, TwinValue
from schemas.telemetry import Sample


class MemoryDaemon:
    """Lists what ``set_devices`` gave it and keeps what mappers report; ``available`` False: nobody answers."""

    def __init__(self, node: str = "edge-1") -> None:
        self.node = node
        self.available = True
        self.updates: list[TwinUpdate] = []
        self.states: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self.twins: dict[tuple[str, str], TwinValue] = {}
        self.hops: list[Hop] = []
        self._devices: list[DeviceConfig] = []
        self._watchers: list[Callable[[], None]] = []

    def set_devices(self, *devices: DeviceConfig, notify: bool = True) -> None:
        self._devices = list(devices)
        if notify:
            for watcher in self._watchers:
                watcher()

    def watching(self, changed: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def context() -> AsyncIterator[None]:
            self._watchers.append(changed)
            try:
                yield
            finally:
                self._watchers.remove(changed)

        return context()

    async def devices(self) -> DeviceList:
        if not self.available:
            raise DaemonUnavailable("the daemon is away")
        return DeviceList(node=self.node, devices=list(self._devices))

    async def report(self, update: TwinUpdate) -> TwinUpdateAnswer:
        if not self.available:
            raise DaemonUnavailable("the daemon is away")
        known = any((d.namespace, d.name, d.uid) == (update.namespace, update.device, update.uid) for d in self._devices)
        if not known:
            return TwinUpdateAnswer(ok=False, known=False, message="not in the list")
        self.updates.append(update)
        self.states[update.device], self.messages[update.device] = update.state, update.message
        self.twins.update({(update.device, v.property): v for v in update.values})
        self.hops.extend(update.hops)
        return TwinUpdateAnswer(ok=True)


class MemorySamples:
    """Every sample by subject, in order."""

    def __init__(self) -> None:
        self.by_subject: dict[str, list[Sample]] = {}

    def offer(self, subject: str, sample: Sample) -> None:
        self.by_subject.setdefault(subject, []).append(sample)
