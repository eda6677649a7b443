"""The tables of the chaos page are those of the recorded card, in both languages, and the card is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.chaos import faults, page, scorecard

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_says_what_the_card_says(language: str) -> None:
    text = (page.DOCS / page.PAGES[language]).read_text()
    assert page.rendered(text, scorecard.read(page.CARD), language) == text, "write it: ./just chaos --page <card>"


def test_the_card_has_every_row_each_with_its_commit() -> None:
    rows = scorecard.read(page.CARD)
    assert [r.fault for r in rows] == [f.key for f in faults.FAULTS]
    assert all(re.fullmatch(r"[0-9a-f]{7,}", r.commit) and r.date for r in rows), "a row is of a commit, not of a work tree"


def test_a_row_that_failed_is_called_so_and_a_good_one_has_lost_nothing() -> None:
    for row in scorecard.read(page.CARD):
        line = next(t for t in page.table([row], "en").splitlines() if f"`{row.fault}`" in t)
        assert ("FAILED" in line) == (not row.ok)
        if row.ok:
            assert row.containers_up == row.containers
            assert row.events_lost == row.events_doubled == row.divergence == 0


def test_every_fault_has_a_name_in_both_languages() -> None:
    keys = [f.key for f in faults.FAULTS]
    assert len(set(keys)) == len(keys)
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert [f.key for f in faults.FAULTS if not chinese.search(f.zh) or chinese.search(f.title)] == []
    assert {f.key for f in faults.chosen(",".join(faults.SHORT))} == set(faults.SHORT)


def test_what_the_page_names_as_proof_exists() -> None:
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
    keys = {f.key for f in faults.FAULTS}
    for name in page.PAGES.values():
        _, _, found = (page.DOCS / name).read_text().partition(page.END)
        for row in re.findall(r"^\| .* \| .* \| (`.*`) \|$", found, re.MULTILINE):
            for word in re.findall(r"`([^`]+)`", row):
                assert word in keys or f"def {word}(" in tests, word
