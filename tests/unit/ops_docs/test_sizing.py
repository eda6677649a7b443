"""The figures of the sizing page are those of the recorded runs, and the page is what the renderer makes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ops.fleet import sizing

LANGUAGES = sorted(sizing.PAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_what_the_renderer_makes_of_the_recorded_rows(language: str) -> None:
    text = sizing.PAGES[language].read_text()
    assert sizing.rendered(text, language) == text, "run: python -m ops.fleet sizing"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_figure_of_a_column_is_in_the_file_that_it_names(language: str) -> None:
    """Without the renderer's own reading: every number of a column is somewhere in its file."""
    text = sizing.PAGES[language].read_text()
    checked = 0
    for name in ("fleet", "links", "alone"):
        (section,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
        table = [[c.strip() for c in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("| ")]
        for column in range(1, len(table[0]) if table else 0):
            numbers = _numbers(
                [json.loads(x) for x in (sizing.MEASUREMENTS / table[-1][column].strip("`")).read_text().splitlines()]
            )
            for row in table[1:-1]:
                if (found := re.fullmatch(r"([\d,.]+)(?: \w+)?", row[column])) is not None:
                    assert float(found[1].replace(",", "")) in numbers, row
                    checked += 1
    assert checked > 10


def _numbers(value: Any) -> set[float]:
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    if isinstance(value, list):
        return {n for v in value for n in _numbers(v)}
    return {float(f"{value:g}"), float(value)} if isinstance(value, int | float) else set()


def test_every_recorded_run_is_on_the_page_or_gone() -> None:
    listed = {r.file for r in (*sizing.RUNS, *sizing.LINKS, *sizing.ALONE)}
    assert {p.name for p in sizing.MEASUREMENTS.glob("*.jsonl")} - {
        "bridge.jsonl",
        "api.jsonl",
    } <= listed  # those have pages of their own


def test_a_run_that_is_recorded_gets_a_column_and_what_failed_is_no_figure(tmp_path: Path) -> None:
    used = {"hub": {"cpu_s": 0.05}, "nodes": {"cpu_s": 0.01}}
    rows = [
        {"bench": "connect", "nodes": 10, "servers": 6, "tls": False, "gogc": 40, "all_s": 1.25, "connections": 12000},
        {
            "bench": "one",
            "nodes": 10,
            "p50_ms": 1.5,
            "changes": 100,
            "used": used,
        },
        {"bench": "storm", "failed": "too slow", "all_s": 99.0},
        {"bench": "one goes on", "p50_ms": 7.0},
    ]
    (tmp_path / "fleet-1000.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = sizing.sections("en", tmp_path)
    assert "| all connect and sync | 1.25 s |" in made["fleet"]
    assert "| connections | 12,000 |" in made["fleet"]
    assert "6, no TLS, GOGC=40" in made["fleet"]
    assert "99" not in made["fleet"]
    assert "10,000 nodes" not in made["fleet"]
    assert "| 10 | 500 us | – | 100 us | 600 us | ███ |" in made["curve"]
    assert "--out docs/measurements/fleet-1000.jsonl" in made["commands"]
    assert "100000" not in made["commands"]


def test_a_page_without_a_section_is_refused() -> None:
    with pytest.raises(ValueError, match="fleet"):
        sizing.rendered("# Sizing\n", "en")
