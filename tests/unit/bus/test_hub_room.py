"""How much streams may grow, what gives way first, and whose word counts on three servers."""

from __future__ import annotations

import json
from pathlib import Path

from bus.hub import config, room

HUB = config.HubConfig(Path("/h"), Path("/h"), "hub", "127.0.0.1", 1, 2, 3, "operator", "system")
MB = 1 << 20
POLICY = room.Policy(share=0.0, least=100 * MB, most=1 << 30)
SIZES = {"CLUSTER": 50 * MB, "HISTORY-CLUSTER": 300 * MB, "HISTORY-META-0": 100 * MB, "TELEMETRY": 500 * MB, "LEASES": 1}


def test_the_reserve_is_a_share_within_bounds() -> None:
    p = room.Policy()
    assert [p.reserve(t << 30) for t in (1, 10, 1000)] == [64 * MB, 512 * MB, 2 << 30]


def test_room_shrinks_with_what_is_free_and_is_none_at_the_reserve() -> None:
    found = [room.plan(f * MB, 1 << 40, SIZES, {}, POLICY) for f in (100_000, 900, 300, 200, 150, 100, 1)]
    assert [p.level for p in found] == ["ok", "ok", "ok", "tight", "tight", "full", "full"]
    rooms = [p.room for p in found]
    assert rooms == sorted(rooms, reverse=True) and rooms[-2:] == [0, 0]
    assert all(
        p.room <= max(0, f - 100) * MB // 4 for p, f in zip(found, (100_000, 900, 300, 200, 150, 100, 1), strict=True)
    )


def test_all_streams_together_are_promised_no_more_than_the_server_takes() -> None:
    many = {"CLUSTER": 0, **{f"{kind}-{n}": 0 for kind in ("META", "REPORT", "HISTORY-META") for n in range(256)}}
    found = room.plan(1 << 45, 1 << 46, many, {}, room.Policy())
    assert found.level == "ok" and 0 < found.room * 513 <= room.ROOM_BYTES_MAX
    assert json.loads(config.hub(HUB))["jetstream"]["max_file_store"] > 2 * room.ROOM_BYTES_MAX


def test_histories_give_way_first_then_telemetry_and_state_never() -> None:
    some = room.plan(120 * MB, 1 << 40, SIZES, {}, POLICY).give_way
    assert some == {"HISTORY-CLUSTER": 240 * MB, "HISTORY-META-0": 80 * MB}, "80 MB, each its part"
    much = room.plan(0, 1 << 40, {**SIZES, "HISTORY-CLUSTER": 30 * MB, "HISTORY-META-0": MB}, {}, POLICY).give_way
    assert much == {"HISTORY-CLUSTER": MB, "TELEMETRY": 500 * MB - 171 * MB}
    assert room.plan(900 * MB, 1 << 40, SIZES, {"HISTORY-CLUSTER": 5}, POLICY).lift == {"HISTORY-CLUSTER"}
    assert room.plan(300 * MB, 1 << 40, SIZES, {"HISTORY-CLUSTER": 5}, POLICY).lift == frozenset()


def test_a_limit_is_left_while_it_is_about_right() -> None:
    assert room.limit_of(100, 0, 64) == 164
    assert room.limit_of(120, 164, 64) == 164 and room.limit_of(140, 164, 64) == 204
    assert room.limit_of(100, 2000, 64) == 164, "what was much room is little now"
    assert room.limit_of(100, 164, 0) == 100 and room.limit_of(0, 164, 0) == 1, "nothing more, also of an empty one"
    assert room.limit_of(100, 100, 0) == 100


def test_of_several_servers_the_least_room_counts() -> None:
    told = {"skerry.room.1": "ok 4096", "skerry.room.2": "tight 64", "skerry.room.3": "ok 8192", "skerry.epoch": "x"}
    assert room.least_room(told) == ("tight", 64)
    assert room.least_room({**told, "skerry.room.3": "full 0"}) == ("full", 0)
    assert room.least_room({}) == ("ok", 0) and room.least_room({"skerry.room.1": "what?"}) == ("ok", 0)
