"""The rim of the twins core: the service of the daemon for mappers on the node's own bus.

    device.list            the devices of a protocol (not answered before the replica was loaded: an empty list would make
                           every mapper let go of its devices)
    device.twin            what a mapper saw
    device.changed.<p>     published when the list of protocol p is another one

What is persisted and what is reported go to the daemon in one call, because they belong into one transaction of its store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from bus import local
from bus.connect import Connection
from bus.stores.base import StoreError
from edge.core import twins
from edge.core.twins import Report
from schemas import codec, subjects
from schemas.devices import PAGE_BYTES_MAX, DeviceConfig, DeviceList, DeviceListRequest, TwinUpdate, TwinUpdateAnswer
from schemas.event import Event
from schemas.reports import TwinReport

log = structlog.get_logger(__name__)

STATE_PREFIX = twins.KEY_PREFIX  # of this service's keys in the store's ``state`` table


class Commit(Protocol):
    """Stores both or neither, durably, in one transaction of the node's store; then the reports are on their way.

    ``state_puts`` are keys of the ``state`` table, None removes.  A report goes to the subject
    ``subjects.report(node, "twin", shards, report.namespace, report.name)``, ``report.report`` is its data; ``cause`` and
    ``trace`` None: the report is the first event of its own chain.  Raises StoreError when nothing was stored."""

    def __call__(self, state_puts: Mapping[bytes, bytes | None], reports: Sequence[Report]) -> None: ...


class TwinsRim:
    """``records``: what the store's ``state`` table holds under STATE_PREFIX.

    Call ``object_applied`` for every Device and DeviceModel (other events are ignored) that is in the replica at start and
    for each change after its transaction, ``objects_loaded`` once after the first of these; both never wait and never
    raise.  ``run`` until cancelled or ``stop``."""

    def __init__(
        self,
        node: str,
        connection: Connection,
        records: Mapping[bytes, bytes],
        commit: Commit,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        mono_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._node = node
        self._connection = connection
        self._commit = commit
        self._wall_us = wall_us
        self._mono_us = mono_us
        self._core = twins.TwinsCore(node, records, mono_us())
        self._notices: dict[str, None] = {}
        self._tick_at: int | None = None
        self._wake = asyncio.Event()
        self._loaded = asyncio.Event()
        self._stopped = False
        for damage in self._core.damaged:
            log.warning("twins.record_damaged", record=damage)

    def object_applied(self, event: Event, seq: int) -> None:
        """A Device or DeviceModel as the replica has it now; ``seq`` is its place in the log, for the log line only."""
        self._handle_safely(twins.ObjectApplied(self._wall_us(), self._mono_us(), event), f"{event.key} at {seq}")

    def objects_loaded(self) -> None:
        self._handle_safely(twins.ObjectsLoaded(self._wall_us(), self._mono_us()), "all objects")
        self._loaded.set()

    def report_all(self) -> None:
        """Report every twin again: the log may have lost what it acknowledged."""
        self._handle_safely(twins.ReportAll(self._wall_us(), self._mono_us()), "all twins")

    def devices(self, protocol: str) -> list[DeviceConfig]:
        return self._core.devices(protocol)

    def twin(self, namespace: str, name: str) -> TwinReport | None:
        """The twin as it is on this node, newer than what was reported."""
        return self._core.twin(namespace, name)

    async def run(self) -> None:
        await self._loaded.wait()
        handlers: dict[str, local.Handler] = {
            subjects.LOCAL_DEVICES: self._on_list,
            subjects.LOCAL_TWIN_REPORT: self._on_twin,
        }
        async with local.listening(self._connection, handlers):
            while not self._stopped:
                self._wake.clear()
                await self._send_notices()
                wait_us = None if self._tick_at is None else self._tick_at - self._mono_us()
                if wait_us is not None and wait_us <= 0:
                    self._tick_at = None
                    self._handle_safely(twins.Tick(self._wall_us(), self._mono_us()), "a tick")
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if wait_us is None else wait_us / 1e6):
                        await self._wake.wait()

    async def stop(self) -> None:
        self._stopped = True
        self._loaded.set()
        self._wake.set()

    # --- the core's instructions -----------------------------------------------------------------------------------

    def _handle(self, stimulus: twins.Stimulus) -> TwinUpdateAnswer | None:
        answer: TwinUpdateAnswer | None = None
        puts: dict[bytes, bytes | None] = {}
        reports: list[Report] = []
        devices: list[twins.Key] = []
        for instruction in self._core.handle(stimulus):
            match instruction:
                case twins.PersistTwin(device=device, key=key, value=value):
                    puts[key] = value
                    devices.append(device)
                case twins.Report():
                    reports.append(instruction)
                case twins.NotifyChanged(protocol=protocol):
                    self._notices[protocol] = None
                    self._wake.set()
                case twins.SetTimer(at_mono_us=at):
                    self._tick_at = at
                    self._wake.set()
                case twins.Answer(answer=answer):
                    pass
        if puts or reports:
            failure = self._store(puts, reports, devices)
            if failure and answer is not None:
                return TwinUpdateAnswer(ok=False, message=failure)
        return answer

    def _handle_safely(self, stimulus: twins.Stimulus, about: str) -> None:
        try:
            self._handle(stimulus)
        except Exception:  # a bug about one device must end neither the daemon nor its containers: said, the rest goes on
            log.exception("twins.failed", about=about)

    def _store(self, puts: Mapping[bytes, bytes | None], reports: Sequence[Report], devices: Sequence[twins.Key]) -> str:
        """Why it could not be stored; "" when it was."""
        try:
            self._commit(puts, reports)
        except StoreError as e:
            log.warning("twins.not_stored", devices=["/".join(key) for key in devices], error=str(e))
            self._handle(twins.CommitFailed(self._wall_us(), self._mono_us(), tuple(devices)))
            return f"the twin could not be stored: {e}"
        return ""

    async def _send_notices(self) -> None:
        """A lost notice costs a mapper's refresh interval, so it isn't tried again."""
        for protocol in list(self._notices):
            del self._notices[protocol]
            with suppress(local.BusUnavailable):
                await local.tell(self._connection, subjects.local_devices_changed(protocol))

    # --- the bus ---------------------------------------------------------------------------------------------------

    async def _on_list(self, _subject: str, payload: bytes) -> bytes | None:
        try:
            request = codec.decode_as(DeviceListRequest, payload)
        except codec.DecodeError as e:
            log.warning("twins.bad_request", subject=subjects.LOCAL_DEVICES, error=str(e))
            return None
        page: list[DeviceConfig] = []
        size, more = 0, False
        after = tuple(request.after.split("/", 1)) if request.after else ("", "")
        for config in self._core.devices(request.protocol):
            if (config.namespace, config.name) <= after:
                continue
            size += len(codec.encode(config))
            if page and size > PAGE_BYTES_MAX:
                more = True
                break
            page.append(config)
        return codec.encode(DeviceList(node=self._node, devices=page, more=more))

    async def _on_twin(self, _subject: str, payload: bytes) -> bytes | None:
        try:
            update = codec.decode_as(TwinUpdate, payload)
        except codec.DecodeError as e:
            return codec.encode(TwinUpdateAnswer(ok=False, message=str(e)))
        answer = self._handle(twins.TwinUpdated(self._wall_us(), self._mono_us(), update))
        assert answer is not None, "the core answers every update"
        return codec.encode(answer)
