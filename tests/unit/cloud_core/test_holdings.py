"""Who holds how much of a shared stream, and what goes of whom when it is nearly full."""

from __future__ import annotations

import random

import pytest

from cloud.core.holdings import Holdings, Rules, level

MB = 1 << 20
RULES = Rules(least=MB)


@pytest.mark.parametrize(
    ("holdings", "room", "expected"),
    [
        ([], 10, 1),
        ([4, 3], 10, 4),
        ([100], 10, 10),
        ([100, 100], 10, 5),
        ([100, 2, 3], 10, 5),
        ([100, 90, 1, 1], 20, 9),
        ([7, 7, 7], 3, 1),
    ],
)
def test_the_level_cuts_the_largest_and_nobody_else(holdings: list[int], room: int, expected: int) -> None:
    assert level(holdings, room) == expected


def test_levels_of_many_fit_and_could_not_be_higher() -> None:
    rng = random.Random(7)
    for _ in range(300):
        held = [rng.randrange(1, 10 ** rng.randrange(1, 7)) for _ in range(rng.randrange(1, 40))]
        room = rng.randrange(1, 2 * sum(held))
        found = level(held, room)
        assert sum(min(h, found) for h in held) <= room or found == 1
        assert found == max(held) or sum(min(h, found + 1) for h in held) > room
        assert level(held, room, least := rng.randrange(1, 2 * max(held))) == max(found, least)


def test_one_that_fills_a_stream_loses_its_own_oldest_and_the_quiet_ones_nothing() -> None:
    held = Holdings(RULES)
    capacity = 100 * MB
    held.may_hold(capacity)
    evil: list[int] = []
    for seq in range(1, 76_001):
        if seq % 100 == 0:
            held.take(f"quiet-{seq % 1000}", seq, 1024)
        else:
            held.take("evil", seq, 1024)
            evil.append(seq)
    may = held.may_hold(capacity)
    (trim,) = held.over(may)
    assert trim.node == "evil" and trim.held == len(evil) * 1024
    went = [s for s in evil if s < trim.below]
    assert trim.bytes == 1024 * len(went), "what is said to go is what goes"
    held.trimmed(trim)
    assert RULES.kept * may - held.step <= held.held("evil") <= RULES.kept * may
    assert held.over(may) == []
    assert sum(held.held(f"quiet-{n}") for n in range(0, 1000, 100)) == 760 * 1024


def test_two_that_fill_it_have_half_each_and_many_small_ones_are_let_be() -> None:
    held = Holdings(RULES)
    held.may_hold(100 * MB)
    for seq in range(1, 81):
        held.take("ab"[seq % 2], seq, MB)
    assert held.may_hold(100 * MB) == 25 * MB
    assert {t.node for t in held.over(25 * MB)} == {"a", "b"}
    many = Holdings(RULES)
    for seq in range(1, 1001):
        many.take(f"n{seq % 100}", seq, 90 * 1024)
    assert many.over(many.may_hold(100 * MB)) == []


def test_what_the_stream_dropped_is_nobodys_and_costs_nothing() -> None:
    held = Holdings(RULES)
    for seq in range(1, 1001):
        held.take(f"n{seq % 10}", seq, 64 * 1024)
    held.forget(501)
    assert 0 < held.held("n1") <= 50 * 64 * 1024 + 2 * held.step
    held.forget(1001)
    assert held.nodes == 0 and held.held("n1") == 0
    assert held.may_hold(100 * MB) == 100 * MB // 64
