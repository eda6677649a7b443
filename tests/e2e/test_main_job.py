"""The main job, whole, as a user runs it: every step of the demo checks itself and the demo's exit code says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 27  # a demo that lost its steps would pass as well
DEMO_S_MAX = 400


@pytest.mark.e2e
@pytest.mark.timeout(DEMO_S_MAX + 60)
def test_the_demo_passes_every_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    env = {**os.environ, "SKERRY_DEMO_DIR": str(tmp_path / "demo")}
    done = subprocess.run(
        [sys.executable, "-m", "ops.demo"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=DEMO_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-4000:]}"
    assert f"{STEPS} steps, every one checked" in done.stdout
    assert done.stdout.count("✓") == STEPS
    assert not (tmp_path / "demo").exists()
    assert "Traceback" not in done.stderr, done.stderr
