"""Whether a nats-server can still write its streams.

After one write that failed, e.g. because the disk was full, nats-server takes nothing more into that stream until it is
started anew, also when there is room again; or it switches JetStream off as a whole.  It goes on greeting whoever connects,
and only its health check tells (``$SYS.REQ.SERVER.<id>.HEALTHZ``, tried on 2.15.1).  So who supervises it looks now
and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from pathlib import Path

import nats.errors

from bus import connect
from bus.hub import pulse

LOOK_EVERY_S = 15.0  # a mapper's publisher keeps minutes of samples meanwhile, an outbox days of reports
ASK_S_MAX = 5.0
SILENCES_MAX = 3  # questions in a row, of one that does nothing else meanwhile
ROOM_BYTES_MIN = 8 << 20  # with less, a start anew would fail at the same write
_BROKEN = ("write error", "JetStream not enabled")  # the server's words (server/monitor.go, healthz)


async def broken(
    host: str, port: int, pid: int, system: connect.ConnectSettings, folder: Path, every_s: float = LOOK_EVERY_S
) -> str:
    """Returns when this server takes no more writes and starting it anew can help, and says why.

    ``system``: how to connect as its system account.  ``folder`` is on the disk that must have room."""
    while True:
        await asyncio.sleep(every_s)
        since, worked, silences = time.monotonic(), pulse.cpu_s(pid), 0
        while (why := await write_error(host, port, system)) is None and silences < SILENCES_MAX:
            silences += 1
        if why is None:
            busy = pulse.cpu_s(pid) - worked > pulse.BUSY_SHARE * (time.monotonic() - since)
            why = "" if busy else f"its health check does not answer, asked {silences} times"
        if why and _room(folder):
            return why


async def write_error(host: str, port: int, system: connect.ConnectSettings) -> str | None:
    """ "" when all can be written, or when the server can't be reached: whether it is there at all is looked at elsewhere.
    None when it is there and does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError, nats.errors.Error, connect.ConnectFailed, connect.NotConnected):
        async with asyncio.timeout(ASK_S_MAX):
            server = (await pulse.greeting(host, port))["server_id"]
        connection = await connect.connect(system)
        try:
            subject = f"$SYS.REQ.SERVER.{server}.HEALTHZ"
            answer = await connection.request(subject, json.dumps({"details": True}).encode(), timeout_s=ASK_S_MAX)
        except nats.errors.TimeoutError:
            return None
        finally:
            await connection.close()
        errors = (json.loads(answer.data).get("data") or {}).get("errors") or []
        return next((str(e["error"]) for e in errors if any(words in str(e.get("error")) for words in _BROKEN)), "")
    return ""


def _room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free >= ROOM_BYTES_MIN
    except OSError:
        return False
