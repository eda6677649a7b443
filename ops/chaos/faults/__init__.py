"""The faults, one a row of the scorecard.

Of the fifteen failures of KubeEdge that the rows name by number, these have a row: 1 what was queued for an offline node is
thrown away; 3 a crash between two writes; 4 the edge database is lost; 5 reports lost, reordered or stale after a reconnect;
7 offline writes are refused; 8 credentials run out while a node is away; 9 NotReady until a manual restart; 10 delete and
recreate of one name, zombies, doubles, pods not recovered after an offline reboot; 15 what a deleted pod used stays, and a
fixed wait of 30 s after each reconnect.  The others are not faults that come and go (2, 6: scale; 11: idle traffic;
12: logs; 13, 14).
"""

from __future__ import annotations

import time

from ops.chaos.faults import cloud, day, hubs, links, processes, stores, three
from ops.chaos.faults.fault import Fault, nothing

FAULTS: list[Fault] = [
    Fault("none", "nothing at all", "什么都没有发生", nothing, hold_s=2.0),
    *links.FAULTS,
    *processes.FAULTS,
    *cloud.FAULTS,
    *stores.FAULTS,
    *hubs.FAULTS,
    *three.FAULTS,
    *day.FAULTS,
]
SHORT = ("cut-3", "kill-leaf", "no-store")  # one of each kind, for every run of the tests
# Not on the card: shows that a row which never ends ends all the same.
HANG = Fault("hang", "a row that never ends", "永不结束的一行", lambda _: time.sleep(10_000), keeps=True, bound=3.0)


def chosen(keys: str) -> list[Fault]:
    """Faults by their keys, with commas; '' is all of them.  Raises KeyError."""
    if not keys:
        return list(FAULTS)
    known = {f.key: f for f in (*FAULTS, HANG)}
    return [known[k] for k in keys.split(",")]
