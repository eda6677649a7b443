"""Each node in a network namespace of its own, behind a link that can be made bad: by the kernel's netem where it has one,
else packet by packet in user space (wan.py).  The hub listens on an address of this machine; nothing leaves it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ops.chaos import wan
from ops.lab.links import CLEAR, Links, Profile, RelayLinks, Side, Way
from ops.lab.nodes import Lab
from ops.lab.processes import Processes

T = TypeVar("T")

COMMAND_S_MAX = 20.0
PREFIX = "skchaos"  # of everything that is made here, so that `down` finds what a killed run left
NETEM_LIMIT = 1000


class NetworkError(Exception):
    """A namespace or device can't be made; the message has the kernel's words."""


def _ip(*args: str, check: bool = True) -> str:
    return _run("ip", *args, check=check)


def _run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    if check and done.returncode:
        raise NetworkError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


class NetnsLinks:
    """``kind`` is ``netem`` or ``tun``.  Raises NetworkError."""

    def __init__(self, processes: Processes, kind: str) -> None:
        self.kind = kind
        self._processes = processes
        self._tail = secrets.token_hex(2)
        number = int(self._tail, 16)
        self._net = f"10.{200 + number % 50}.{number // 50 % 250}"
        self._ways: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers: dict[str, int] = {}
        self._profiles: dict[str, Profile] = {}
        self.host = f"{self._net}.1"
        self._device = f"{PREFIX}{self._tail}"
        _ip("link", "add", self._device, "type", "bridge")  # holds the hub's address; every kernel with Docker has it
        _ip("addr", "add", f"{self.host}/32", "dev", self._device)
        _ip("link", "set", self._device, "up")

    @property
    def devices(self) -> str:
        """What all names of its devices and namespaces begin with."""
        return self._device

    def _name(self, node: str) -> str:
        return f"{self._device}n{self._numbers[node]}"

    def add(self, node: str, hub_port: int) -> None:
        n = self._numbers[node] = len(self._numbers) + 1
        self._profiles[node] = CLEAR
        name = self._name(node)
        there = "wan0"
        _ip("netns", "add", name)
        if self.kind == "netem":
            _ip("link", "add", name, "type", "veth", "peer", "name", there, "netns", name)
        else:
            argv = [sys.executable, "-m", "ops.chaos.wan", f"/run/netns/{name}", name, there]
            self._ways[node] = self._processes.start(f"wan-of-{node}", argv, pipes=True)
            if self._line(node) != "ready":
                raise NetworkError(f"no packets can be carried for {node}: see {self._processes.logs}/wan-of-{node}.log")
        near, far = f"{self._net}.{4 * n + 1}", f"{self._net}.{4 * n + 2}"
        _ip("addr", "add", f"{near}/30", "dev", name)
        _ip("link", "set", name, "up")
        for device, address in (("lo", ""), (there, f"{far}/30")):
            if address:
                _ip("-n", name, "addr", "add", address, "dev", device)
            _ip("-n", name, "link", "set", device, "up")
        self._route(n)

    def _route(self, n: int) -> None:
        _ip("-n", f"{self._device}n{n}", "route", "replace", "default", "via", f"{self._net}.{4 * n + 1}")

    def _line(self, node: str) -> str:
        out = self._ways[node].stdout
        assert out is not None
        return out.readline().decode().strip()

    def inside(self, node: str) -> Sequence[str]:
        # Not `ip netns exec`: it unshares mounts too, and the engine would not see what the daemon mounts for pods.
        return ("nsenter", f"--net=/run/netns/{self._name(node)}", "--")

    def run_inside(self, node: str, work: Callable[[], T]) -> T:
        answers: list[T] = []
        errors: list[BaseException] = []
        namespace = Path("/run/netns") / self._name(node)

        def run() -> None:
            try:
                wan.enter(namespace)
                answers.append(work())
            except BaseException as e:  # handed on to who asked, whatever it is
                errors.append(e)

        thread = threading.Thread(target=run, name=f"inside {node}")  # its own, because it never comes back from there
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return answers[0]

    def shape(self, node: str, profile: Profile) -> None:
        self._profiles[node] = profile
        self._apply(node, profile)

    def _apply(self, node: str, profile: Profile, way: Way = "both") -> None:
        """``way``: of the loss; the other direction loses what the node's own profile says."""
        usual = self._profiles[node].loss
        down, up = (profile.loss if way in ("both", w) else usual for w in ("down", "up"))
        if self.kind == "tun":
            stdin = self._ways[node].stdin
            assert stdin is not None
            stdin.write(f"shape {profile.rtt_ms / 2} {profile.jitter_ms} {down} {up}\n".encode())
            stdin.flush()
            self._line(node)
            return
        name = self._name(node)
        delay = (f"{profile.rtt_ms / 2 + profile.jitter_ms / 2}ms", f"{profile.jitter_ms / 2}ms")
        netem = ("netem", "limit", str(NETEM_LIMIT), "delay", *delay, "loss")
        _run("tc", "qdisc", "replace", "dev", name, "root", *netem, f"{down * 100}%")
        _run("tc", "-n", name, "qdisc", "replace", "dev", "wan0", "root", *netem, f"{up * 100}%")

    def cut(self, node: str, way: Way = "both") -> None:
        self._apply(node, replace(self._profiles[node], name="cut", loss=1), way)

    def heal(self, node: str) -> None:
        self._apply(node, self._profiles[node])

    def unplug(self, node: str, side: Side) -> None:
        self._set(node, side, "down")

    def plug(self, node: str, side: Side) -> None:
        self._set(node, side, "up")
        if side == "node":
            self._route(self._numbers[node])  # went with its device

    def _set(self, node: str, side: Side, state: str) -> None:
        name = self._name(node)
        where = ("link", "set", name) if side == "hub" else ("-n", name, "link", "set", "wan0")
        _ip(*where, state)

    def bytes(self, node: str) -> int:
        counters = Path("/sys/class/net") / self._name(node) / "statistics"
        return sum(int((counters / way).read_text()) for way in ("rx_bytes", "tx_bytes"))

    def close(self) -> None:
        sweep(self._device)


def sweep(prefix: str = PREFIX) -> list[str]:
    """Removes every namespace and device of a name; what was removed."""
    gone = []
    with contextlib.suppress(NetworkError, OSError):
        for line in _ip("netns", "list").splitlines():
            if line.startswith(prefix):
                gone.append(line.split()[0])
                _ip("netns", "delete", gone[-1], check=False)
        for line in _ip("-o", "link", "show").splitlines():
            name = line.split(":")[1].strip().partition("@")[0]
            if name.startswith(prefix):
                gone.append(name)
                _ip("link", "delete", name, check=False)
    return gone


def best(lab: Lab, wanted: str = "") -> tuple[Links, str]:
    """The best links that this machine allows (or those wanted), and in words what they are and why not better."""
    why: list[str] = []
    for kind in [wanted] if wanted else ["netem", "tun", "relay"]:
        if kind == "relay":
            break
        try:
            _try(kind)
            words = {
                "netem": "network namespaces, veth, tc netem",
                "tun": "network namespaces, packets delayed and lost one by one in user space",
            }[kind]
            return NetnsLinks(lab.processes, kind), _words(words, why)
        except (NetworkError, OSError) as e:
            if wanted:
                raise
            why.append(f"{kind}: {e}")
    return RelayLinks(lab.processes), _words("NO network namespaces: a TCP relay with delays on the loopback", why)


def _words(what: str, why: list[str]) -> str:
    return f"{what} ({'; '.join(why)})" if why else what


def _try(kind: str) -> None:
    """Raises NetworkError, OSError when this kind of link can't be made here."""
    for command in ("ip", "nsenter"):
        if shutil.which(command) is None:
            raise NetworkError(f"no {command} command")
    name = f"{PREFIX}t{secrets.token_hex(2)}"
    _ip("netns", "add", name)
    try:
        if kind == "netem":
            _ip("link", "add", name, "type", "veth", "peer", "name", "wan0", "netns", name)
            _run("tc", "qdisc", "replace", "dev", name, "root", "netem", "delay", "1ms")
        elif not Path("/dev/net/tun").exists():
            raise NetworkError("no /dev/net/tun")
    finally:
        sweep(name)
