"""What lies between nodes and hub in a lab, as an interface: a relay here, network namespaces in ops/chaos/netns.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from ops.lab.processes import Processes
from ops.lab.show import StepFailed
from ops.lab.world import Wire

T = TypeVar("T")
Way = Literal["both", "up", "down"]  # up: from the node to the hub
Side = Literal["node", "hub"]


@dataclass(frozen=True, slots=True)
class Profile:
    """How bad a link is.  ``rtt_ms`` is added to a round trip, ``jitter_ms`` at most to each way; ``loss`` is the share of
    packets lost each way."""

    name: str
    rtt_ms: float = 0
    jitter_ms: float = 0
    loss: float = 0


CLEAR = Profile("clear")
SATELLITE = Profile("satellite", rtt_ms=600, loss=0.05)
CELLULAR = Profile("cellular", rtt_ms=80, jitter_ms=120, loss=0.02)


class Links(Protocol):
    kind: str
    host: str  # where the hub listens

    def add(self, node: str, hub_port: int) -> str | None:
        """Makes a node's link; the URL that its leaf must use instead of the hub's own, if any."""

    def inside(self, node: str) -> Sequence[str]:
        """What a command line must begin with to run where the node is."""

    def run_inside(self, node: str, work: Callable[[], T]) -> T:
        """``work()`` in a thread of this process that sees the node's network."""

    def shape(self, node: str, profile: Profile) -> None: ...

    def cut(self, node: str, way: Way = "both") -> None: ...

    def heal(self, node: str) -> None: ...

    def unplug(self, node: str, side: Side) -> None:
        """The network device of one end goes down: that end is told, the other is not."""

    def plug(self, node: str, side: Side) -> None: ...

    def bytes(self, node: str) -> int:
        """Carried so far, both ways."""

    def close(self) -> None: ...


class RelayLinks:
    """Every node on the host's own network, its leaf connected through a TCP relay.  A cut ends connections (as a pulled
    cable is seen by both ends); delay is added to each piece of data, a lost packet is a retransmission's wait."""

    kind = "relay"
    host = "127.0.0.1"

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.wires: dict[str, Wire] = {}

    def add(self, node: str, hub_port: int) -> str:
        argv = [sys.executable, "-m", "ops.lab.relay", "127.0.0.1", str(hub_port), "0"]
        wire = Wire.of(self._processes.start(f"link-of-{node}", argv, pipes=True))
        self.wires[node] = wire
        return f"tls://127.0.0.1:{wire.port}"

    def inside(self, node: str) -> Sequence[str]:
        return ()

    def run_inside(self, node: str, work: Callable[[], T]) -> T:
        return work()

    def shape(self, node: str, profile: Profile) -> None:
        self.wires[node].shape(profile.rtt_ms / 2, profile.jitter_ms, profile.loss)

    def cut(self, node: str, way: Way = "both") -> None:
        if way != "both":
            raise StepFailed("a TCP relay can't cut one direction only: this needs network namespaces")
        self.wires[node].cut()

    def heal(self, node: str) -> None:
        self.wires[node].heal()

    def unplug(self, node: str, side: Side) -> None:
        raise StepFailed("there is no network device to take down: this needs network namespaces")

    def plug(self, node: str, side: Side) -> None:
        """Nothing was unplugged."""

    def bytes(self, node: str) -> int:
        return sum(self.wires[node].count())

    def close(self) -> None:
        """Relays are processes of the lab, and end with them."""
