"""What the page on the API says that it carries is what was measured, in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bus.kube.http import answers, bodies
from bus.kube.http.context import Limits

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("page", ["API.md", "API.zh.md"])
def test_its_figures_are_in_the_recorded_rows(page: str) -> None:
    recorded = [json.loads(line) for line in (DOCS / "measurements" / "api.jsonl").read_text().splitlines()]
    line = r"^\| .* \| ([0-9,]+) \| ([0-9,.]+) \| ([0-9,.]+) ms \| ([0-9,.]+) ms \|$"
    said = re.findall(line, (DOCS / page).read_text(), re.MULTILINE)
    fields = ("count", "per_s", "p50_ms", "p99_ms")
    assert said == [tuple(f"{r[k]:,}" for k in fields) for r in recorded if r["bench"] == "api"] and said


@pytest.mark.parametrize("page", ["API.md", "API.zh.md"])
def test_its_limits_are_those_of_the_code(page: str) -> None:
    limits, text = Limits(), (DOCS / page).read_text()
    counts = (limits.requests_at_once, limits.requests_waiting, limits.watches_max, limits.connections_max)
    for figure in counts:
        assert f" {figure:,} " in text
    assert f"{answers.COMPRESSED_FROM_BYTES >> 10} KiB" in text and f"{bodies.BODY_BYTES_MAX >> 20} MiB" in text
