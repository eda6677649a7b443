"""What a fault cost, measured; as a table for people and as JSON, which is a row's only memory: a card can be completed."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COMMAND_S_MAX = 10.0
COLUMNS = (
    "containers up", "writes offline", "API writes", "lost", "doubled", "bytes back", "s in sync", "s to converge",
    "diverged",
)  # fmt: skip


class CardError(Exception):
    """A card can't be read; the message says which and why."""


@dataclass(slots=True)
class Row:
    fault: str
    title: str
    kubeedge: list[int]
    servers: int = 1  # of the hub
    holds_s: float = 0.0  # how long the fault lasts, at least
    containers: int = 0  # that nobody wanted changed
    containers_up: int = 0  # of these: the same containers, running all through it
    offline_writes: int = 0  # samples that the hurt nodes' own bus accepted from begin to end of the fault
    api_writes: int = 0  # changes by users that the API accepted meanwhile
    events_lost: int = 0  # samples accepted at the edge that never came to the hub; events that a history lacks
    events_doubled: int = 0  # samples or reports that are in the log twice, or a report older than the one before it
    bytes_at_reconnect: int = 0  # both ways, all layers, from the fault's end until all was well; samples included
    seconds_in_sync: float | None = None  # from a link's heal until the node had all that was written meanwhile
    seconds_to_converge: float = 0.0  # until API, engine and mounted settings agreed, users' retries included
    divergence: int = 0  # objects in which a replica differs from the log afterwards, byte for byte; holes in chains
    failure: str = ""
    notes: list[str] = field(default_factory=list)
    commit: str = ""
    date: str = ""
    links: str = ""
    side_by_side: int = 1  # rows that were measured at the same time on this machine, each on a field of its own
    took_s: float = 0.0

    @property
    def ok(self) -> bool:
        lost = self.events_lost or self.events_doubled or self.divergence
        return not (lost or self.failure) and self.containers_up == self.containers


@cache
def _commit() -> str:
    argv = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    return done.stdout.strip() or "unknown"


def stamped(row: Row) -> Row:
    row.commit = _commit()
    row.date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return row


def line_of(row: Row) -> str:
    return json.dumps({**asdict(row), "ok": row.ok})


def row_of(found: Mapping[str, Any]) -> Row:
    """Raises CardError."""
    known = {f.name for f in fields(Row)}
    try:
        return Row(**{k: v for k, v in found.items() if k in known})
    except TypeError as e:
        raise CardError(f"not a row of a card: {e}") from e


def words(row: Row) -> tuple[str, ...]:
    """A row's figures in the order of COLUMNS."""
    in_sync = "" if row.seconds_in_sync is None else f"{row.seconds_in_sync:.2f}"
    return (
        f"{row.containers_up}/{row.containers}", str(row.offline_writes), str(row.api_writes), str(row.events_lost),
        str(row.events_doubled), f"{row.bytes_at_reconnect:,}", in_sync, f"{row.seconds_to_converge:.1f}",
        str(row.divergence),
    )  # fmt: skip


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    console = console or Console(highlight=False, width=None if Console().is_terminal else 160)
    table = Table()
    table.add_column("fault")
    for title in COLUMNS:
        table.add_column(title, justify="right")
    table.add_column("KubeEdge no.")
    for r in rows:
        title = r.title if r.ok else f"[red]{r.title}[/red]"
        table.add_row(title, *words(r), ", ".join(map(str, r.kubeedge)))
    console.print(table)
    for r in rows:
        for note in [*([f"FAILED: {r.failure}"] if r.failure else []), *r.notes]:
            console.print(f"{r.fault}: {note}", markup=False)
    good = sum(r.ok for r in rows)
    console.print(f"{good} of {len(rows)} rows without loss, double, difference or touched container")


def write(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "ok": all(r.ok for r in rows),
        "rows": [{**asdict(r), "ok": r.ok} for r in rows],
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(body, indent=1) + "\n")
    new.replace(path)


def read(path: Path) -> list[Row]:
    """Raises CardError."""
    try:
        return [row_of(r) for r in json.loads(path.read_text())["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise CardError(f"{path} is no card: {e!r}") from e
