"""What a fault is: how it begins and ends, and what it is allowed to cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ops.chaos.field import Field

CONVERGE_S_MAX = 120.0
LOOK_S_MAX = (
    60.0  # at samples, histories and replicas, where all is well; a hub's source may take longer, and then it is late
)
SETTLE_S_MAX = 150.0

Act = Callable[[Field], None]


def nothing(_: Field) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Fault:
    """``begin`` makes it, ``end`` takes it away; in between users go on.  ``after``: once all is well again.

    ``kubeedge`` names the failures of KubeEdge that the row is about, by their numbers in the list of fifteen."""

    key: str
    title: str
    zh: str
    begin: Act
    end: Act = nothing
    after: Act = nothing
    meanwhile: Act = nothing  # once users have changed things, within ``hold_s``
    hold_s: float = 4.0
    kubeedge: tuple[int, ...] = ()
    both: bool = False  # it happens to the hub's side: both nodes are hurt
    changes: bool = True  # users go on meanwhile
    touches: bool = False  # the containers themselves are taken away: they can't be the same ones afterwards
    silences: bool = False  # the mapper that counts is the one that is hurt: it can't be asked meanwhile
    heals: bool = False  # it ends with the link being there again: how soon the node is in sync is measured
    keeps: bool = False  # the field is as it was, also when the row failed
    servers: int = 1  # of the hub
    clocks: bool = False  # its field, which is its own, has clocks that it sets (ops/chaos/clocks.py)
    bound: float = 0.0  # seconds for the whole row; 0: what a row needs at most

    @property
    def bound_s(self) -> float:
        return self.bound or self.hold_s + 2 * CONVERGE_S_MAX + LOOK_S_MAX

    @property
    def settle_s(self) -> float:
        return SETTLE_S_MAX * (1 if self.servers == 1 else 1.5)
