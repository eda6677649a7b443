"""Run a seed, repeat it, shrink it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ops.sim.swarm import checkers, faults
from ops.sim.swarm.edge import Parts
from ops.sim.swarm.world import World

STEPS = 80
SHRINK_RUNS_MAX = 60  # a shrunk failure is a convenience, not worth minutes


@dataclass(frozen=True)
class Case:
    """One run, whole: the same case is the same run."""

    seed: int
    steps: int = STEPS
    kinds: frozenset[str] | None = None  # of faults; None: drawn by the seed

    def resolved(self) -> Case:
        if self.kinds is not None:
            return self
        lots = random.Random(f"{self.seed}/kinds")
        return replace(self, kinds=frozenset(k for k in faults.KINDS if lots.random() < 0.5))

    def command(self) -> str:
        kinds = ",".join(sorted(self.resolved().kinds or ())) or "none"
        # The kinds are named, so that the line means the same when a new kind is added.
        return f"python -m ops.sim.swarm --seed {self.seed} --steps {self.steps} --faults {kinds}"


@dataclass(frozen=True)
class Result:
    case: Case
    failure: str  # "" when all held
    trace_hash: str
    tail: tuple[str, ...]
    events: int
    commits_checked: int
    virtual_s: float
    faults: dict[str, int]


def run(case: Case, parts: Parts | None = None) -> Result:
    case = case.resolved()
    assert case.kinds is not None
    world = World(case.seed, case.kinds, parts or Parts())
    started = world.schedule.now_us
    failure = ""
    try:
        world.run(case.steps)
    except checkers.Violation as e:
        failure = str(e)
    except Exception as e:  # an assertion or an error inside the code under test is what a simulation is for
        where = traceback.extract_tb(e.__traceback__)[-1]
        failure = f"{type(e).__name__} at {where.filename.rpartition('/')[2]}:{where.lineno}: {e}"
    schedule = world.schedule
    return Result(
        case,
        failure,
        schedule.trace_hash(),
        tuple(schedule.tail),
        schedule.events,
        world.replica_checker.checked,
        (schedule.now_us - started) / 1e6,
        dict(world.faults.done),
    )


def shrink(case: Case, parts: Parts | None = None) -> Case:
    """A smaller case of the same seed that fails too: fewer kinds of faults, then fewer steps."""
    best = case.resolved()
    left = SHRINK_RUNS_MAX
    changed = True
    while changed and left > 0:
        changed = False
        for smaller in _smaller(best):
            left -= 1
            if run(smaller, parts).failure:
                best, changed = smaller, True
                break
            if left <= 0:
                break
    return best


def _smaller(case: Case) -> Iterator[Case]:
    assert case.kinds is not None
    for kind in sorted(case.kinds):
        yield replace(case, kinds=case.kinds - {kind})
    for steps in (case.steps // 4, case.steps // 2, case.steps * 3 // 4, case.steps - 1):
        if 0 < steps < case.steps:
            yield replace(case, steps=steps)
