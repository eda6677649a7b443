"""``python -m ops.sim --seed 7``: one run; ``--runs 100``: so many seeds from there.  Failures are shrunk."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import structlog

from ops.sim import faults
from ops.sim.run import STEPS, Case, Result, parse_ranges, run, shrink


def commit() -> str:
    """Of this code, for the line that repeats a failure; "unknown" outside a repository."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return told.stdout.strip()
    return "unknown"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The code under test logs every store that is full; thousands of those are the point here."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


PROGRESS_S = 30.0  # wall time between two signs of life of a long run


def describe(failed: Result, small: Case | None = None) -> str:
    lines = [f"seed {failed.case.seed} fails (commit {commit()}): {failed.failure}", f"  repeat: {failed.case.command()}"]
    if small is not None and small != failed.case:
        lines.append(f"  shrunk: {small.command()}")
    return "\n".join(lines)


@click.command()
@click.option("--seed", default=1, help="first seed")
@click.option("--runs", default=1, help="how many seeds, one after the other")
@click.option("--steps", default=STEPS, help="what users and faults do in a run, in number")
@click.option("--faults", "kinds", default="", help=f"only these kinds, with commas: {', '.join(faults.KINDS)}; or none")
@click.option("--only", default="", help="only these steps, as a failure prints them: 3,7-9")
@click.option("--trace", is_flag=True, help="print the end of the trace of a failure")
def main(seed: int, runs: int, steps: int, kinds: str, only: str, trace: bool) -> None:
    """Simulate hub, cloud and edges with faults, and check what must hold."""
    chosen = None if not kinds else frozenset() if kinds == "none" else frozenset(kinds.split(","))
    unknown = (chosen or frozenset()) - set(faults.KINDS)
    if unknown:
        raise click.BadParameter(f"no such fault: {', '.join(sorted(unknown))}", param_hint="--faults")
    try:
        happen = parse_ranges(only) if only else None
    except ValueError as e:
        raise click.BadParameter(f"{only}: numbers and ranges, as 3,7-9", param_hint="--only") from e
    began, events, commits, failed = time.monotonic(), 0, 0, 0
    told = began
    with quiet():
        for n in range(seed, seed + runs):
            result = run(Case(n, steps, chosen, happen))
            events, commits = events + result.events, commits + result.commits_checked
            if result.failure:
                failed += 1
                click.echo(describe(result, shrink(result.case) if happen is None else None))
                if trace:
                    click.echo("\n".join("    " + line for line in result.tail))
            elif runs == 1:
                click.echo(f"seed {n}: all held; trace {result.trace_hash}; faults {result.faults}")
            if (now := time.monotonic()) - told > PROGRESS_S:
                told = now
                click.echo(f"... {n - seed + 1} of {runs} runs, {failed} failed, {now - began:.0f} s", err=True)
    took = time.monotonic() - began
    click.echo(
        f"{runs} runs, {failed} failed; {events} events, {commits} replica states compared; "
        f"{took:.1f} s: {runs / took:.1f} runs/s, {events / took:.0f} events/s"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
