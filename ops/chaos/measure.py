"""One fault on a field, measured: the same for each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ops.chaos.faults.fault import CONVERGE_S_MAX, Fault
from ops.chaos.field import Field
from ops.chaos.looks import Looks
from ops.chaos.scorecard import Row, stamped
from ops.lab.links import CLEAR
from ops.lab.nodes import LOG_LINES, Containers
from ops.lab.show import StepFailed

FAILURE_CHARS_MAX = 6000


class TooLong(BaseException):
    """A row's time is over.  No Exception: nobody who waits for something else may take it for that."""


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raises TooLong in the middle of whatever the block does.  In the main thread only."""
    assert threading.current_thread() is threading.main_thread()

    def over(_: int, __: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(f: Field, looks: Looks, fault: Fault) -> Row:
    """Never raises for what the fault did: a row that failed says so.  Its field is then not to be used again."""
    row = stamped(Row(fault.key, fault.title, list(fault.kubeedge), servers=fault.servers, holds_s=fault.hold_s))
    began = time.monotonic()
    try:
        with bounded(fault.bound_s):
            _measure(f, looks, fault, row)
    except TooLong:
        row.failure = f"no end after {fault.bound_s:g} s: given up"
    except Exception as e:  # whatever a fault did to our own looking, the rows after it are to be measured
        row.failure = str(e) if isinstance(e, StepFailed) else f"{type(e).__name__}: {e}\n{_tails(f)}"
        row.failure = row.failure[:FAILURE_CHARS_MAX]
    row.took_s = round(time.monotonic() - began, 1)
    return row


def _tails(f: Field) -> str:
    logs = sorted(f.lab.processes.logs.glob("*.log"))
    return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text()[-4000:].splitlines()[-LOG_LINES // 3 :]) for p in logs)


def _measure(f: Field, looks: Looks, fault: Fault, row: Row) -> None:
    hurt = f.nodes if fault.both else [f.wild]
    before = {n: f.steady(n) for n in f.nodes}
    accepted, written = sum(f.accepted(n) for n in hurt), f.api_writes
    fault.begin(f)
    began = time.monotonic()
    want = carried = 0
    try:
        if fault.changes:
            for n in f.nodes:
                f.change(n)
        _hold(fault.hold_s - (time.monotonic() - began), lambda: fault.meanwhile(f))
        if not fault.silences:
            row.offline_writes = sum(f.accepted(n) for n in hurt) - accepted
        row.api_writes = f.api_writes - written
        carried = sum(f.links.bytes(n) for n in hurt)
        if fault.heals:
            want = f.lab.last_of_scope(f.wild)
    finally:
        fault.end(f)
    ended = time.monotonic()
    if fault.heals:
        row.seconds_in_sync = round(looks.until_cursor(f.wild, want), 2)
    for n in f.nodes:
        f.make_up(n)
    for n in f.nodes:
        looks.converged(n, CONVERGE_S_MAX)
    row.seconds_to_converge = round(time.monotonic() - ended, 1)
    row.bytes_at_reconnect = sum(f.links.bytes(n) for n in hurt) - carried
    fault.after(f)
    f.links.shape(f.wild, CLEAR)
    f.links.heal(f.wild)
    _compare(f, looks, fault, row, before)


def _hold(seconds: float, work: Callable[[], None]) -> None:
    deadline = time.monotonic() + seconds
    work()
    time.sleep(max(0.0, deadline - time.monotonic()))


def _compare(f: Field, looks: Looks, fault: Fault, row: Row, before: dict[str, Containers]) -> None:
    if fault.touches:
        del before[f.wild]
        row.notes.append(f"the containers of the node were removed on purpose, {len(f.steady(f.wild))} are back")
    up = looks.untouched(before)
    for n, were in before.items():
        row.containers += len(were)
        row.containers_up += up[n]
    for n in f.nodes:
        lost, doubled = looks.samples(n)
        row.events_lost += lost
        row.events_doubled += doubled
        row.divergence += looks.divergence(n)
    lacking, doubled, holes, notes = looks.log_checks()
    row.events_lost += lacking
    row.events_doubled += doubled
    row.divergence += holes
    row.notes += notes[:10]
