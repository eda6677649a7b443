"""Brings up what containers run on, for the demo and the tests: `python -m ops.engine up|down|images|status`.

An engine that already runs is used (DOCKER_HOST, the usual Docker and Podman sockets).  Only when there is none, and we
are root, an own dockerd is started with everything under ``.skerry/docker``; it goes on between commands until ``down``.
stdout carries the DOCKER_HOST alone, so that a shell can take it; everything for people goes to stderr.
Production nodes don't come here: they have their engine, and the edge daemon is told where.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ops import engine_api, images, packages
from ops.engine_api import EngineError

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60.0  # dockerd and its containerd, cold, on a busy two-core machine
SERVICE_TIMEOUT_S = 15.0  # how long Debian's own service may take after its package was installed
STOP_TIMEOUT_S = 40.0  # dockerd gives its containers 10 s and itself 15 s
POLL_S = 0.1
# sun_path holds 107 characters and a zero byte (unix(7)); this is the longest socket below the run folder.
_LONGEST_SOCKET = "/exec/containerd/containerd-debug.sock.ttrpc"
_RUN_FOLDER_MAX = 107 - len(_LONGEST_SOCKET)


@dataclass(frozen=True, slots=True)
class Place:
    """Where our own engine lives: ``data`` in the checkout, ``run`` (sockets, pid) too unless its path is too long."""

    data: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"

    @property
    def pid_file(self) -> Path:
        return self.run / "pid"

    @property
    def log(self) -> Path:
        return self.data.parent / "dockerd.log"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"


def place(root: Path = ROOT) -> Place:
    folder = root / ".skerry" / "docker"
    if len(str(folder)) <= _RUN_FOLDER_MAX:
        return Place(folder / "data", folder)
    key = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    base = Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")
    return Place(folder / "data", base / f"skerry-{key}")


def _say(text: str) -> None:
    print(f"engine: {text}", file=sys.stderr, flush=True)


def usual_hosts() -> list[str]:
    """Where engines listen by default, ours first: what was started for this checkout stays in use."""
    sockets = [place().socket, Path("/var/run/docker.sock")]
    if user := os.environ.get("XDG_RUNTIME_DIR"):
        sockets += [Path(user) / "docker.sock", Path(user) / "podman" / "podman.sock"]
    sockets.append(Path("/run/podman/podman.sock"))
    return [f"unix://{s}" for s in sockets if s.exists()]


def find() -> str | None:
    """DOCKER_HOST of an engine that answers, or None.  Raises EngineError if DOCKER_HOST is set and does not answer:
    whoever set it wants that engine and no other."""
    if named := os.environ.get("DOCKER_HOST"):
        try:
            engine_api.version(named)
        except EngineError as e:
            raise EngineError(f"DOCKER_HOST is set but no engine answers there: {e}") from e
        return named
    for host in usual_hosts():
        with contextlib.suppress(EngineError):
            engine_api.version(host)
            return host
    return None


def up() -> str:
    """DOCKER_HOST of a running engine: found, or started; raises EngineError."""
    if host := find():
        return host
    with _lock():
        if host := find():  # another command was starting it
            return host
        if os.geteuid() != 0:
            raise EngineError(_no_engine())
        if shutil.which("dockerd") is None:
            if not packages.can_install():
                raise EngineError(
                    "no Docker or Podman engine answers, and no dockerd is installed: install Docker, then run again"
                )
            packages.install("docker.io")
            if host := _wait_for_service():
                return host
        return _start()


def _no_engine() -> str:
    denied = [h for h in usual_hosts() if not os.access(h.removeprefix("unix://"), os.R_OK | os.W_OK)]
    if denied:
        return f"{denied[0]} is not for this user: join its group (usermod -aG docker NAME, log in anew) or run as root"
    return (
        "no Docker or Podman engine answers (tried DOCKER_HOST and the usual sockets). Start one, or set DOCKER_HOST, "
        "or run as root: then Debian's docker.io is installed and started with its data in .skerry/docker"
    )


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    own = place()
    own.data.mkdir(parents=True, exist_ok=True)
    own.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (own.data.parent / "lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _wait_for_service() -> str | None:
    """Debian's package starts its service where an init system runs; in a container or chroot nothing happens."""
    if not Path("/run/systemd/system").exists():
        return None
    deadline = time.monotonic() + SERVICE_TIMEOUT_S
    while time.monotonic() < deadline:
        if host := find():
            return host
        time.sleep(POLL_S)
    return None


# Tried in order: a plain engine; then what a nested or trimmed machine may need.
_VARIANTS: tuple[tuple[str, list[str]], ...] = (
    ("", []),
    ("without overlayfs, slower", ["--storage-driver", "vfs"]),
    (
        "without iptables, no outbound network for containers",
        ["--storage-driver", "vfs", "--iptables=false", "--ip6tables=false"],
    ),
)


def _start() -> str:
    own = place()
    failures = []
    for remark, extra in _VARIANTS:
        _say(f"starting an own dockerd in {own.data.parent}{' (' + remark + ')' if remark else ''}")
        failure = _start_variant(own, extra)
        if failure is None:
            return own.host
        failures.append(failure)
        shutil.rmtree(own.data, ignore_errors=True)  # a half-made store of another driver would be in the way
    raise EngineError(f"dockerd does not start; the end of {own.log}:\n{failures[0]}")


def _start_variant(own: Place, extra: list[str]) -> str | None:
    """None when it runs; otherwise the end of its log."""
    own.pid_file.unlink(missing_ok=True)
    folders = ["--data-root", str(own.data), "--exec-root", str(own.run / "exec"), "-p", str(own.pid_file)]
    with own.log.open("wb") as log:
        process = subprocess.Popen(
            ["dockerd", *folders, "-H", own.host, *extra],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C meant for the demo must not end the engine
            cwd="/",
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(EngineError):
            engine_api.version(own.host)
            return None
        time.sleep(POLL_S)
    if process.poll() is None:
        _end(process.pid)
        process.wait(timeout=STOP_TIMEOUT_S)
    return own.log.read_bytes()[-1500:].decode(errors="replace")


def running_pid() -> int | None:
    """The process of our own dockerd, if it runs: a recycled process id is told by its command line."""
    own = place()
    try:
        pid = int(own.pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(own.data).encode() in command else None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _end(pid: int) -> None:
    for sig in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _alive(pid) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not _alive(pid):
            return
    raise EngineError(f"dockerd (process {pid}) does not end, not even by SIGKILL")


def down() -> bool:
    """Ends our own engine with every container in it; one that we did not start is left alone."""
    pid = running_pid()
    if pid is None:
        return False
    _end(pid)
    own = place()
    if own.run != own.data.parent:
        shutil.rmtree(own.run, ignore_errors=True)
    return True


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.engine", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="find or start an engine; prints its DOCKER_HOST")
    start.add_argument("--images", action="store_true", help="make the images for the demo and the tests too")
    commands.add_parser("down", help="end the engine if it is ours")
    commands.add_parser("images", help="make the images in the engine that runs")
    commands.add_parser("status", help="say which engine runs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    try:
        if args.command == "down":
            _say("ended" if down() else "none of ours runs")
            return 0
        host = up() if args.command == "up" else find()
        if host is None:
            raise EngineError("none runs: python -m ops.engine up")
        if (args.command == "images" or getattr(args, "images", False)) and images.ensure(host):
            _say(f"made image {images.BUSYBOX}")
        if args.command == "status":
            about = engine_api.version(host)
            name = about.get("Platform", {}).get("Name") or "engine"
            _say(f"{name} {about.get('Version')}, {'ours' if running_pid() else 'not ours'}")
    except EngineError as e:
        _say(str(e))
        return 1
    print(host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
