"""What commands share: options with the same meaning everywhere, and running something until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import getpass
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bus.connect import Connection, ConnectSettings
    from bus.hub.init import Hub
    from bus.log import Log

T = TypeVar("T")

HUB_DIR = Path("/var/lib/skerry/hub")
CLOUD_DIR = Path("/var/lib/skerry/cloud")
EDGE_DIR = Path("/var/lib/skerry/edge")
HUB_WAIT_S = 10.0  # a hub that runs answers at once; a command should not hang on one that doesn't

_folder = click.Path(file_okay=False, path_type=Path)


def hub_option(f: Callable[..., Any]) -> Callable[..., Any]:
    """``--hub``: commands that work on the hub need its folder, which has the keys."""
    return click.option(
        "--hub",
        "hub_dir",
        type=_folder,
        default=HUB_DIR,
        envvar="SKERRY_HUB",
        show_default=True,
        help="The hub's folder, from `skerry hub init`.",
    )(f)


def data_option(default: Path, what: str, envvar: str = "SKERRY_DATA") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--data",
        "data_dir",
        type=_folder,
        default=default,
        envvar=envvar,
        show_default=True,
        help=f"Folder of {what}.",
    )


def json_option(f: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="JSON for scripts instead of text for people.")(f)


def is_async(f: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """A click command from a coroutine function: SIGINT and SIGTERM cancel it, so that it ends what it began."""

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        return asyncio.run(until_signal(f(*args, **kwargs)))

    return wrapper


async def until_signal(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if stopped:
            raise SystemExit(0) from None  # asked to end, and ended: what systemd and people call success
        raise
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sig)


@contextlib.asynccontextmanager
async def hub_log(
    hub_dir: Path, name: str, *, wait_s: float | None = HUB_WAIT_S
) -> AsyncIterator[tuple[Hub, Connection, Log]]:
    """The hub in a folder, a CORE connection to it, and its log.  Raises HubError, ConnectFailed after ``wait_s``."""
    from bus import connect, log
    from bus.hub import init

    hub = init.load_hub(hub_dir)
    settings = connect.ConnectSettings(
        urls=tuple(hub.urls), name=name, credentials=hub.core_creds, ca=hub.ca_path, wait_s=wait_s
    )
    connection = await connect.connect(settings)
    try:
        store = log.Log(connection)
        try:
            yield hub, connection, store
        finally:
            await store.close()
    finally:
        await connection.close()


def sys_settings(hub: Hub, name: str, *, wait_s: float | None = HUB_WAIT_S) -> ConnectSettings:
    """How to connect as the hub's own account: revocations, and what the server tells of itself."""
    from bus import connect

    return connect.ConnectSettings(urls=tuple(hub.urls), name=name, credentials=hub.sys_creds, ca=hub.ca_path, wait_s=wait_s)


async def forever(alive: Callable[[], Awaitable[None]] | None = None) -> None:
    """Tells systemd that we are ready and alive, until cancelled; ``alive`` is awaited at each beat: if it hangs, we do."""
    from edge import sd_notify

    sd_notify.notify("READY=1")
    period = (sd_notify.watchdog_s() or 30.0) / 3
    while True:
        if alive is not None:
            await alive()
        sd_notify.notify("WATCHDOG=1")
        await asyncio.sleep(period)


def replaced(settings: T, **values: Any) -> T:
    """A frozen dataclass with those values that were given (not None)."""
    return dataclasses.replace(settings, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


def actor() -> str:
    """Who runs this command, for the audit log."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user id without a name, in a container
        return f"uid {os.getuid()}@{socket.gethostname()}"


_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


def duration_s(text: str) -> int:
    """``30m``, ``24h``, ``7d`` in seconds; raises BadParameter."""
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if found is None:
        raise click.BadParameter(f"{text!r}: write it as 30m, 24h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]
