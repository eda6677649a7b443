"""A leaf's one link to the hub that is dead and does not know it: found by the kernel's own bookkeeping, and ended.

A cut is silent.  TCP sends again what was not acknowledged, each time after twice the wait, so a link whose cut has healed
stays dumb for as long again as the cut was (up to two minutes), and nats-server's own pings are as rare as metered links
want them.  A *new* connection is there a second after the heal.  So when the daemon's questions are not answered, we look
whether the leaf's socket is in the middle of retransmissions (proc(5), /proc/net/tcp): then the way is dead, and the leaf
is told to drop the connection.  It dials until there is a hub again.

This costs no traffic, and a cloud that is merely slow or gone, on a hub that answers TCP, makes nobody reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
import structlog

from bus import connect

log = structlog.get_logger("bus.hub.uplink")

RETRANSMITS_MIN = 2  # timeouts in a row without one acknowledgement; with 5 % loss one in four hundred
LOOK_S_MIN = 1.0
ASK_S_MAX = 3.0
_ESTABLISHED = "01"

Peer = tuple[str, int]


def dead_peers(tables: list[str], inodes: set[str]) -> set[Peer]:
    """(address, port) of the other ends of these sockets that are being retransmitted to.  ``tables``: the text of
    /proc/net/tcp and tcp6."""
    found = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            f = line.split()
            if len(f) > 9 and f[3] == _ESTABLISHED and f[9] in inodes and int(f[6], 16) >= RETRANSMITS_MIN:
                found.add(_peer(f[2]))
    return found


def _peer(text: str) -> Peer:
    """``0100007F:1F90``: each 32 bits of the address in the machine's own byte order."""
    address, _, port = text.partition(":")
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    ip = ipaddress.ip_address(b"".join(struct.pack("=I", w) for w in words))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip), int(port, 16)


def dead_peers_of(pid: int) -> set[Peer]:
    """Of a process, in its own network namespace; none when it may not be looked into."""
    inodes, tables = set(), []
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                inodes.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            tables.append(Path(f"/proc/{pid}/net/{name}").read_text())
    return dead_peers(tables, inodes)


class Uplink:
    """``system``: how to connect as the leaf's own account.  ``on_dropped`` is told of each link that was ended."""

    def __init__(
        self,
        pid: Callable[[], int | None],
        system: connect.ConnectSettings,
        *,
        on_dropped: Callable[[], None] = lambda: None,
        dead: Callable[[int], set[Peer]] = dead_peers_of,
    ) -> None:
        self._pid, self._system, self._on_dropped, self._dead = pid, system, on_dropped, dead
        self._doubted = asyncio.Event()
        self.dropped = 0

    def doubt(self) -> None:
        """A question that the hub or the cloud should have answered was not."""
        self._doubted.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            await self.look()
            await asyncio.sleep(LOOK_S_MIN)

    async def look(self) -> None:
        pid = self._pid()
        peers = self._dead(pid) if pid is not None else set()
        if not peers:
            return
        try:
            count = await self._drop(peers)
        except (connect.ConnectFailed, connect.NotConnected, nats.errors.Error, OSError, ValueError) as e:
            log.warning("uplink.not_dropped", peers=sorted(peers), reason=f"{type(e).__name__}: {e}")
            return
        if count:
            self.dropped += count
            log.warning("uplink.dropped", peers=sorted(peers), why="nothing is acknowledged")
            self._on_dropped()

    async def _drop(self, peers: set[Peer]) -> int:
        """Ends the leaf's links to these; how many there were.  The connection for it lives for this moment only."""
        connection = await connect.connect(self._system)
        try:
            server, links = await self._links(connection)
            ids = [link["id"] for link in links if (link.get("ip"), link.get("port")) in peers]
            for cid in ids:
                await self._ask(connection, f"$SYS.REQ.SERVER.{server}.KICK", {"cid": cid})
            return len(ids)
        finally:
            await connection.close()

    async def _links(self, connection: connect.Connection) -> tuple[str, list[dict[str, Any]]]:
        """(the server's id, its leaf links)."""
        answer = await self._ask(connection, "$SYS.REQ.SERVER.PING.LEAFZ", {})
        return str(answer["server"]["id"]), list((answer.get("data") or {}).get("leafs") or [])

    async def _ask(self, connection: connect.Connection, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError when the server refuses."""
        message = await connection.request(subject, json.dumps(body).encode(), timeout_s=ASK_S_MAX)
        answer: dict[str, Any] = json.loads(message.data)
        if "error" in answer:
            raise ValueError(f"{subject}: {answer['error']}")
        return answer
