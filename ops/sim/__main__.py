"""``python -m ops.sim [--seed N] [--runs R]``: simulates; a seed that fails is printed with the commit that it failed on."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time

from ops.sim.scenario import Simulation
from ops.sim.world import SimulationError

LINES_SHOWN = 60


def commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return done.stdout.strip()


def one(seed: int) -> bool:
    began = time.monotonic()
    sim = Simulation(seed)
    try:
        s = sim.run()
    except SimulationError as e:
        print("\n".join(sim.world.told[-LINES_SHOWN:]))
        print(f"seed {seed} fails on {commit()}: {e}")
        return False
    events = " ".join(f"{n}:{c}" for n, c in s.events.items())
    print(
        f"seed {seed}: ok, {s.steps} steps, {s.commits} commits, {s.reports} reports, {s.crashes} crashes, "
        f"healed in {s.healed_s:.0f} s; {events}; {s.digest[:12]}; {time.monotonic() - began:.1f} s"
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="ops.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat one run; a random one without")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, counted up from the first")
    args = parser.parse_args()
    first = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    good = [one(seed) for seed in range(first, first + args.runs)]
    print(f"{sum(good)} of {len(good)} runs hold")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
