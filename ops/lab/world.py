"""The lab's world: folders, processes, kubectl, and waiting for what must become true."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ops.lab.processes import Processes
from ops.lab.show import Line, StepFailed

NODES = ("edge-1", "edge-2")
POLL_S = 0.1
LOOKS_MAX = 10  # at containers that come and go
KUBECTL_TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes(folder)
        self.hub = folder / "hub"
        self.kubeconfig = folder / "kubeconfig"

    def node_dir(self, node: str) -> Path:
        return self.folder / node

    # --- commands

    def skerry(self, *args: str, check: bool = True) -> str:
        """Output of one ``skerry`` command; raises StepFailed with what it said."""
        return self.run([sys.executable, "-m", "ops.cli", *args], check=check)

    def start(self, name: str, *args: str, env: dict[str, str] | None = None, inside: Sequence[str] = ()) -> None:
        """``inside``: what the command line begins with, to run it somewhere else (ops/lab/links.py)."""
        self.processes.start(name, [*inside, sys.executable, "-m", "ops.cli", *args], env=env)

    def run(self, argv: list[str], *, stdin: str | None = None, check: bool = True) -> str:
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=KUBECTL_TIMEOUT_S, check=False
            )  # fmt: skip
        except subprocess.TimeoutExpired as e:
            raise StepFailed(f"{' '.join(argv)}: no end after {KUBECTL_TIMEOUT_S} s") from e
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise StepFailed(f"{' '.join(argv[:8])}: exit {done.returncode}: {said}")
        return done.stdout

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        found = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if found is None:
            raise StepFailed("kubectl is not there; it is in the locked requirements (./just installs it)")
        return self.run([found, "--kubeconfig", str(self.kubeconfig), *args], stdin=stdin, check=check)

    def get(self, *args: str) -> dict[str, Any]:
        """One object or list as JSON; {} when it is not found."""
        text = self.kubectl("get", *args, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def pods(self, node: str | None = None) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("pods").get("items", [])
        return [p for p in items if node is None or p["spec"].get("nodeName") == node]

    def docker(self, *args: str, check: bool = True) -> str:
        found = shutil.which("docker") or shutil.which("podman")
        if found is None:
            raise StepFailed("no docker or podman command")
        return self.run([found, *args], check=check)

    def containers(self, node: str) -> dict[str, tuple[str, str]]:
        """``pod/container`` -> (id, time of start) of the running ones of a node, as the engine itself says."""
        for _ in range(LOOKS_MAX):
            ids = self.docker("ps", "-q", "--no-trunc", *self.of(node)).split()
            shown = json.loads(self.docker("inspect", "--type", "container", *ids, check=False) or "[]") if ids else []
            if len(shown) == len(ids):
                break  # else one has gone since the list, and what is told of the others then can't be relied on
        out = {}
        for c in shown:
            labels = c["Config"]["Labels"]
            if not c["State"]["Running"]:
                continue
            out[f"{labels['io.skerry.pod.name']}/{labels['io.skerry.container']}"] = (c["Id"], c["State"]["StartedAt"])
        return out

    def of(self, node: str) -> list[str]:
        """Filters of ``docker ps`` for a node of this lab, and of no other that shares the engine."""
        hub = json.loads((self.hub / "hub.json").read_text())["id"]
        return ["--filter", f"label=io.skerry.node={node}", "--filter", f"label=io.skerry.hub={hub}"]

    def node_status(self, node: str) -> dict[str, Any]:
        """What the daemon says of itself on its own bus; {} when it doesn't answer."""
        text = self.skerry("edge", "status", "--data", str(self.node_dir(node)), "--json", check=False)
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            return {}
        return found

    def simulator(self, port: int) -> None:
        """A Modbus TCP boiler that listens on ``port``."""
        argv = [sys.executable, "-m", "mappers.modbus.simulator", "--port", str(port), "--seed", "7"]
        self.processes.start("device", argv)
        self.until("the device listens", lambda: _listens(port), seconds=20)

    def register(self, port: int, number: int) -> int:
        """A holding register, read as any Modbus client would, not through our driver or its library."""
        ask = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, number, 1)  # Modbus application protocol 1.1b3, 6.3
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            s.sendall(ask)
            answer = s.recv(64)
        if len(answer) != 11 or answer[7] != 3:
            raise StepFailed(f"the device answers {answer.hex()}")
        return int(struct.unpack(">H", answer[9:11])[0])

    # --- waiting

    def until(self, what: str, check: Callable[[], object], *, seconds: float = 60, line: Line | None = None) -> Any:
        """The first true answer of ``check``; raises StepFailed when there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            if line is not None:
                line.now(what)
            found = check()
            if found:
                return found
            if time.monotonic() > deadline:
                raise StepFailed(f"not within {seconds:g} s: {what}")
            time.sleep(POLL_S)


def node_ready(node: dict[str, Any]) -> str:
    """``True``, ``False`` or ``Unknown``."""
    for c in (node.get("status") or {}).get("conditions") or []:
        if c["type"] == "Ready":
            return str(c["status"])
    return "Unknown"


def pod_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


class Wire:
    """The relay between a node's leaf and the hub."""

    def __init__(self, world: World, to_port: int, node: str = NODES[0]) -> None:
        argv = [sys.executable, "-m", "ops.lab.relay", "127.0.0.1", str(to_port), "0"]
        self._take(world.processes.start(f"link-of-{node}", argv, pipes=True))

    def _take(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.port = int(self._ask(None))

    @classmethod
    def of(cls, child: subprocess.Popen[bytes]) -> Wire:
        """The wire of a relay that was started already."""
        wire = cls.__new__(cls)
        wire._take(child)
        return wire

    def _ask(self, command: str | None) -> str:
        assert self._child.stdin is not None and self._child.stdout is not None
        if command is not None:
            self._child.stdin.write(command.encode() + b"\n")
            self._child.stdin.flush()
        return self._child.stdout.readline().decode().strip()

    def cut(self) -> None:
        self._ask("cut")

    def heal(self) -> None:
        self._ask("heal")

    def shape(self, delay_ms: float, jitter_ms: float, loss: float) -> None:
        """Each way; see ops/lab/links.py."""
        self._ask(f"shape {delay_ms} {jitter_ms} {loss}")

    def count(self) -> tuple[int, int]:
        """Bytes carried (to the hub, to the node) so far."""
        up, down = self._ask("count").split()
        return int(up), int(down)

    def chunks(self) -> tuple[int, int]:
        """Pieces in which they came."""
        up, down = self._ask("chunks").split()
        return int(up), int(down)
