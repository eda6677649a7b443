"""The chain of one change, whole and in an order that causes allow."""

import pytest

from ops.replay import entries, render, story
from schemas import event, subjects
from tests.unit.ops_replay import made

POD = entries.parse_target("pod/web-1")


def _story(h: made.History, target: entries.Target | None = POD) -> story.Story:
    trace = story.latest_trace(h.entries, target or POD)
    assert trace is not None
    return story.build(trace, story.chain_of(h.entries, trace, target))


def test_a_pod_s_story_has_every_hop_in_order() -> None:
    got = _story(made.main_job())
    assert [s.what for s in got.steps] == [
        "api", "controller", "controller", "controller", "dispatch", "edge.applied", "container.started", "report", "status",
    ]  # fmt: skip
    assert [s.after_us for s in got.steps][:5] == [None, 1000, 1000, 2000, 2000]
    assert got.duration_us == 54 * made.MS
    assert got.missing == []


def test_what_is_not_about_the_pod_is_left_out_unless_the_whole_trace_is_asked_for() -> None:
    h = made.main_job()
    assert not [s for s in _story(h).steps if "web-2" in s.about]
    whole = story.build(made.id_of(1), story.chain_of(h.entries, made.id_of(1)))
    assert [s for s in whole.steps if "web-2" in s.about]
    assert not [s for s in whole.steps if "configmaps" in s.about]


@pytest.mark.parametrize("clock_ms", [-3_600_000, 3_600_000])
def test_a_wrong_clock_on_the_node_changes_no_order(clock_ms: int) -> None:
    right, wrong = _story(made.main_job()), _story(made.main_job(clock_ms))
    assert [s.what for s in wrong.steps] == [s.what for s in right.steps]
    applied = next(s for s in wrong.steps if s.what == "edge.applied")
    assert applied.time_us == made.T + (9 + clock_ms) * made.MS  # stated as it is


def test_the_last_change_is_told_not_the_last_status() -> None:
    h = made.main_job()
    later = h.cluster(100, actor="admin", uid="u1")
    by_itself = h.report(200, "edge-1", data={"uid": "u1", "status": {"phase": "Failed"}})
    h.cluster(201, actor="reports", cause=by_itself, trace=by_itself)
    assert story.latest_trace(h.entries, POD) == later


def test_a_repeated_hop_and_an_event_read_twice_are_one_step() -> None:
    h = made.main_job()
    again = next(e for e in h.entries if e.stream.startswith("REPORT"))
    assert again.event is not None
    h.report(60, "edge-1", cause=again.event.cause, trace=again.event.trace, data=again.event.data)
    got = _story(made.History() if not h.entries else h)
    assert [s.what for s in got.steps].count("container.started") == 1
    twice = story.build(got.trace, [*story.chain_of(h.entries, got.trace, POD)] * 2)
    assert twice == got


def test_causes_that_are_gone_and_loops_end_well() -> None:
    h = made.History()
    h.cluster(1, cause=made.id_of(2), trace=made.id_of(9))
    h.cluster(2, cause=made.id_of(1), trace=made.id_of(9))
    h.cluster(3, cause=made.id_of(8), trace=made.id_of(9))
    got = story.build(made.id_of(9), story.chain_of(h.entries, made.id_of(9), POD))
    assert len(got.steps) == 3
    assert got.missing == [made.id_of(8)]


def test_hops_of_any_shape_are_no_reason_to_fail() -> None:
    for hops in (None, 1, "x", [1], [{}], [{"what": 1, "time": "x"}], {"what": "x"}):
        h = made.History()
        h.report(1, "edge-1", data={"hops": hops, "status": None})
        assert [s.what for s in story.build(made.id_of(1), h.entries).steps] == ["report"]


def test_the_text_names_time_hop_and_place() -> None:
    lines = render.story_lines(_story(made.main_job()), "pods default/web-1")
    assert lines[0].startswith("pods default/web-1: 9 steps in 54 ms")
    text = "\n".join(lines)
    for words in (
        "api",
        "dispatch",
        "pods default/web-1 to edge-1",
        "container.started",
        "Running from edge-1",
        "META-0 #1",
    ):
        assert words in text
    assert render.dumps(render.story_json(_story(made.main_job())))


def test_targets_as_people_write_them() -> None:
    assert entries.parse_target("deploy/web") == entries.Target("deployments", "web", "apps", None)
    assert entries.parse_target("deployments.apps/web", "x") == entries.Target("deployments", "web", "apps", "x")
    assert entries.parse_target("pods") == entries.Target("pods", None, "", None)
    assert entries.parse_target("nodes/edge-1", "default").namespace is None
    assert entries.parse_target("widgets.example.com/a").group == "example.com"
    for bad in ("", "Pods/x", "widgets/a", "pods/a/b", "pods.wrong"):
        if bad == "pods.wrong":
            assert entries.parse_target(bad).group == "wrong"
            continue
        with pytest.raises(entries.BadQuestion):
            entries.parse_target(bad)


def test_filters_hold_all_together() -> None:
    h = made.main_job()
    broken = entries.Entry("META-0", 9, "meta.0.x", made.T, None, "not an event")
    every = [*h.entries, broken]

    def count(f: entries.Filter) -> int:
        return len([e for e in every if f.matches(e)])

    assert count(entries.Filter()) == len(every)
    assert count(entries.Filter(target=POD)) == 5
    assert count(entries.Filter(node="edge-1")) == 3  # the binding, the dispatch, the report
    assert count(entries.Filter(actor="admin")) == 2
    assert count(entries.Filter(type="report")) == 1
    assert count(entries.Filter(trace=made.id_of(1), since_us=made.T + 50 * made.MS)) == 2
    node = event.Event(
        id=made.id_of(1), type="report", resource="node", name="", scope="edge-1", time=1, source="e", trace=made.id_of(1)
    )
    assert entries.parse_target("node/edge-1").matches(node)
    assert not entries.parse_target("node/edge-2").matches(node)


def test_times_as_people_write_them() -> None:
    now = made.T
    assert entries.parse_time("10m", now) == now - 600_000_000
    assert entries.parse_time("1970-01-02T00:00:00Z", now) == 86_400_000_000
    assert entries.parse_time("1970-01-02 01:00+01:00", now) == 86_400_000_000
    for bad in ("", "yesterday", "10 parsecs"):
        with pytest.raises(entries.BadQuestion):
            entries.parse_time(bad, now)
    assert abs(entries.id_time_us(made.id_of(7)) - (made.T + 7 * made.MS)) < 1000
    assert entries.format_time(0) == "1970-01-01 00:00:00.000"


def test_the_node_of_an_event() -> None:
    assert entries.node_of(made.main_job().entries[4].event or pytest.fail("no event")) == "edge-1"
    assert entries.target_of(subjects.ObjectKey("", "pods", "a", "b")).matches is not None
