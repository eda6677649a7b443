"""One mapper process: a driver by its protocol's name, the engine, and the node's own bus.

Drivers of others are found by their packaging: an entry point of the group ``skerry.drivers`` whose name is the protocol and
whose object is the Driver class.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points

import structlog

from bus.connect import ConnectSettings, connect
from bus.publisher import Publisher, PublisherSettings
from mappers.driver import Driver
from mappers.engine import Engine
from mappers.local import BusDaemon, BusSamples
from mappers.settings import Settings

log = structlog.get_logger(__name__)

ENTRY_POINTS = "skerry.drivers"
OURS = {"modbus": "mappers.modbus.driver:ModbusDriver", "virtual": "mappers.virtual.driver:VirtualDriver"}


class UnknownProtocol(Exception):
    """No driver of that name; the message names those that there are."""


def protocols() -> list[str]:
    """All protocols that a driver is installed for."""
    return sorted({*OURS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def driver_class(protocol: str) -> type[Driver]:
    """Imports only the driver asked for.  Raises UnknownProtocol."""
    found: object = None
    if protocol in OURS:
        module, _, name = OURS[protocol].partition(":")
        found = getattr(import_module(module), name)
    else:
        for entry in entry_points(group=ENTRY_POINTS, name=protocol):
            found = entry.load()
    if found is None:
        raise UnknownProtocol(f"there is no driver for {protocol!r}; there are {', '.join(protocols())}")
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise UnknownProtocol(f"the entry point of {protocol!r} is {found!r}, which is not a mappers.driver.Driver class")
    return found


async def run_mapper(
    protocol: str,
    bus: ConnectSettings,
    *,
    driver: type[Driver] | None = None,
    settings: Settings | None = None,
    publisher: PublisherSettings | None = None,
) -> None:
    """Runs until cancelled; then what was sampled is given ``settings.flush_s`` to arrive.

    ``bus`` is the node's leaf; with ``wait_s=None`` in it the mapper waits for the leaf for ever.  Raises UnknownProtocol;
    bus.connect.ConnectFailed."""
    make_driver = driver or driver_class(protocol)
    settings = settings or Settings()
    connection = await connect(bus)
    published = Publisher(connection, publisher)
    name = f"{protocol}@{socket.gethostname()}.{os.getpid()}"
    engine = Engine(
        make_driver,
        BusDaemon(connection, protocol, name, settings.bus_timeout_s),
        BusSamples(published),
        boot=f"{time.time_ns() // 1000:x}-{os.urandom(4).hex()}",
        wall_us=lambda: time.time_ns() // 1000,
        random=random.random,
        settings=settings,
    )
    publishing = asyncio.create_task(published.run(), name="mapper.publisher")
    log.info("mapper.started", protocol=protocol, name=name)
    try:
        await engine.run()
    finally:
        left = await published.flush(settings.flush_s)
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing
        await connection.close()
        log.info("mapper.stopped", protocol=protocol, unsent=left, dropped=published.stats.dropped)
