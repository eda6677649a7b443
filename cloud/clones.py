"""Two daemons that live on one identity: a cloned disk image, a backup restored beside the original, a thief.

Each run of a daemon has an id of its own, told in its beats.  A new run is what a restart looks like; a run that *comes
back* after another was heard is one too many.  Then:

* the one that was there first keeps the identity, the newer one is fenced: its beats are answered so, and it stops talking
  for the node.  Not the other way round: a restart can't be mistaken for a clone, and the node that has run for long, with
  pods and devices, is the one whose silence would cost most.  The newest-wins rule would let every clone take a node over;
* fencing is a request.  A thief's code ignores it, so the operator is told as well (condition ``DuplicateIdentity`` on the
  Node, an event in the audit log), and can give the true machine a new key: ``skerry token create --node NAME`` cuts all
  holders of the old one off when it is used, and leaves none of them a way back.

Containers are left alone on both: the cloud can't know which of two machines has the devices.
Pure: the caller passes the time in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# Two daemons are heard in turns within a few beats; a run that was last heard longer ago than this is over.
TURN_S = 900.0
# How long a fenced run must be silent before the node counts as one again.
QUIET_S = 900.0
RUNS_MAX = 4  # remembered of a node: the holder and the last others
NODES_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """``fenced``: this beat is not the identity's.  ``news``: what should be told, "" when it is known already.  ``new``: a
    restart or a clone; if the run before it can be heard, it is a clone.  ``known_s``: since when the run is heard."""

    fenced: bool = False
    news: str = ""
    new: bool = False
    known_s: float = 0.0


@dataclass(slots=True)
class _Node:
    holder: str
    runs: OrderedDict[str, float]  # run -> when it was heard last
    first: dict[str, float]
    since: float
    clones_at: float | None = None  # when a fenced run was heard last
    settled: bool = False  # it was told that it is one


class Clones:
    """``beat`` for each beat that was heard."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, _Node] = OrderedDict()

    def beat(self, node: str, run: str, now_s: float) -> Verdict:
        """``run`` "" (an older daemon) is never fenced."""
        if not run:
            return Verdict()
        known = self._nodes.get(node)
        if known is None:
            self._nodes[node] = _Node(run, OrderedDict({run: now_s}), {run: now_s}, now_s)
            if len(self._nodes) > NODES_MAX:
                self._nodes.popitem(last=False)
            return Verdict()
        last = next(reversed(known.runs))
        came_back = run in known.runs and last != run and now_s - known.runs[run] < TURN_S
        new = run not in known.runs
        known.first.setdefault(run, now_s)
        known.runs[run] = now_s
        known.runs.move_to_end(run)
        while len(known.runs) > RUNS_MAX:
            old, _ = known.runs.popitem(last=False)
            known.first.pop(old, None)
        if known.clones_at is None:
            if not came_back:
                known.holder = run  # a restart, as far as anybody can tell
                return Verdict(new=new, known_s=now_s - known.first[run])
            known.clones_at, known.settled = now_s, True
            known.holder, other = sorted((run, last), key=lambda r: (known.first[r], r))
            news = f"two daemons live on the identity of {node}: run {known.holder} is kept, run {other} is fenced"
            return Verdict(fenced=run != known.holder, news=news)
        if run == known.holder:
            return Verdict(known_s=now_s - known.first[run])
        if now_s - known.runs.get(known.holder, 0.0) > TURN_S:
            known.holder = run  # the one that was kept is gone
            return Verdict()
        known.clones_at = now_s
        return Verdict(fenced=True)

    def over(self, now_s: float) -> list[str]:
        """Nodes that are one again, each told once; also those that may have been called two by an earlier process."""
        out = []
        for name, node in self._nodes.items():
            if node.clones_at is None and not node.settled and now_s - node.since > QUIET_S:
                node.settled = True
                out.append(name)
            if node.clones_at is not None and now_s - node.clones_at > QUIET_S:
                node.clones_at = None
                for run in [r for r in node.runs if r != node.holder]:
                    del node.runs[run]
                    node.first.pop(run, None)
                out.append(name)
        return out
