"""The chaos scorecard on real processes, a few rows of it: a hub, a cloud of one process a part, two nodes in network
namespaces, and one fault of each kind.  One row never ends, and the card goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.chaos import faults

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
END_S = 120.0


def test_a_short_card(tmp_path: Path) -> None:
    card = tmp_path / "chaos.json"
    keys = [faults.HANG.key, *faults.SHORT]
    argv = [sys.executable, "-m", "ops.chaos", "--rows", ",".join(keys), "--lanes", "1", "--out", str(card)]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = run.communicate(timeout=480)
    except BaseException:
        run.send_signal(signal.SIGTERM)  # it takes down what it made
        run.communicate(timeout=END_S)
        raise
    found = {r["fault"]: r for r in json.loads(card.read_text())["rows"]}
    assert found.keys() == set(keys), said
    hung = found.pop(faults.HANG.key)
    assert hung["failure"].startswith("no end after 3 s") and not hung["ok"]
    assert run.returncode == 1, "a card with a row that failed is no good card"
    for row in found.values():
        assert row["ok"], f"{row}\n{said}"
        assert row["containers_up"] == row["containers"] > 0, row
        assert row["events_lost"] == row["events_doubled"] == row["divergence"] == 0, row
        assert row["commit"] and row["date"] and row["links"], row
    assert found["cut-3"]["offline_writes"] > 0, "the node's own bus does not need the hub"
    assert not list(tmp_path.glob("skerry-chaos-*")), "what was made is taken down"
