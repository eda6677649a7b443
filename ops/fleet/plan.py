"""What a run of the fleet benchmarks is asked for, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass

from bus import link

STEPS = ("connect", "steady", "one", "all", "storm", "catch_up", "reconnect")
ALWAYS = "connect"
ALONE = 10_000  # objects of the node that reconnects alone
PHASE_S, PHASE_S_A_NODE = 600.0, 0.03  # of a phase, at most: 100,000 nodes may take an hour to connect on two cores
FREE_MB_MIN = 1500.0  # below it no more nodes are connected: the phases after that need some, and a kill ends all


@dataclass(frozen=True, slots=True)
class Plan:
    """``via``: ``cluster`` writes objects as the API does and the dispatcher carries them, ``meta`` writes what it would
    write.  ``changes``: changes a second while latency is measured.  ``share``: of objects, changed while nodes are away,
    in each of ``hours`` once.  ``shared``: nodes that are ``per_connection`` on one connection (None: all).  ``leafs``:
    each node is behind a leaf link.  ``plain``: no TLS for clients.  ``alone``: objects of the node whose reconnect is
    measured.  ``gogc``: GOGC of the hub's servers (None: as they are deployed).  ``pace``: nodes of a process that are on
    their way into sync at a time (0: as many as come)."""

    # Real nodes have a connection each; where that is more memory than the machine has, the output says what was shared.

    nodes: int
    objects: int = 10
    via: str = "cluster"
    changes: float = 500.0
    seconds: float = 30.0
    share: float = 0.1
    hours: int = 1
    per_connection: int = 1
    shared: int | None = None
    beat_s: float = link.BEAT_S
    workers: int | None = None
    reports: bool = True
    only: frozenset[str] = frozenset()
    servers: int = 1
    shards: int | None = None
    leafs: bool = False
    plain: bool = False
    alone: int = ALONE
    gogc: int | None = None
    pace: int = 0

    @property
    def phase_s(self) -> float:
        return PHASE_S + PHASE_S_A_NODE * self.nodes + 2 * self.seconds

    def asks_for(self, step: str) -> bool:
        """``reconnect`` only when it is named: it is a node of its own."""
        if step == ALWAYS:
            return self.only != frozenset({"reconnect"})
        return step in self.only or (not self.only and step != "reconnect")
