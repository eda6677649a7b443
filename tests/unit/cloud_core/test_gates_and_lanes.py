"""Who waits for whom, and who is shut out for how long."""

from __future__ import annotations

from bus.identity import accounts
from cloud import gatekeeper, revoking
from cloud.core import attempts, gates, status
from cloud.core.lanes import Lanes
from schemas import identity
from schemas.subjects import ObjectKey


def test_lanes_take_turns_and_a_newer_word_takes_the_olders_place() -> None:
    lanes: Lanes[str] = Lanes(a_turn=2)
    for n in range(1000):
        lanes.put("flood", n, f"f{n}")
    lanes.put("quiet", "a", "old")
    lanes.put("quiet", "b", "b")
    lanes.put("quiet", "a", "new")
    assert (len(lanes), lanes.waiting("flood"), lanes.waiting("quiet"), lanes.overtaken) == (1002, 1000, 2, 1)
    assert lanes.take(5) == ["f0", "f1", "new", "b", "f2"]
    assert lanes.take(2) == ["f3", "f4"], "alone it has every turn"
    assert len(lanes.take(5000)) == 995 and not lanes and lanes.take(1) == [] and lanes.waiting("flood") == 0


def _key(name: str) -> ObjectKey:
    return ObjectKey("", "events", "default", name)


def test_writes_of_one_node_do_not_wait_for_those_of_another() -> None:
    a = attempts.Attempts(2, lambda key: key.name[0])
    for n in range(100):
        a.want(_key(f"f{n}"))
    a.want(_key("q"))
    first, second = a.next(), a.next()
    assert {first, second} == {_key("f0"), _key("q")}


def test_an_object_that_became_anothers_while_it_waited_is_written_once() -> None:
    owner = {"x": "a"}
    a = attempts.Attempts(8, lambda key: owner[key.name])
    a.want(_key("x"))
    owner["x"] = "b"
    a.want(_key("x"))
    assert a.next() == _key("x")
    a.begin(_key("x"), 1)
    assert a.next() is None
    a.done(_key("x"), 2, 0)
    a.shown(_key("x"), 2)
    assert a.next() == _key("x") and a.next() is None, "and looked at again"


def test_an_outbox_of_days_passes_and_a_flood_does_not() -> None:
    g = gates.Gates()
    assert not any(g.spend("report", "honest", 1, 2_000, n / 5000) for n in range(10_000)), "10,000 reports in two seconds"
    assert not any(g.spend("report", "busy", 1, 1_000, n / 40) for n in range(200_000)), "40 a second for an hour and more"
    said = [g.spend("report", "evil", 1, 500, n / 5000) for n in range(40_000)]
    first = next(n for n, reason in enumerate(said) if reason)
    assert 20_000 <= first < 20_400 and "more than 20000 messages" in said[first]
    assert sum(map(bool, said)) == 1, "it has a full share again"
    giants = [g.spend("report", "giant", 1, 256 << 10, 0.0) for _ in range(300)]
    assert giants.index(next(filter(None, giants))) == 256 and not g.spend("report", "honest", 1, 10, 10.0)
    assert not g.spend("beat", "evil", 1, 10, 8.0), "each service has a measure of its own"
    assert not g.spend("report", "evil", 1, 10, 0.0), "a clock that goes back gives and takes nothing"


def test_a_door_is_shut_for_longer_each_time_until_it_is_forgiven() -> None:
    g = gates.Gates()
    assert [g.shut_for_s(n) for n in (0, 1, 2, 5, 6, 99)] == [60, 120, 240, 1920, 3600, 3600]
    day = 24 * 3600.0
    assert g.times(3, 1000.0, 1000.0 + day) == 3 and g.times(3, 1000.0, 1001.0 + day) == 0


def test_the_claims_follow_the_log() -> None:
    now = 100 * 86_400
    old, kept = now - 50 * 86_400, accounts.REVOCATION_KEPT_S
    out, shut = {"REVOKED": now - 10, "LONG": old}, ["FLOODS"]
    join, edge = revoking.changes(
        out, shut, {"OPENED": now + 99, "CUT": now + kept}, {"CUT": now + kept, "FORGOTTEN": old + kept}, now
    )
    assert (join.add, join.remove) == ({"REVOKED", "LONG"}, frozenset())
    assert edge.add == {"REVOKED", "FLOODS"}, "what is old enough has expired, and is forgotten in EDGE"
    assert edge.remove == {"OPENED"}, "only who is in JOIN, or in the log, is out for good"
    after = dict.fromkeys(("REVOKED", "FLOODS", "CUT"), now + kept)
    known = {"CUT": now + kept, "REVOKED": now + kept, "LONG": old + kept}
    assert revoking.changes(out, shut, after, known, now) == (
        revoking.Change(),
        revoking.Change(),
    )


def test_what_is_said_of_a_node_under_one_mark_leaves_the_other() -> None:
    node = {"metadata": {"name": "e"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    both = status.with_mark(status.with_mark(node, status.FLOODING, "too much", 1), status.DUPLICATE, "two", 2)
    assert (status.marked(both, status.FLOODING), status.marked(both, status.DUPLICATE)) == ("too much", "two")
    one = status.with_mark(both, status.FLOODING, "", 3)
    assert (status.marked(one, status.FLOODING), status.marked(one, status.DUPLICATE)) == ("", "two")
    assert {c["type"]: c["status"] for c in one["status"]["conditions"]}["Flooding"] == "False"


def test_one_flood_that_is_read_late_is_not_two() -> None:
    """Its reports wait in the log while the door is shut and opened again."""
    keeper = gatekeeper.Gatekeeper(None, None, None, limits=gates.Limits(messages_at_once=10, messages_a_s=0.0))  # type: ignore[arg-type]
    keeper._doors["e"] = 1, identity.DoorState(public_key="U", until=0, opened=50_000_000, times=1)
    for n in range(100):
        keeper.spend("report", "e", 1, 49.0 + n / 100)
    assert keeper._floods.empty()
    for n in range(100):
        keeper.spend("report", "e", 1, 50.1 + n / 100)
    assert keeper._floods.qsize() == 1, "but the next one is one"
