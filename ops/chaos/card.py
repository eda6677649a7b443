"""A card: all its rows, in lanes side by side, each lane a process of its own with a field of its own (worker.py).

Whatever a row does, the card goes on: a lane that doesn't answer in time or dies is ended, its row says so, and another
lane takes the rows that are left.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ops.chaos import leftovers, scorecard
from ops.chaos.faults.fault import Fault
from ops.chaos.scorecard import Row

END_S = 60.0  # of a lane that was asked to end: its field is taken down
SLACK_S = 60.0  # a lane bounds its rows itself; this much later it is believed to hang
STOPPED_S = 1.0
LANES_MAX = 8

Say = Callable[[str], None]


class Lane:
    """The worker process and who talks to it."""

    def __init__(self, links: str) -> None:
        argv = [sys.executable, "-m", "ops.chaos.worker", links]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def measure(self, fault: Fault) -> Row:
        """Always a row.  After one for which it had to end, the lane is to be replaced."""
        p = self._process
        assert p.stdin is not None and p.stdout is not None
        limit = 2 * fault.settle_s + fault.bound_s + SLACK_S
        try:
            print(fault.key, file=p.stdin, flush=True)
            with selectors.DefaultSelector() as ready:
                ready.register(p.stdout, selectors.EVENT_READ)
                line = p.stdout.readline() if ready.select(limit) else ""
        except OSError:
            line = ""
        if line:
            return scorecard.row_of(json.loads(line))
        why = f"its lane died, exit {p.poll()}" if p.poll() is not None else f"its lane did not answer in {limit:.0f} s"
        self.end()
        return scorecard.stamped(Row(fault.key, fault.title, list(fault.kubeedge), servers=fault.servers, failure=why))

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        p = self._process
        assert p.stdin is not None and p.stdout is not None
        with contextlib.suppress(OSError):
            p.stdin.close()
        try:
            p.wait(END_S)
        except subprocess.TimeoutExpired:
            p.terminate()
            try:
                p.wait(END_S)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        p.stdout.close()


class Rows:
    """What is left to be measured, and what was."""

    def __init__(self, faults: Sequence[Fault], done: Sequence[Row], order: Sequence[str]) -> None:
        self._left = deque(faults)
        self._done = {r.fault: r for r in done}
        self._order = {key: n for n, key in enumerate(order)}
        self.lock = threading.Lock()

    def next(self, servers: int) -> Fault | None:
        """One on a hub of so many servers if there is one: making a field costs more than most rows."""
        with self.lock:
            found = next((f for f in self._left if f.servers == servers), self._left[0] if self._left else None)
            if found is not None:
                self._left.remove(found)
            return found

    def add(self, row: Row) -> list[Row]:
        with self.lock:
            self._done[row.fault] = row
            return self.all()

    def all(self) -> list[Row]:
        return sorted(self._done.values(), key=lambda r: self._order.get(r.fault, len(self._order)))


def run(
    faults: Sequence[Fault],
    *,
    order: Sequence[str],
    lanes: int = 1,
    links: str = "",
    done: Sequence[Row] = (),
    say: Say = print,
    kept: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> list[Row]:
    """All rows, those in ``done`` included, in the card's order.  ``kept`` gets them after each, for runs that
    are broken off."""
    rows = Rows(faults, done, order)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_lane, args=(rows, n, min(lanes, len(faults)), links, say, kept, stop), name=f"lane {n}")
        for n in range(min(lanes, len(faults)))
    ]
    for t in threads:
        t.start()
    try:
        for t in threads:
            while t.is_alive():  # a join without an end would not hear a signal
                t.join(0.5)
    finally:
        stop.set()
        for t in threads:
            t.join()
    return rows.all()


def _lane(
    rows: Rows,
    number: int,
    lanes: int,
    links: str,
    say: Say,
    kept: Callable[[Sequence[Row]], None],
    stop: threading.Event,
) -> None:
    lane: Lane | None = None
    servers = 3 if number else 1  # the second lane begins with the hubs of three
    try:
        while not stop.is_set() and (fault := rows.next(servers)) is not None:
            servers = fault.servers
            if lane is None:
                lane = Lane(links)
            began = time.monotonic()
            row = lane.measure(fault)
            row.side_by_side = lanes
            if lane.ended:
                lane = None
                leftovers.sweep()
                if stop.wait(STOPPED_S):
                    break  # we were told to end, and so was the lane: that is no row
            every = rows.add(row)
            with rows.lock:
                kept(every)
                say(_line(row, time.monotonic() - began))
    finally:
        if lane is not None:
            lane.end()


def _line(row: Row, took_s: float) -> str:
    in_sync = "" if row.seconds_in_sync is None else f"in sync {row.seconds_in_sync:.2f} s, "
    head = (
        f"{'ok    ' if row.ok else 'FAILED'} {row.fault}: {in_sync}{row.seconds_to_converge} s to converge ({took_s:.0f} s)"
    )
    bad = [f"containers {row.containers_up}/{row.containers}", f"lost {row.events_lost}", f"doubled {row.events_doubled}",
           f"diverged {row.divergence}"]  # fmt: skip
    return "\n".join([head, *([] if row.ok else [*bad, *row.notes, row.failure])])
