"""One lane of a card: a process that measures rows one after the other, each on a field that the ones before it left well.

    python -m ops.chaos.worker <kind of links, or "">

reads a fault's key a line, answers a row as a line of JSON.  A row that failed ends its field: the next one has a field of
its own, so that no row answers for another.  The end of the input ends field and process; so does SIGTERM.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import TextIO

import structlog

from ops.chaos import clocks, disk, faults, leftovers, measure, netns, scorecard
from ops.chaos.faults.fault import Fault
from ops.chaos.field import HUB_DISK, HUB_OF_THREE_DISK, SETTLE_S, Field, start_whole_cloud
from ops.chaos.looks import Looks
from ops.lab import nodes, setting
from ops.lab.links import Links

SETTLE_TRIES = 2


class Ground:
    """The field that there is now, if any."""

    def __init__(self, links: str) -> None:
        self._wanted = links
        self._stack = contextlib.ExitStack()
        self._kind = (0, False)
        self.words = ""
        self._found: tuple[Field, Looks] | None = None

    def field(self, fault: Fault) -> tuple[Field, Looks]:
        """Raises StepFailed and others when none can be made."""
        kind = (fault.servers, fault.clocks)
        if self._found is not None and self._kind == kind:
            return self._found
        self.end()
        try:
            self._kind = kind
            self._found = self._make(*kind)
        except BaseException:
            self.end()
            raise
        return self._found

    def _make(self, servers: int, clocks_: bool) -> tuple[Field, Looks]:
        folder = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        leftovers.claim(folder)
        hub_disk = disk.small(folder / "hub-disk", HUB_DISK if servers == 1 else HUB_OF_THREE_DISK)
        self._stack.callback(hub_disk.close)
        day = clocks.Day(folder) if clocks_ else None
        port = 0

        def link(made: nodes.Lab) -> Links:
            made.hub = folder / "hub-disk" / "hub"
            found, self.words = netns.best(made, self._wanted)
            self._stack.callback(found.close)
            if isinstance(found, netns.NetnsLinks):
                leftovers.claim(folder, devices=found.devices)
            return found

        def cloud(made: nodes.Lab) -> None:
            nonlocal port
            port = start_whole_cloud(made, day)

        lab = nodes.started(folder, link, servers=servers, cloud=cloud)
        f = Field(lab, hub_disk, port, day)
        self._stack.callback(f.close)
        self._stack.callback(setting.down, lab)
        self._stack.callback(lab.processes.end_all_soon)
        f.settle()
        looks = Looks(f)
        for node in f.nodes:
            looks.converged(node, SETTLE_S)
        return f, looks

    def end(self) -> None:
        self._found = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()


def row(ground: Ground, fault: Fault) -> scorecard.Row:
    for left in range(SETTLE_TRIES - 1, -1, -1):
        try:
            with measure.bounded(fault.settle_s):
                f, looks = ground.field(fault)
            break
        except (Exception, measure.TooLong) as e:  # a busy machine: once more, from the beginning
            ground.end()
            if not left:
                why = f"there is no field to measure on: {type(e).__name__}: {e}"[: measure.FAILURE_CHARS_MAX]
                return scorecard.stamped(scorecard.Row(fault.key, fault.title, list(fault.kubeedge), failure=why))
    found = measure.measure(f, looks, fault)
    found.links = f.links.kind
    if (found.failure and not fault.keeps) or fault.clocks:
        ground.end()
    return found


def main(links: str, ask: TextIO, answer: TextIO) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # warns at each TLS connection that nats-py ends
    # Our own looks at nodes that are being hurt find them away: no news.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    signal.signal(signal.SIGTERM, _interrupt)
    ground = Ground(links)
    try:
        for line in ask:
            print(scorecard.line_of(row(ground, faults.chosen(line.strip())[0])), file=answer, flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ground.end()


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], sys.stdin, sys.stdout)
