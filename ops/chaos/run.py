"""One fault after the other on one field, each measured in the same way."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ops.chaos import disk, netns, scorecard
from ops.chaos.faults import Fault
from ops.chaos.field import HUB_DISK, Field
from ops.chaos.scorecard import Row
from ops.lab import nodes, setting
from ops.lab.links import CLEAR, Links
from ops.lab.show import StepFailed

PREFIX = "skerry-chaos-"  # of the folder with everything in it
CONVERGE_S_MAX = 120.0
FAILURE_CHARS_MAX = 4000


def measure(f: Field, fault: Fault) -> Row:
    """Never raises for what the fault did: a row that failed says so, and the field is brought back as far as it goes."""
    row = Row(fault.key, fault.title, list(fault.kubeedge))
    try:
        _measure(f, fault, row)
        f.links.shape(f.wild, CLEAR)
        f.links.heal(f.wild)
    except Exception as e:  # whatever a fault did to our own looking, the rows after it are to be measured
        row.failure = f"{'' if isinstance(e, StepFailed) else type(e).__name__ + ': '}{e}"[:FAILURE_CHARS_MAX]
    return row


def _measure(f: Field, fault: Fault, row: Row) -> None:
    hurt = f.nodes if fault.both else [f.wild]
    before = {n: f.steady(n) for n in f.nodes}
    accepted = sum(f.accepted(n) for n in hurt)
    fault.begin(f)
    began = time.monotonic()
    try:
        if fault.changes:
            row.api_writes = sum(f.change(n) for n in f.nodes)
        time.sleep(max(0.0, fault.hold_s - (time.monotonic() - began)))
        row.offline_writes = sum(f.accepted(n) for n in hurt) - accepted
        carried = sum(f.links.bytes(n) for n in hurt)
    finally:
        fault.end(f)
    ended = time.monotonic()
    for n in f.nodes:
        f.make_up(n)
    for n in f.nodes:
        f.converged(n, CONVERGE_S_MAX)
    row.seconds_to_converge = round(time.monotonic() - ended, 1)
    row.bytes_at_reconnect = sum(f.links.bytes(n) for n in hurt) - carried
    fault.after(f)
    _compare(f, fault, row, before)


def _compare(f: Field, fault: Fault, row: Row, before: dict[str, nodes.Containers]) -> None:
    for n in f.nodes:
        if fault.touches and n == f.wild:
            row.notes.append(f"{n}: its containers were removed on purpose, {len(f.steady(n))} are back")
            continue
        now = f.steady(n)
        row.containers += len(before[n])
        row.containers_up += sum(now.get(k) == v for k, v in before[n].items())
        f.lab.untouched(n, now)
    for n in f.nodes:
        lost, doubled = f.samples(n)
        row.events_lost += lost
        row.events_doubled += doubled
        row.divergence += f.divergence(n)
    doubled, stale = f.reports()
    row.events_doubled += doubled + stale
    if stale:
        row.notes.append(f"{stale} reports are older than the one before them")


def run(
    faults: Sequence[Fault],
    *,
    links: str = "",
    say: Callable[[str], None] = print,
    kept: Callable[[Sequence[Row], str, str], None] = lambda rows, words, kind: None,
) -> tuple[list[Row], str, str]:
    """(rows, links in words, kind of links).  A row that failed ends its field: the next one has a field of its own, so that
    no row answers for another.  ``kept`` gets all rows so far after each, for runs that are broken off."""
    rows: list[Row] = []
    words = kind = ""
    left = list(faults)
    while left:
        for row, words, kind in _on_one_field(left, links, say):
            rows.append(row)
            left.pop(0)
            kept(rows, words, kind)
    return rows, words, kind


def _on_one_field(faults: Sequence[Fault], links: str, say: Callable[[str], None]) -> Iterator[tuple[Row, str, str]]:
    """Rows until one fails.  Ends and removes all that it made, also when it fails."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        hub_disk = disk.small(folder / "hub-disk", HUB_DISK)
        stack.callback(hub_disk.close)
        words = ""

        def link(made: nodes.Lab) -> Links:
            nonlocal words
            made.hub = folder / "hub-disk" / "hub"
            found, words = netns.best(made, links)
            stack.callback(found.close)
            say(f"links: {words}")
            return found

        lab = nodes.started(folder, link)
        f = Field(lab, hub_disk)
        stack.callback(f.close)
        stack.callback(setting.down, lab)
        f.settle()
        for fault in list(faults):
            row = _row(f, fault, say)
            yield row, words, lab.links.kind
            if row.failure:
                return


def _row(f: Field, fault: Fault, say: Callable[[str], None]) -> Row:
    began = time.monotonic()
    row = measure(f, fault)
    took = time.monotonic() - began
    say(f"{'ok    ' if row.ok else 'FAILED'} {fault.title}: {row.seconds_to_converge} s to converge ({took:.0f} s in all)")
    if row.failure:
        say(row.failure)
    return row


def main_report(rows: Sequence[Row], words: str, kind: str, out: Path) -> bool:
    scorecard.show(rows, words)
    scorecard.write(rows, words, kind, out)
    return all(r.ok for r in rows)
