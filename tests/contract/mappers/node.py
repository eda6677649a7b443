"""A node in small for mapper tests: a real nats-server as its local bus, the twins service over a store, a mapper."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bus.connect import Connection, connect
from bus.stores.base import StoreFull
from bus.stores.lmdb_store import LmdbStore
from edge.core.twins import Report
from edge.twins import STATE_PREFIX, TwinsRim
from mappers.conformance import FAST
from mappers.run import run_mapper
from schemas import codec, subjects
from schemas.event import OBJECT_APPLIED, OBJECT_DELETED, Event, uuid7
from schemas.reports import TwinReport
from schemas.telemetry import Sample
from tests.contract.mappers.leaf import NODE, Leaf

WAIT_S = 30.0


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(what: str, true: Callable[[], bool], told: Callable[[], object] = lambda: "") -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not true():
                await asyncio.sleep(0.02)
    except TimeoutError as e:
        raise AssertionError(f"not within {WAIT_S:g} s: {what}; {told()}") from e


async def make_telemetry(connection: Connection, **more: Any) -> None:
    config = {"name": "TELEMETRY", "subjects": [subjects.telemetry_node(NODE)], "storage": "file", **more}
    answer = await connection.client.request("$JS.API.STREAM.CREATE.TELEMETRY", json.dumps(config).encode(), timeout=10)
    assert "error" not in json.loads(answer.data), answer.data


async def stored(connection: Connection) -> list[tuple[str, bytes]]:
    """Every message of the TELEMETRY stream, in order."""
    js = connection.client.jetstream()
    info = await js.stream_info("TELEMETRY")
    found = []
    for seq in range(info.state.first_seq, info.state.last_seq + 1):
        message = await js.get_msg("TELEMETRY", seq)
        found.append((message.subject or "", message.data or b""))
    return found


async def samples(connection: Connection, prop: str, device: str = "boiler") -> list[Sample]:
    wanted = subjects.telemetry(NODE, "default", device, prop)
    return [codec.decode_as(Sample, data) for subject, data in await stored(connection) if subject == wanted]


class Daemon:
    """The part of the edge daemon that mappers see; ``store`` outlives it."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.store = LmdbStore(folder)
        self.full = False
        self.reports: list[Report] = []
        records = dict(self.store.items("state", STATE_PREFIX))
        self.rim = TwinsRim(NODE, connection, records, self._commit)
        self._seq = 0

    def _commit(self, state_puts: Mapping[bytes, bytes | None], reports: Sequence[Report]) -> None:
        if self.full:
            raise StoreFull("the disk is full (by this test)")
        with self.store.transact() as txn:
            for key, value in state_puts.items():
                if value is None:
                    txn.delete("state", key)
                else:
                    txn.put("state", key, value)
        self.reports.extend(reports)

    def apply(self, resource: str, name: str, data: dict[str, Any] | None, uid: str = "uid-1") -> Event:
        self._seq += 1
        ident = uuid7(time.time_ns() // 1000, self._seq.to_bytes(10, "big"))
        event = Event(
            id=ident,
            type=OBJECT_APPLIED if data is not None else OBJECT_DELETED,
            scope=NODE,
            group="devices.kubeedge.io",
            resource=resource,
            namespace="default",
            name=name,
            uid=uid,
            time=time.time_ns() // 1000,
            source="test@0",
            trace=ident,
            data=data,
        )
        self.rim.object_applied(event, self._seq)
        return event

    def last(self, name: str = "boiler") -> TwinReport | None:
        found = [r.report for r in self.reports if r.name == name]
        return found[-1] if found else None

    def twin(self, prop: str, name: str = "boiler") -> Any:
        twin = self.rim.twin("default", name)
        return next((v for v in twin.twins if v.property == prop), None) if twin else None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self.rim.objects_loaded()
        try:
            async with running(self.rim.run()):
                yield
        finally:
            self.store.close()


@asynccontextmanager
async def daemon(
    server: Leaf, folder: Path, initial: Callable[[Daemon], object] = lambda _daemon: None
) -> AsyncIterator[Daemon]:
    """``initial`` applies what is in the replica when the daemon starts."""
    connection = await connect(server.settings("daemon", "daemon"))
    try:
        made = Daemon(connection, folder)
        initial(made)
        async with made.serving():
            yield made
    finally:
        await connection.close()


@asynccontextmanager
async def mapper(server: Leaf, protocol: str = "modbus") -> AsyncIterator[None]:
    async with running(run_mapper(protocol, server.settings("mapper", "mapper", wait_s=None), settings=FAST)):
        yield
