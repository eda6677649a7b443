"""How the engine meets the rest of the node, as two small interfaces, and the real ones over the local bus.

The engine's tests and the conformance suite put memory in their place (``mappers/memory.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from pydantic import BaseModel

from bus import local
from bus.connect import Connection
from bus.publisher import Publisher
from schemas import codec, subjects
from schemas.devices import DeviceConfig, DeviceList, DeviceListRequest, TwinUpdate, TwinUpdateAnswer
from schemas.telemetry import Sample

M = TypeVar("M", bound=BaseModel)


class DaemonUnavailable(Exception):
    """The daemon could not be asked; whether it took an update is unknown, and sending it again is harmless."""


class Daemon(Protocol):
    """The edge daemon as a mapper sees it."""

    def watching(self, changed: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """While in this context, ``changed`` is called whenever the list may be another one."""

    async def devices(self) -> DeviceList:
        """Raises DaemonUnavailable."""

    async def report(self, update: TwinUpdate) -> TwinUpdateAnswer:
        """Raises DaemonUnavailable."""


class Samples(Protocol):
    def offer(self, subject: str, sample: Sample) -> None:
        """Never waits, never fails; what is dropped shows as a gap in ``sample.seq``."""


class BusDaemon:
    """The daemon behind ``device.list`` and ``device.twin``."""

    def __init__(self, connection: Connection, protocol: str, mapper: str, timeout_s: float) -> None:
        self._connection = connection
        self._protocol = protocol
        self._request = DeviceListRequest(protocol=protocol, mapper=mapper)
        self._timeout_s = timeout_s

    def watching(self, changed: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        async def on_notice(_subject: str, _payload: bytes) -> None:
            changed()

        notice = subjects.local_devices_changed(self._protocol)
        return local.listening(self._connection, {notice: on_notice}, again=changed)

    async def devices(self) -> DeviceList:
        found: list[DeviceConfig] = []
        request = self._request
        while True:
            page = await self._ask(subjects.LOCAL_DEVICES, request, DeviceList)
            found.extend(page.devices)
            if not page.more or not page.devices:
                return DeviceList(node=page.node, devices=found)
            last = page.devices[-1]
            request = request.model_copy(update={"after": f"{last.namespace}/{last.name}"})

    async def report(self, update: TwinUpdate) -> TwinUpdateAnswer:
        return await self._ask(subjects.LOCAL_TWIN_REPORT, update, TwinUpdateAnswer)

    async def _ask(self, subject: str, question: BaseModel, answer: type[M]) -> M:
        try:
            data = await local.ask(self._connection, subject, codec.encode(question), self._timeout_s)
            return codec.decode_as(answer, data)
        except local.BusUnavailable as e:
            raise DaemonUnavailable(str(e)) from e
        except codec.CodecError as e:
            raise DaemonUnavailable(f"asking {subject}: {e}") from e


class BusSamples:
    """Telemetry into the leaf's stream."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def offer(self, subject: str, sample: Sample) -> None:
        self._publisher.offer(subject, codec.encode(sample), f"{subject}:{sample.boot}:{sample.seq}")
