"""Hub and cloud of a fleet benchmark: the real processes, one for each part that is measured on its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bus import connect, log
from bus.hub import init
from ops.fleet import usage
from ops.lab import setting
from ops.lab.show import StepFailed
from ops.lab.world import World

# A process each, as on a large hub: what is measured of one is not another's, and a storm of statuses holds up no catch-up.
PARTS = ("sync", "reports", "dispatcher", "join")
QUIET_CORES = 0.25  # below it hub and cloud have done what was asked of them; timers and beats are left
QUIET_S = 2.0


class Lab:
    """``start`` parts by name; ``log`` and ``system`` are connections as CORE and SYS."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hub: init.Hub
        self.log: log.Log
        self.core: connect.Connection
        self.system: connect.Connection

    def start(self, name: str) -> None:
        quiet = {"SKERRY_LOG_LEVEL": "error"}
        self.world.start(name, "cloud", "run", "--hub", str(self.world.hub), "--part", name, env=quiet)

    def stop(self, name: str) -> None:
        self.world.processes.kill_9(name)

    @property
    def server_pid(self) -> int:
        """The hub's nats-server."""
        found: dict[str, Any] = json.loads((self.world.hub / "nats-server.pid.json").read_text())
        return int(found["pid"])

    def groups(self, nodes: list[int] | None = None) -> dict[str, list[int]]:
        """Processes by what they are; ``nodes`` are the fleet's."""
        alive = {r.name: r.pid for r in self.world.processes.alive()}
        groups = {"hub": [self.server_pid], **{n: [alive[n]] for n in PARTS if n in alive}, "feed": [os.getpid()]}
        return groups | ({"nodes": nodes} if nodes else {})

    async def traffic(self) -> usage.Traffic:
        return await usage.traffic(self.system)

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
        """SIGTERM to the server; its supervisor starts it again.  Returns when it has a new process."""
        old = self.server_pid
        os.kill(old, signal.SIGTERM)
        while self.server_pid == old:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Lab]:
    """A hub of its own in ``folder``, emptied first, ended and removed last."""
    world = World(folder)
    setting.down(world)
    lab = Lab(world)
    try:
        setting.hub(world)
        lab.hub = init.load_hub(world.hub)
        lab.core = await _connect(lab.hub, lab.hub.core_creds)
        lab.system = await _connect(lab.hub, lab.hub.sys_creds)
        lab.log = log.Log(lab.core)
        try:
            yield lab
        finally:
            await lab.log.close()
            await lab.core.close()
            await lab.system.close()
    finally:
        if "SKERRY_KEEP" not in os.environ:
            setting.down(world)


async def _connect(hub: init.Hub, credentials: Path) -> connect.Connection:
    return await connect.connect(connect.ConnectSettings(tuple(hub.urls), "fleet", credentials=credentials, ca=hub.ca_path))
