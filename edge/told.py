"""Which log has heard all that this node has to say.

A log of another epoch may lack what its predecessor acknowledged, and the outbox has forgotten that: everything is said
again.  A node whose store is new can't know which log heard what it said before: it says everything once more when it is
synced for the first time, since a hub may be restored between its first words and that moment.

The mark of the epochs is stored after what it stands for was handed over, so a crash in between says it again.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.state import NodeState

KEY = b"told-to"  # of the ``state`` table


def told_to(state: NodeState, mark: bytes, say_all: Callable[[str], None]) -> None:
    """To be called when the replica is synced.  ``mark``: of the epochs of its cursors (schemas.sync.epochs_mark);
    ``say_all(reason)`` reports node, pods and devices anew."""
    before = state.get(KEY)
    if mark == before:
        return
    say_all("the log is of another epoch" if before is not None else "the store is new")
    state.commit({KEY: mark}, [])
