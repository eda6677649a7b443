"""Who is a clone and who only restarted; what one node may ask."""

from __future__ import annotations

from cloud.clones import NODES_MAX, QUIET_S, TURN_S, Clones
from cloud.shares import Shares


def test_restarts_are_no_clones() -> None:
    c = Clones()
    for n in range(50):
        assert not c.beat("e", f"run{n}", n * 5.0).fenced
        assert not c.beat("e", f"run{n}", n * 5.0 + 1).news
    assert c.over(1e6) == ["e"] and c.over(2e6) == [], "told once that it is one: an earlier process may have said otherwise"


def test_of_two_that_beat_in_turns_the_newer_is_fenced_for_as_long_as_both_live() -> None:
    c = Clones()
    c.beat("e", "dead", 0)
    c.beat("e", "old", 5)
    assert c.beat("e", "new", 10).new
    seen = c.beat("e", "old", 11)
    assert not seen.fenced and "run old is kept, run new is fenced" in seen.news
    assert c.beat("e", "new", 12).fenced and not c.beat("e", "old", 13).fenced
    assert not c.beat("e", "new", 14).news, "told once"
    assert c.beat("e", "third", 15).fenced, "a restarted clone is one too"
    assert c.over(15 + QUIET_S) == []
    assert c.over(16 + QUIET_S) == ["e"]
    assert c.over(17 + QUIET_S) == []


def test_when_the_clone_speaks_first_after_the_detection_it_is_fenced_there() -> None:
    c = Clones()
    for run in ("old", "new"):
        c.beat("e", run, 1)
    c.beat("e", "old", 2)
    c = Clones()
    c.beat("e", "new", 1)  # a cloud that restarted hears the clone first: it can't know better
    c.beat("e", "old", 2)
    assert "run new is kept" in c.beat("e", "new", 3).news


def test_the_clone_may_go_on_when_the_kept_one_is_gone() -> None:
    c = Clones()
    for at, run in enumerate(("old", "new", "old")):
        c.beat("e", run, at)
    assert c.beat("e", "new", 3).fenced
    assert not c.beat("e", "new", 3 + TURN_S + 1).fenced


def test_nodes_are_apart_and_bounded() -> None:
    c = Clones()
    for n in range(NODES_MAX + 10):
        assert not c.beat(f"e{n}", "run", 0).news
    assert len(c._nodes) == NODES_MAX
    assert not c.beat("old daemon", "", 0).fenced


def test_a_share_is_a_rate_with_a_burst_and_a_flood_is_told_once_a_minute() -> None:
    now, told = [0.0], []
    shares = Shares("sync", 2.0, 5.0, on_flood=lambda node, n: told.append((node, n)), clock=lambda: now[0])
    assert [shares.allows("a") for _ in range(8)] == [True] * 5 + [False] * 3
    assert shares.allows("b"), "others have their own"
    now[0] = 1.0
    assert [shares.allows("a") for _ in range(3)] == [True, True, False]
    assert told == [("a", 1)]
    now[0] = 61.0
    assert [shares.allows("a") for _ in range(6)] == [True] * 5 + [False]
    assert told == [("a", 1), ("a", 4)] and shares.dropped == 5
