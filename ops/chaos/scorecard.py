"""What a fault cost, measured; as a table for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

COMMAND_S_MAX = 10.0
COLUMNS = ("containers up", "writes offline", "API writes", "lost", "doubled", "bytes back", "s to converge", "diverged")


@dataclass(slots=True)
class Row:
    fault: str
    title: str
    kubeedge: list[int]
    containers: int = 0  # that nobody wanted changed
    containers_up: int = 0  # of these: the same containers, running all through it
    offline_writes: int = 0  # samples that the hurt nodes' own bus accepted from begin to end of the fault
    api_writes: int = 0  # changes by users that the API accepted meanwhile
    events_lost: int = 0  # samples accepted at the edge that never came to the hub
    events_doubled: int = 0  # samples or reports that are in the log twice, or a report older than the one before it
    bytes_at_reconnect: int = 0  # both ways, all layers, from the fault's end until all was well; samples included
    seconds_to_converge: float = 0.0
    divergence: int = 0  # objects in which a replica differs from the log afterwards, byte for byte
    failure: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        lost = self.events_lost or self.events_doubled or self.divergence
        return not (lost or self.failure) and self.containers_up == self.containers


def show(rows: Sequence[Row], links: str, console: Console | None = None) -> None:
    console = console or Console(highlight=False, width=None if Console().is_terminal else 150)
    table = Table(title=f"links: {links}", title_justify="left")
    table.add_column("fault")
    for title in (
        "containers up",
        "writes offline",
        "API writes",
        "lost",
        "doubled",
        "bytes back",
        "s to converge",
        "diverged",
    ):
        table.add_column(title, justify="right")
    table.add_column("KubeEdge no.")
    for r in rows:
        table.add_row(
            r.title if r.ok else f"[red]{r.title}[/red]", f"{r.containers_up}/{r.containers}", str(r.offline_writes),
            str(r.api_writes), str(r.events_lost), str(r.events_doubled), f"{r.bytes_at_reconnect:,}",
            f"{r.seconds_to_converge:.1f}", str(r.divergence), ", ".join(map(str, r.kubeedge)),
        )  # fmt: skip
    console.print(table)
    for r in rows:
        for note in [*([f"FAILED: {r.failure}"] if r.failure else []), *r.notes]:
            console.print(f"{r.fault}: {note}", markup=False)


def _commit() -> str:
    argv = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    return done.stdout.strip() or "unknown"


def write(rows: Sequence[Row], links: str, kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "links": kind,
        "links_words": links,
        "ok": all(r.ok for r in rows),
        "rows": [{**asdict(r), "ok": r.ok} for r in rows],
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
