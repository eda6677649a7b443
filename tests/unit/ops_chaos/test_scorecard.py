"""A card: what makes a row good, in which order rows stand, what a broken-off card is completed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.chaos import card, faults, page, scorecard
from ops.chaos.scorecard import Row


def _row(key: str = "none", **figures: int) -> Row:
    row = Row(key, "title", [], containers=4, containers_up=4, commit="abcdef0", date="2026-11-28 12:00")
    for name, value in figures.items():
        setattr(row, name, value)
    return row


@pytest.mark.parametrize("figure", ["events_lost", "events_doubled", "divergence"])
def test_one_lost_doubled_or_different_thing_makes_a_row_bad(figure: str) -> None:
    assert _row().ok
    assert not _row(**{figure: 1}).ok
    assert not _row(containers_up=3).ok


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [_row("none"), _row("cut-3", events_lost=2)]
    rows[0].seconds_in_sync = 1.25
    scorecard.write(rows, tmp_path / "card.json")
    assert scorecard.read(tmp_path / "card.json") == rows
    assert scorecard.row_of({**scorecard.asdict(rows[0]), "ok": True, "from a later version": 1}) == rows[0]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": [{}]}', '{"rows": 3}'])
def test_what_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(scorecard.CardError):
        scorecard.read(path)


def test_rows_are_taken_by_the_hub_that_is_there_and_stand_in_the_cards_order() -> None:
    wanted = faults.chosen("three-none,none,three-roll,cut-3")
    rows = card.Rows(wanted, [_row("kill-leaf")], [f.key for f in faults.FAULTS])
    taken = [f.key for f in iter(lambda: rows.next(1), None) if f is not None]
    assert taken == ["none", "cut-3", "three-none", "three-roll"]
    for key in taken:
        rows.add(_row(key))
    assert [r.fault for r in rows.all()] == ["none", "cut-3", "kill-leaf", "three-none", "three-roll"]


def test_a_page_without_its_marks_is_not_written_over() -> None:
    with pytest.raises(scorecard.CardError):
        page.rendered("no marks", [], "en")
    text = page.rendered(f"a\n{page.BEGIN}\nold\n{page.END}\nb", [_row("cut-3")], "zh")
    assert text.startswith("a\n") and text.endswith("\nb") and "链路静默中断 3 秒" in text and "old" not in text


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(KeyError):
        faults.chosen("none,no-such-fault")
