"""The simulation: fixed seeds, new seeds every time, and mutants that prove that the checkers can fail.

A failure prints the line that repeats it.  ``SKERRY_SIM_SEED`` sets where the new seeds begin (to repeat a CI run).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.sim import faults
from ops.sim.__main__ import commit, describe, main, quiet
from ops.sim.run import Case, Result, parse_ranges, run, shrink
from tests.sim.mutants import MUTANTS

pytestmark = pytest.mark.timeout(600)  # a chunk of seeds takes a quarter of a minute on a machine that does nothing else

ROOT = Path(__file__).parents[2]
CHUNK = 25  # seeds a test: a name for each would be noise
FIXED = range(1, 101)
NEW = 50
FIRST_NEW = int(os.environ.get("SKERRY_SIM_SEED", "0")) or random.SystemRandom().randrange(1_000, 1 << 31)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def _all_hold(seeds: range) -> list[Result]:
    """What a single run of chance seeds must do besides not failing is nothing: it may be one of few writes."""
    results = []
    for seed in seeds:
        result = run(Case(seed))
        if result.failure:
            pytest.fail(describe(result, shrink(result.case)), pytrace=False)
        results.append(result)
    assert sum(r.commits_checked for r in results) > 100 * len(results), "the replicas hardly changed"
    return results


@pytest.mark.parametrize("first", FIXED[::CHUNK])
def test_fixed_seeds(first: int) -> None:
    """Known seeds, so more can be asked of each, and of every chunk of them."""
    done: set[str] = set()
    results = _all_hold(range(first, first + CHUNK))
    assert sum(r.bound for r in results) > CHUNK, "where controllers run, pods come and are bound"
    for result in results:
        assert result.commits_checked > 10 and result.writes > 10 and result.told > 10, result.case.command()
        done |= set(result.faults)
    assert done == set(faults.KINDS), "a kind of fault that never happened proves nothing"


@pytest.mark.parametrize("first", range(FIRST_NEW, FIRST_NEW + NEW, CHUNK), ids=lambda n: f"SKERRY_SIM_SEED={n}")
def test_new_seeds(first: int) -> None:
    _all_hold(range(first, first + CHUNK))


def test_one_seed_is_one_run() -> None:
    first, second = run(Case(7)), run(Case(7))
    assert (first.trace_hash, first.events) == (second.trace_hash, second.events)
    assert run(Case(8)).trace_hash != first.trace_hash


def test_one_seed_is_one_run_in_another_process() -> None:
    """The hash seed of Python orders sets of strings: nothing may depend on it."""
    script = "from ops.sim import __main__ as m\nwith m.quiet(): print(m.run(m.Case(11)).trace_hash)"
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {run(Case(11)).trace_hash}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    for seed in range(mutant.first, mutant.first + mutant.seeds):
        case = Case(seed, kinds=mutant.kinds)
        result = run(case, mutant.parts)
        if result.failure:
            assert result.failure.startswith(mutant.rules), result.failure
            return
    pytest.fail(f"{name}: not caught within {mutant.seeds} seeds", pytrace=False)


def test_a_failure_is_shrunk_and_repeats() -> None:
    mutant = MUTANTS["ignores the chain"]
    case = next(c for n in range(1, 13) if run(c := Case(n, kinds=mutant.kinds), mutant.parts).failure)
    small = shrink(case, mutant.parts)
    assert small.only is not None and len(small.only) < case.steps // 4
    assert run(small, mutant.parts).rule == run(case, mutant.parts).rule
    assert not run(small).failure, "it is the mutant that fails, not the steps"
    assert f"./just sim --seed {case.seed} " in small.command()


def test_the_command_repeats_a_shrunk_failure() -> None:
    case = Case(7, 20, frozenset({"cut", "loss"}), frozenset({2, 3, 4, 9}))
    words = case.command().split()
    assert words[-2:] == ["--only", "2-4,9"]
    assert parse_ranges(words[-1]) == case.only
    told = CliRunner().invoke(main, words[2:])
    assert told.exit_code == 0 and run(case).trace_hash in told.output


def test_a_failing_seed_is_printed_with_its_commit() -> None:
    mutant = MUTANTS["forgets tombstones"]
    failed = run(Case(1, kinds=mutant.kinds), mutant.parts)
    text = describe(failed, failed.case)
    assert f"seed 1 fails (commit {commit()})" in text and failed.case.command() in text
