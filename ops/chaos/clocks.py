"""Clocks of processes that are set ahead while these run: a day's cut does not take a day.

libfaketime (Debian: ``faketime``) is loaded before libc and answers for wall and monotonic clock with an offset that it
reads from a file, each time anew.  Setting the file ahead is to a process what it is to be suspended that long: every timer
that would have been due fires at once, every age has grown.  What a process waits for in the kernel it notices by its next
event, which a node with beats has twice a second.

It can't reach a program that is not linked with libc: nats-server keeps the machine's clock.
"""

from __future__ import annotations

import time
from pathlib import Path

from ops.lab.show import StepFailed

LIBRARY = "libfaketimeMT.so.1"  # for processes with threads
PLACES = (
    "/usr/lib/*/faketime",
    "/usr/lib/faketime",
    "/usr/lib64/faketime",
    "/usr/local/lib/faketime",
    "/usr/local/lib/*/faketime",
)


def library() -> Path:
    """Raises StepFailed."""
    for place in PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/{LIBRARY}")):
            return found
    raise StepFailed(f"no {LIBRARY}: this row needs libfaketime (Debian: apt-get install faketime)")


class Clock:
    """The clock of a machine: of all processes that were started with its ``env``."""

    def __init__(self, file: Path) -> None:
        """Raises StepFailed."""
        self._file = file
        self.ahead_s = 0
        self._preload = str(library())
        self._write()

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": self._preload, "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1"}

    def go(self, seconds: int) -> None:
        """Ahead, and never back."""
        assert seconds > 0
        self.ahead_s += seconds
        self._write()

    def time(self) -> float:
        """What its processes are told."""
        return time.time() + self.ahead_s

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"+{self.ahead_s}\n")
        new.replace(self._file)


# A day's cut as the servers see it: 24 hours are 144 s, and credentials that live 20 hours are ones that live 2 minutes.
HOURS = 24
HOUR_AT_SERVERS_S = 6.0
CREDENTIALS_LIFE = "2m"


class Day:
    """The two clocks of a field that lives through a day: of the nodes and of the cloud.  They are set apart while no link
    joins the two: the cloud's leaders would lose their leases at each step."""

    def __init__(self, folder: Path) -> None:
        """Raises StepFailed."""
        self.nodes, self.cloud = Clock(folder / "nodes.clock"), Clock(folder / "cloud.clock")
