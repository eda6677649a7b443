"""What the cluster page says that a bridge costs is what was measured, in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("page", ["CLUSTER.md", "CLUSTER.zh.md"])
def test_its_figures_are_in_the_recorded_rows(page: str) -> None:
    recorded = [json.loads(line) for line in (DOCS / "measurements" / "bridge.jsonl").read_text().splitlines()]
    rows = [r for r in recorded if r["bench"] == "bridge"]
    line = r"^\| ([0-9,]+) \| (.*) s \| (.*) MB \| (.*) ms \| (.*) ms \|$"
    said = re.findall(line, (DOCS / page).read_text(), re.MULTILINE)
    fields = ("first_list_s", "peak_mb", "lag_ms_p50", "lag_ms_p99")
    measured = [(f"{r['pods']:,}", *(str(r[k]) for k in fields)) for r in rows]
    assert said == measured and len(said) == 2
    text = (DOCS / page).read_text()
    real = next(r for r in recorded if r["bench"] == "bridge-real")
    assert real["seen"] == real["told"]
    assert all(f"{real[f]:g}" in text for f in (*fields, "load_average")) and real["kubernetes"] in text
    for row in rows:
        assert row["seen"] == row["told"], "no change was lost while it was measured"
        for figure in (row["on_edges"], row["edges"], int(row["changes_a_s"])):
            assert f"{figure:,}" in text
