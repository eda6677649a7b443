"""A process full of hollow nodes: ``python -m ops.fleet.worker '<JSON of Crew>'``.

Commands are JSON lines on standard input, each answered by one line on standard output that has its number ``n``, when it
is done: a short one goes before a long one that is under way.  The end of the input ends it.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import ctypes
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bus import connect, link, log, tasks
from bus.hub import init
from bus.identity import creds, permissions
from bus.slim import connection as slim
from bus.slim.leaf import SlimLeaf
from ops import logs
from ops.fleet import minting, wire
from ops.fleet.node import HollowNode
from schemas import subjects

NODES_MAX = 18_000  # a process may have 20,000 files open on many machines; some are not sockets
CONNECTING_MAX = 64  # handshakes at once: more only wait for the same core, and time out there
POLL_S = 0.05
PACE_S = 30.0  # a paced node that is not in sync after this makes room for the next
RTT_S = 900.0  # as a node without a leaf proves its link (edge.daemon, DIRECT_RTT_S)
LEAF_RTT_S = 480.0  # as a leaf does (bus.hub.config, LEAF_PING_INTERVAL)
# asyncio of Python 3.11 gives each TLS connection a buffer of 256 kB, zeroed, so resident: 2.6 GB for 10,000 nodes.
# A message of ours is rarely larger than this, and a larger one is read in pieces.
TLS_BUFFER_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class Crew:
    """``per_connection``: nodes on one connection; 1 is what real nodes do.  ``urls``: the hub's servers, each node takes
    one.  ``source``: the loopback address that connections come from: one has 28,000 ports for all that it opens.
    ``leafs``: each node is behind a leaf link instead of a client's connection.  ``pace``: so many of them at a time are on
    their way from dialling to being in sync (0: as many as come)."""

    hub: str
    first: int
    count: int
    urls: list[str] = field(default_factory=list)
    source: str = ""
    per_connection: int = 1
    beat_s: float = link.BEAT_S
    reports: bool = True
    leafs: bool = False
    pace: int = 0


def node_name(n: int) -> str:
    return f"hollow-{n:06d}"


class Worker:
    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.hub = init.load_hub(Path(crew.hub))
        self.mint = minting.Mint(self.hub)
        self.latencies: list[float] = []
        numbers = range(crew.first, crew.first + crew.count)
        self.nodes = [
            HollowNode(
                n,
                node_name(n),
                self.hub.shards,
                beat_s=crew.beat_s,
                with_reports=crew.reports,
                applied=self.latencies.append,
            )
            for n in numbers
        ]
        self.connections: list[slim.SlimConnection] = []
        self._enough = asyncio.Event()
        self._dialing = asyncio.Semaphore(CONNECTING_MAX)
        self._credentials: dict[str, str] = {}

    # --- commands

    async def do_connect(self, seconds: float = 3600.0, **_: Any) -> dict[str, Any]:
        """Every node, some handshakes at a time; ends early after ``seconds`` or when there is ``do_enough``.

        ``started``: numbers of the nodes that have a connection; the others are forgotten."""
        self._enough.clear()
        began = time.monotonic()
        slots = asyncio.Semaphore(max(1, CONNECTING_MAX // self.crew.per_connection))
        pace = asyncio.Semaphore(self.crew.pace or len(self.nodes) or 1)
        size = self.crew.per_connection
        groups = [self.nodes[i : i + size] for i in range(0, len(self.nodes), size)]
        made = [asyncio.create_task(self._paced(g, i, slots, pace)) for i, g in enumerate(groups)]
        enough = asyncio.create_task(self._enough.wait())
        all_made = asyncio.gather(*made)
        ends: set[asyncio.Future[Any]] = {enough, all_made}
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (enough, *made):
            if not task.done():
                await tasks.end(task)
        await asyncio.gather(all_made, return_exceptions=True)
        failed = next((e for t in made if not t.cancelled() and (e := t.exception()) is not None), None)
        if failed is not None:
            raise failed
        self.nodes = [n for n in self.nodes if n.started]
        gc.collect()
        gc.freeze()
        return {
            "seconds": time.monotonic() - began,
            "started": [n.number for n in self.nodes],
            "connections": len(self.connections),
        }

    async def do_enough(self, **_: Any) -> dict[str, Any]:
        """The machine takes no more."""
        self._enough.set()
        return {}

    async def _paced(self, nodes: list[HollowNode], number: int, slots: asyncio.Semaphore, pace: asyncio.Semaphore) -> None:
        async with pace:
            await self._connect(nodes, number, slots)
            if self.crew.pace:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PACE_S):
                        while not all(n.synced for n in nodes):
                            await asyncio.sleep(POLL_S)

    async def _connect(self, nodes: list[HollowNode], number: int, slots: asyncio.Semaphore) -> None:
        async with slots:
            settings = self._settings(nodes, number)
            kind = SlimLeaf if self.crew.leafs else slim.SlimConnection
            connection = await slim.connected(settings, self._dialing, source=self.crew.source, kind=kind)
            self.connections.append(connection)
            hub = log.Log(connection)
            for node in nodes:
                await node.start(connection, hub)
            if self.crew.leafs:
                await connection.subscribe(self._telemetry_source(nodes[0].name), _nothing)
            # What one connection carries for many nodes it carries one after the other: the next crowd waits for this one.
            while len(nodes) > 1 and not all(n.synced for n in nodes):
                await asyncio.sleep(POLL_S)

    def _telemetry_source(self, node: str) -> str:
        """What the hub hears from a leaf that has a stream of its own."""
        life = permissions.life_of(creds.parse(self._credentials[node]).key.public)
        return f"{subjects.uplink(node, life)}.api.CONSUMER.CREATE.{permissions.TELEMETRY_STREAM}.>"

    def _settings(self, nodes: list[HollowNode], number: int) -> connect.ConnectSettings:
        crowd = self.crew.per_connection > 1
        name = minting.CROWD if crowd else nodes[0].name
        if name not in self._credentials:
            self._credentials[name] = self.mint.crowd() if crowd else self.mint.node(name, leaf=self.crew.leafs)
        urls = self.crew.urls or (self.hub.leaf_urls if self.crew.leafs else self.hub.urls)
        return connect.ConnectSettings(
            (urls[number % len(urls)],),
            name,
            credentials_text=self._credentials[name],
            ca=self.hub.ca_path,
            inbox=subjects.inbox(name),
            wait_s=None,
            rtt_every_s=LEAF_RTT_S if self.crew.leafs else RTT_S,
        )

    async def do_mint(self, **_: Any) -> dict[str, Any]:
        began = time.monotonic()
        if self.crew.per_connection == 1:
            for node in self.nodes:
                self._credentials[node.name] = self.mint.node(node.name, leaf=self.crew.leafs)
        return {"seconds": time.monotonic() - began}

    async def do_away(self, **_: Any) -> dict[str, Any]:
        """All connections end; what the nodes hold stays."""
        connections, self.connections = self.connections, []
        for node in self.nodes:
            await node.stop()
        await asyncio.gather(*(c.close() for c in connections))
        gc.unfreeze()
        gc.collect()
        return {}

    async def do_cut(self, **_: Any) -> dict[str, Any]:
        """Every connection is lost at once, as when a radio link goes; they come back by themselves."""
        for connection in self.connections:
            await connection.reconnect()
        return {}

    # What a node does now and then is asked of a few of them: of all at once it would be a storm.

    def _few(self, first: int) -> list[HollowNode]:
        return self.nodes[:first] if first else self.nodes

    async def do_beat(self, first: int = 0, **_: Any) -> dict[str, Any]:
        """The first so many nodes (0: all) beat once, now."""
        for node in self._few(first):
            node.beat_now()
        return {}

    async def do_ping(self, first: int = 0, **_: Any) -> dict[str, Any]:
        """Their connections are proved once, now."""
        for connection in self._connections_of(first):
            connection.doubt()
        return {}

    async def do_refresh(self, first: int = 0, **_: Any) -> dict[str, Any]:
        """They ask whether they missed anything, now."""
        for node in self._few(first):
            node.replica.link_up()
        return {}

    def _connections_of(self, first: int) -> list[slim.SlimConnection]:
        if not first:
            return self.connections
        return list({id(c): c for n in self._few(first) if isinstance(c := n.connection, slim.SlimConnection)}.values())

    async def do_settle(self, since: float = 0.0, seconds: float = 600.0, **_: Any) -> dict[str, Any]:
        """Waits until every node is in sync, by a catch-up that ended after ``since`` (time.monotonic())."""
        deadline, at = time.monotonic() + seconds, 0
        while True:
            # From the first that was not, last time: to look at thousands twenty times a second would be most of the work.
            while at < len(self.nodes) and self._settled(self.nodes[at], since):
                at += 1
            late = time.monotonic() > deadline
            if late or at == len(self.nodes):
                left = sum(not self._settled(n, since) for n in self.nodes)
                if late or not left:
                    return {"left": left, "synced_at": sorted(n.synced_at for n in self.nodes)}
                at = 0  # one that was in sync is not any more
            await asyncio.sleep(POLL_S)

    def _settled(self, node: HollowNode, since: float) -> bool:
        return node.synced and node.synced_at >= since

    async def do_told(self, **_: Any) -> dict[str, Any]:
        """Latencies of stamped changes since the last call."""
        told = [round(s, 6) for s in self.latencies]
        self.latencies.clear()
        return {"latencies": told}

    async def do_trim(self, **_: Any) -> dict[str, Any]:
        """What was needed to connect, and is free, back to the machine."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        return {}

    async def do_digest(self, **_: Any) -> dict[str, Any]:
        return {"digest": sum(n.digest() for n in self.nodes)}

    async def do_wire(self, first: int = 0, **_: Any) -> dict[str, Any]:
        """What the connections (of the first so many nodes; 0: all) have carried since they were made."""
        total = wire.Wire()
        for connection in self._connections_of(first):
            total = total + wire.of(connection)
        return {"sent": total.sent, "received": total.received, "segments": total.segments, "nodes": len(self._few(first))}

    async def do_status(self, **_: Any) -> dict[str, Any]:
        stats = [n.replica.stats for n in self.nodes]
        failed = next((f"{n.name}: {e!r}" for n in self.nodes if (e := n.failed()) is not None), "")
        return {
            "nodes": len(self.nodes),
            "connections": sum(c.connected for c in self.connections),
            "synced": sum(n.synced for n in self.nodes),
            "objects": sum(n.store.count("objects") for n in self.nodes),
            "outbox": sum(n.box.pending for n in self.nodes),
            "sent": sum(n.box.sent for n in self.nodes),
            "reconnects": sum(c.reconnects for c in self.connections),
            "asks": sum(s.asks for s in stats),
            "answers": sum(s.answers for s in stats),
            "live_bytes": sum(s.live_bytes for s in stats),
            "page_bytes": sum(s.page_bytes for s in stats),
            "live_events": sum(s.live_events for s in stats),
            "page_events": sum(s.page_events for s in stats),
            "resets": sum(s.resets for s in stats),
            "refused": sum(s.refused for s in stats),
            "failed": failed,
        }

    async def run(self) -> None:
        commands: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }
        reader = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def answer(asked: dict[str, Any]) -> None:
            number, do = asked.pop("n"), asked.pop("do")
            try:
                found = await commands[do](**asked)
            except Exception as e:  # who asked is told; the others go on
                found = {"error": f"{do}: {e!r}"}
            print(json.dumps({"n": number, **found}), flush=True)

        running: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                task = asyncio.create_task(answer(json.loads(line)))
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            for task in list(running):
                await tasks.end(task)
            await self.do_away()


async def _nothing(_: connect.Message) -> None:
    pass


def main() -> None:
    os.environ.setdefault("SKERRY_LOG_LEVEL", "error")  # a thousand nodes that say the same
    logs.configure()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    gc.set_threshold(100_000, 50, 50)  # a full collection looks at some hundred objects of each node
    crew = Crew(**json.loads(sys.argv[1]))
    if crew.count > NODES_MAX * crew.per_connection:
        raise SystemExit(f"at most {NODES_MAX} connections a process")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Worker(crew).run())


def argument(crew: Crew) -> str:
    return json.dumps(asdict(crew))


if __name__ == "__main__":
    main()
