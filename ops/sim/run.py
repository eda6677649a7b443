"""Run a seed, repeat it, shrink it."""

from __future__ import annotations

import random
import traceback
from dataclasses import dataclass, replace

from ops.sim import checkers, faults
from ops.sim.edge import Parts
from ops.sim.world import World

STEPS = 80
SHRINK_RUNS_MAX = 150  # a shrunk failure is a convenience, not worth minutes


@dataclass(frozen=True)
class Case:
    """One run, whole: the same case is the same run."""

    seed: int
    steps: int = STEPS
    kinds: frozenset[str] | None = None  # of faults; None: drawn by the seed
    only: frozenset[int] | None = None  # steps that happen; None: all

    def resolved(self) -> Case:
        if self.kinds is not None:
            return self
        lots = random.Random(f"{self.seed}/kinds")
        return replace(self, kinds=frozenset(k for k in faults.KINDS if lots.random() < 0.4))

    def command(self) -> str:
        kinds = ",".join(sorted(self.resolved().kinds or ())) or "none"
        # The kinds are named, so that the line means the same when a new kind is added.
        line = f"./just sim --seed {self.seed} --steps {self.steps} --faults {kinds}"
        return line if self.only is None else f"{line} --only {ranges(self.only)}"


def ranges(steps: frozenset[int]) -> str:
    """``3,7-9``"""
    out: list[list[int]] = []
    for n in sorted(steps):
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out) or "none"


def parse_ranges(text: str) -> frozenset[int]:
    """Raises ValueError."""
    found: set[int] = set()
    for part in text.split(",") if text != "none" else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


@dataclass(frozen=True)
class Result:
    case: Case
    failure: str  # "" when all held
    trace_hash: str
    tail: tuple[str, ...]
    events: int
    commits_checked: int
    writes: int  # of users, acknowledged
    told: int  # facts that observers saw
    held: int  # reports that a full disk refused
    virtual_s: float
    bound: int  # pods of which nodes were seen, in worlds with controllers
    faults: dict[str, int]

    @property
    def rule(self) -> str:
        return self.failure.partition(":")[0]


def run(case: Case, parts: Parts | None = None) -> Result:
    case = case.resolved()
    assert case.kinds is not None
    world = World(case.seed, case.kinds, parts or Parts())
    started = world.schedule.now_us
    failure = ""
    try:
        world.run(case.steps, case.only)
    except checkers.Violation as e:
        failure = str(e)
    except Exception as e:  # an assertion or an error inside the code under test is what a simulation is for
        where = traceback.extract_tb(e.__traceback__)[-1]
        failure = f"{type(e).__name__} at {where.filename.rpartition('/')[2]}:{where.lineno}: {e}"
    world.end()
    schedule = world.schedule
    return Result(
        case,
        failure,
        schedule.trace_hash(),
        tuple(schedule.tail),
        schedule.events,
        world.replica_checker.checked,
        world.cluster_checker.writes,
        world.observer_checker.told_of,
        world.report_checker.held_ever,
        (schedule.now_us - started) / 1e6,
        world.control_checker.bound if world.controlled else 0,
        dict(world.faults.done),
    )


def shrink(case: Case, parts: Parts | None = None) -> Case:
    """Delta debugging: the same run with as few of its steps as still break the same rule (ddmin)."""
    whole = case.resolved()
    rule = run(whole, parts).rule
    left = SHRINK_RUNS_MAX

    def fails(steps: list[int]) -> bool:
        nonlocal left
        left -= 1
        return run(replace(whole, only=frozenset(steps)), parts).rule == rule

    steps = sorted(range(whole.steps) if whole.only is None else whole.only)
    parts_of = 2
    while len(steps) > 1 and left > 0:
        size = -(-len(steps) // parts_of)
        for start in range(0, len(steps), size):
            rest = steps[:start] + steps[start + size :]
            if left > 0 and fails(rest):
                steps, parts_of = rest, max(2, parts_of - 1)
                break
        else:
            if size == 1:
                break
            parts_of = min(len(steps), parts_of * 2)
    small = replace(whole, only=frozenset(steps))
    shorter = replace(small, steps=1 + max(steps, default=0))
    return shorter if run(shorter, parts).rule == rule else small
