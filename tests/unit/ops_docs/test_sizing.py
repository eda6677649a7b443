"""The figures of the sizing page are those of the recorded runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
ROW = re.compile(r"^\| .+ \| ([\d.]+)(?: \w+)? \| `([\w.-]+)` (\w+)\.(\w+) \|$", re.MULTILINE)


@pytest.mark.parametrize("page", ["SIZING.md", "SIZING.zh.md"])
def test_each_figure_is_that_of_its_row(page: str) -> None:
    text = (DOCS / page).read_text()
    figures = ROW.findall(text)
    table = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert len(figures) == len(table) > 0, "a row without a source"
    for said, file, bench, field in figures:
        rows = [json.loads(line) for line in (DOCS / "measurements" / file).read_text().splitlines()]
        (found,) = [r for r in rows if r["bench"] == bench]
        assert float(said) == found[field], (file, bench, field)
