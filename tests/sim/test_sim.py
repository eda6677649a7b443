"""The simulation holds for fixed and for random seeds, repeats itself exactly, and notices when a part is broken."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bus import fold, replica_core
from bus.stores import base
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from edge.core import instructions as do
from ops.sim import __main__ as command
from ops.sim.cloud import DispatcherProcess
from ops.sim.edge import EdgeNode
from ops.sim.engine import Engine, Result
from ops.sim.scenario import Parts, Simulation
from ops.sim.world import SimulationError
from schemas import event, subjects

FIXED = (1, 2, 3, 8, 13, 36, 59, 100, 101, 111)  # small and large fleets, one to three shards, quick and slow healing
RANDOM = [random.SystemRandom().randrange(1 << 32) for _ in range(5)]
MUTANT_SEEDS = range(1, 9)  # a broken part must be noticed by one of a few runs at the latest


@pytest.mark.parametrize("seed", FIXED)
def test_fixed_seeds_hold(seed: int) -> None:
    summary = Simulation(seed).run()
    assert summary.crashes and summary.commits and summary.reports, "a run in which nothing happens shows nothing"


@pytest.mark.parametrize("number", range(len(RANDOM)))
def test_random_seeds_hold(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers are printed: one that fails can be repeated with ``./just sim --seed N``."""
    seed = RANDOM[number]
    with capsys.disabled():
        print(f"\n[sim seed {seed}]", end=" ", flush=True)
    assert command.one(seed), capsys.readouterr().out


def test_a_seed_repeats_itself_in_another_process() -> None:
    """Whatever a process makes of hashes and addresses: one seed, one run."""
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "ops.sim", "--seed", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.splitlines()[0].split(";")[-2])
    assert len(digests) == 1


def test_a_failing_seed_is_printed_with_its_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Simulation) -> Any:
        raise SimulationError("something broke")

    monkeypatch.setattr(Simulation, "run", fails)
    monkeypatch.setattr(sys, "argv", ["ops.sim", "--seed", "41", "--runs", "2"])
    assert command.main() == 1
    out = capsys.readouterr().out
    assert f"seed 42 fails on {command.commit()}: something broke" in out and "0 of 2 runs hold" in out


# --- mutants: each is one mistake, and a checker must notice it ------------------------------------------------------


class SkipsAnEvent(EdgeNode):
    """A replica that moves its cursor past an event without applying it."""

    def make_replica_core(self, cursors: dict[str, fold.Cursor]) -> replica_core.ReplicaCore:
        class Skipping(replica_core.ReplicaCore):
            skipped = 0

            def handle(self, stimulus: replica_core.Stimulus) -> list[replica_core.Instruction]:
                out = super().handle(stimulus)
                for n, i in enumerate(out):
                    if isinstance(i, replica_core.Apply) and i.facts and not Skipping.skipped:
                        Skipping.skipped += 1
                        out[n] = replica_core.Apply(i.scope, i.facts[:-1], i.cursor)
                return out

        return Skipping(cursors)


class IgnoresTheChain(EdgeNode):
    """A replica that applies whatever comes, gaps or not."""

    def make_replica_core(self, cursors: dict[str, fold.Cursor]) -> replica_core.ReplicaCore:
        class Trusting(replica_core.ReplicaCore):
            def _take(self, s: Any, lives: Any) -> list[replica_core.Instruction]:
                out: list[replica_core.Instruction] = []
                for live in lives:
                    if live.seq > s.cursor.seq:
                        s.cursor = fold.Cursor(s.cursor.epoch, live.seq)
                        fact = fold.fact_of(live.scope, live.key, live.seq, live.payload)
                        out.append(replica_core.Apply(s.name, [fact], s.cursor))
                return out

        return Trusting(cursors)


class CursorFirst(EdgeNode):
    """A store whose transactions are none: the cursor is written, and then perhaps the objects."""

    def _commit(self, group: list[replica_core.Instruction]) -> bool:
        for i in group:
            if isinstance(i, replica_core.Apply) and self.world.chance(0.05):
                with self.store.transact() as txn:
                    txn.put("cursors", i.scope.encode(), i.cursor.to_bytes())
                self.kill()
                return False
        return super()._commit(group)


class LosesAReport(EdgeNode):
    """A report that is told before it is kept."""

    lost = 0

    def _put(self, txn: base.Transaction, subject: str, ev: event.Event) -> int:
        if ev.resource == "pod" and not LosesAReport.lost:
            LosesAReport.lost += 1
            return 0
        return super()._put(txn, subject, ev)


class ForgetsWhatWasSent(EdgeNode):
    """An outbox that takes sending for being acknowledged."""

    def _sent(self, n: int, subject: str, ev: event.Event) -> None:
        with self.store.transact() as txn:
            txn.delete("outbox", n.to_bytes(8, "big"))
        super()._sent(n, subject, ev)


class RunsTwo(EdgeNode):
    """A daemon that starts what it is asked for under a name of its own."""

    def on_start(self) -> None:
        super().on_start()
        engine = self.engine

        class Careless(Engine):
            def execute(self, effect: do.Effect, now_us: int) -> Result:
                if isinstance(effect, do.StopContainer | do.KillContainer):
                    return Result(engine.boxes.get(effect.container_id))
                return super().execute(effect, now_us)

        self.engine = Careless(engine.node, engine.boxes, engine.volumes, engine.made)


class NeverWithdraws(DispatcherProcess):
    def _append(self, a: stimuli.Append) -> None:
        if a.data is None:
            self.later(0, self._tell, stimuli.AppendRefused(a.scope))
        else:
            super()._append(a)


class DecidesOnOldNews(DispatcherProcess):
    """After a conflict it goes on at once, with the view of CLUSTER that it had."""

    def make_core(self) -> Dispatcher:
        class Hasty(Dispatcher):
            def _scope_reloaded(self, s: stimuli.ScopeReloaded) -> None:
                super()._scope_reloaded(stimuli.ScopeReloaded(s.scope, s.events, 0))

            _HANDLERS = {**Dispatcher._HANDLERS, stimuli.ScopeReloaded: _scope_reloaded}  # noqa: RUF012 - never changed

        return Hasty(self.hub.shards)


class ChainsBlindly(DispatcherProcess):
    """It writes without looking who wrote before."""

    def _append(self, a: stimuli.Append) -> None:
        self.hub.append(subjects.meta(a.scope, a.key, self.hub.shards), self._event(a))
        super()._append(a)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (Parts(edge=SkipsAnEvent), "is not the fold of the log"),
        (Parts(edge=IgnoresTheChain), "is not the fold of the log"),
        (Parts(edge=CursorFirst), "is not the fold of the log"),
        (Parts(edge=LosesAReport), "missing or out of order"),
        (Parts(edge=ForgetsWhatWasSent), "missing or out of order|after all faults ended"),
        (Parts(edge=RunsTwo), "runs 2 containers|after all faults ended"),
        (Parts(dispatcher=NeverWithdraws), "after all faults ended"),
        (Parts(dispatcher=DecidesOnOldNews), "revision .* after|after all faults ended"),
        (Parts(dispatcher=ChainsBlindly), "prev is"),
    ],
    ids=lambda p: (p.edge if p.edge is not EdgeNode else p.dispatcher).__name__ if isinstance(p, Parts) else "",
)
def test_a_broken_part_is_noticed(parts: Parts, why: str) -> None:
    with pytest.raises(SimulationError, match=why):
        for seed in MUTANT_SEEDS:
            LosesAReport.lost = 0
            Simulation(seed, parts).run()
