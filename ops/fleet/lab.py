"""Hub and cloud of a fleet benchmark: the real processes, one for each part that is measured on its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from bus import connect, log
from bus.hub import init, ports, pulse, streams, supervise
from ops.fleet import usage
from ops.lab import setting
from ops.lab.show import StepFailed
from ops.lab.world import World

# A process each, as on a large hub: what is measured of one is not another's, and a storm of statuses holds up no catch-up.
PARTS = ("sync", "reports", "dispatcher", "join")
QUIET_CORES = 0.25  # below it hub and cloud have done what was asked of them; timers and beats are left
QUIET_S = 2.0
LOG_SERVERS = 3  # of a hub of several: a majority is left when one is lost
PATIENCE = pulse.Patience(idle=pulse.BUSY_PROBES_MAX)  # one that waits for a core that all others want doesn't hang
STREAMS_S = 120.0  # a cluster elects its leaders first


class Lab:
    """``start`` parts by name; ``log`` and ``system`` are connections as CORE and SYS."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hub: init.Hub
        self.log: log.Log
        self.core: connect.Connection
        self.system: connect.Connection
        self.servers: list[supervise.NatsServer] = []
        self.profiles: list[int] = []
        self.gogc = int(supervise.GO["hub"]["GOGC"])

    def start(self, name: str, instance: int = 1) -> None:
        """``instance`` above 1: another process that does the same."""
        quiet = {"SKERRY_LOG_LEVEL": "error"}
        as_ = name if instance == 1 else f"{name}-{instance}"
        self.world.start(as_, "cloud", "run", "--hub", str(self.world.hub), "--part", name, env=quiet)

    def stop(self, name: str) -> None:
        for r in self.world.processes.alive():
            if r.name.partition("-")[0] == name:
                self.world.processes.kill_9(r.name)

    @property
    def server_pids(self) -> list[int]:
        """The hub's nats-servers."""
        return [s.pid for s in self.servers if s.pid is not None]

    def groups(self, nodes: list[int] | None = None) -> dict[str, list[int]]:
        """Processes by what they are; ``nodes`` are the fleet's."""
        alive = [(r.name.partition("-")[0], r.pid) for r in self.world.processes.alive()]
        parts = {n: found for n in PARTS if (found := [pid for name, pid in alive if name == n])}
        return {"hub": self.server_pids, **parts, "feed": [os.getpid()], **({"nodes": nodes} if nodes else {})}

    async def traffic(self) -> usage.Traffic:
        return await usage.traffic(self.system, len(self.servers))

    async def live(self) -> usage.Live:
        """What the hub's servers hold after a collection; raises OSError."""
        each = [await usage.live(port) for port in self.profiles]
        return usage.Live(sum(u.heap for u in each), sum(u.stacks for u in each))

    async def quiet(self, seconds: float = 900.0, cores: float = QUIET_CORES) -> None:
        """Until hub and cloud rest.  Raises StepFailed."""
        pids = [p for name, group in self.groups().items() for p in group if name != "feed"]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = usage.total(pids).cpu_s
            await asyncio.sleep(QUIET_S)
            if (usage.total(pids).cpu_s - before) / QUIET_S < cores:
                return
        raise StepFailed(f"hub and cloud still work after {seconds:g} s")

    async def restart_hub(self) -> None:
        """SIGTERM to every server; their supervisors start them again.  Returns when all have a new process."""
        old = [s.restarts for s in self.servers]
        for pid in self.server_pids:
            os.kill(pid, signal.SIGTERM)
        while any(s.restarts == n for s, n in zip(self.servers, old, strict=True)):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    folder: Path, *, servers: int = 1, shards: int | None = None, plain: bool = False, gogc: int | None = None
) -> AsyncIterator[Lab]:
    """A hub of its own in ``folder``, emptied first, ended and removed last: one server, or three with the log and fronts
    beside them.  ``plain``: its clients come without TLS.  ``gogc``: of its servers, when not as they are deployed."""
    world = World(folder)
    setting.down(world)
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(world)
    async with AsyncExitStack() as stack:
        if "SKERRY_KEEP" not in os.environ:
            stack.callback(setting.down, world)
        lab.hub = _make(world.hub, servers, shards)
        lab.profiles = _fit_for_bench(lab.hub, plain=plain)
        if gogc is not None:
            lab.gogc = gogc
            stack.enter_context(_environment("GOGC", str(gogc)))  # the servers inherit it (bus.hub.supervise)
        for n in range(1, len(lab.hub.members) + 1):
            server = supervise.hub_server(lab.hub, n, patience=PATIENCE)
            await server.start()
            stack.push_async_callback(server.stop)
            lab.servers.append(server)
            assert server.pid is not None
            world.processes.remember(f"hub-{n}", server.pid)
        stack.callback(world.processes.stop_all)  # the cloud's processes first
        lab.core = await _connect(lab.hub, lab.hub.core_creds, stack)
        lab.system = await _connect(lab.hub, lab.hub.sys_creds, stack)
        lab.log = log.Log(lab.core)
        stack.push_async_callback(lab.log.close)
        await _streams(lab)
        yield lab


def _make(folder: Path, servers: int, shards: int | None) -> init.Hub:
    any_port: dict[str, Any] = {"client": 0, "leaf": 0, "websocket": 0}
    here = "127.0.0.1"
    every = [
        init.HubServer(host=here, ports=init.HubPorts(**any_port), route=0) for _ in range(servers if servers > 1 else 0)
    ]
    return init.init_hub(
        folder, hosts=[here], listen=here, ports=init.HubPorts(**any_port), shards=shards, servers=every[:LOG_SERVERS],
        fronts=every[LOG_SERVERS:],
    )  # fmt: skip


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _fit_for_bench(hub: init.Hub, *, plain: bool) -> list[int]:
    """Each server answers for its memory on a port of its own (nats-server, ``prof_port``), which are returned.  ``plain``:
    clients come without TLS.  No hub that anybody relies on would do either."""
    free = ports.free_ports(len(hub.members))
    for member, port in zip(hub.members, free, strict=True):
        whole = json.loads(member.config_path.read_text()) | {"prof_port": port}
        if plain:
            del whole["tls"]
        member.config_path.write_text(json.dumps(whole))
    return free


async def _streams(lab: Lab) -> None:
    deadline = time.monotonic() + STREAMS_S
    while True:
        try:
            await streams.ensure_streams(lab.log, shards=lab.hub.shards, limits=streams.limits_of(lab.hub.replicas))
            return
        except log.LogUnavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


async def _connect(hub: init.Hub, credentials: Path, stack: AsyncExitStack) -> connect.Connection:
    settings = connect.ConnectSettings(tuple(hub.urls), "fleet", credentials=credentials, ca=hub.ca_path)
    connection = await connect.connect(settings)
    stack.push_async_callback(connection.close)
    return connection
