"""Options of a log request, and which container it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube.errors import StatusError
from bus.tunnel import TunnelRefused
from cloud.node_api import locate, query
from edge.core.pod_state import ContainerState, PodState
from edge.core.stimuli import Observed
from edge.node_api import which

NAMES = ["follow", "previous", "timestamps", "tailLines", "limitBytes", "sinceSeconds", "sinceTime", "stream"]
values = st.one_of(
    st.text(max_size=12), st.integers().map(str), st.sampled_from(["true", "0", "All", "2026-01-01T00:00:00Z"])
)


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_any_query_is_options_or_a_client_error(given_: dict[str, str]) -> None:
    code = 0
    try:
        query.logs(given_, "p", "c")
    except StatusError as e:
        code = e.code
    assert code in (0, 400, 422)


def test_options_are_read_as_the_real_server_reads_them() -> None:
    what = query.logs(
        {"follow": "true", "tailLines": "5", "limitBytes": "9", "sinceSeconds": "60", "timestamps": ""}, "p", "c"
    )
    assert (what.follow, what.tail, what.bytes_max, what.since_s, what.timestamps) == (True, 5, 9, 60, True)
    times = {
        "1970-01-01T00:00:01Z": 1_000_000,
        "1970-01-01T01:00:01.5+01:00": 1_500_000,
        "1970-01-01T00:00:00.123456789Z": 123_456,
        "1960-01-01T00:00:00Z": 0,
    }
    for text, us in times.items():
        assert query.logs({"sinceTime": text}, "p", "c").since_us == us
    assert query.logs({"follow": "false", "previous": "0"}, "p", "c").follow is False


@pytest.mark.parametrize(
    ("given_", "code", "field"),
    [
        ({"tailLines": "-1"}, 422, "tailLines"),
        ({"limitBytes": "0"}, 422, "limitBytes"),
        ({"sinceSeconds": "0"}, 422, "sinceSeconds"),
        ({"sinceSeconds": "1", "sinceTime": "2026-01-01T00:00:00Z"}, 422, "sinceTime"),
        ({"stream": "Both"}, 422, "stream"),
        ({"tailLines": "1.5"}, 400, "tailLines"),
        ({"tailLines": "9" * 30}, 400, "tailLines"),
        ({"sinceTime": "2026-01-01T00:00:00"}, 400, "time zone"),
    ],
)
def test_what_makes_no_sense_is_refused(given_: dict[str, str], code: int, field: str) -> None:
    with pytest.raises(StatusError) as e:
        query.logs(given_, "p", "c")
    assert e.value.code == code
    assert field in e.value.message


def test_a_container_must_be_named_when_there_are_several() -> None:
    one = locate.Place("ns", "p", "u", "n", ("a",), ("i",))
    assert (one.container(""), one.container("i")) == ("a", "i")
    two = locate.Place("ns", "p", "u", "n", ("a", "b"), ("i",))
    with pytest.raises(StatusError, match=r"choose one of: \[a b\] or one of the init containers: \[i\]"):
        two.container("")
    with pytest.raises(StatusError, match="container x is not valid for pod p"):
        two.container("x")


def seen(attempt: int, state: str) -> Observed:
    return Observed(
        id=f"id-{attempt}", pod_uid="u", namespace="ns", pod="p", container="c", attempt=attempt,
        state=state,  # type: ignore[arg-type]
    )  # fmt: skip


def pod(*attempts: Observed, waiting: tuple[str, str] | None = None) -> PodState:
    state = PodState("u", "ns", "p", 0)
    state.containers["c"] = ContainerState("c", attempts={o.attempt: o for o in attempts}, waiting=waiting)
    return state


@pytest.mark.parametrize(
    ("state", "now", "before"),
    [
        (pod(seen(0, "running")), "id-0", None),
        (pod(seen(0, "exited"), seen(1, "running")), "id-1", "id-0"),
        (pod(seen(3, "exited"), waiting=("CrashLoopBackOff", "")), "id-3", "id-3"),
        (pod(seen(2, "exited"), seen(3, "exited"), waiting=("CrashLoopBackOff", "")), "id-3", "id-3"),
        (pod(seen(2, "exited"), seen(3, "created")), "id-2", "id-2"),
        (pod(), None, None),
    ],
)
def test_logs_are_of_the_life_that_the_status_shows(state: PodState, now: str | None, before: str | None) -> None:
    for previous, wanted in ((False, now), (True, before)):
        if wanted is not None:
            assert which.for_logs(state, "c", previous) == wanted
        else:
            with pytest.raises(TunnelRefused) as e:
                which.for_logs(state, "c", previous)
            assert (e.value.code, e.value.reason) == (400, "BadRequest")


def test_a_container_that_waits_says_for_what() -> None:
    for reason, words in (("ErrImagePull", "image can't be pulled"), ("ImagePullBackOff", "trying and failing"), ("X", "X")):
        with pytest.raises(TunnelRefused, match=f'container "c" in pod "p" is waiting to start: .*{words}'):
            which.for_logs(pod(waiting=(reason, "")), "c", False)
    with pytest.raises(TunnelRefused, match="does not run"):
        which.running(pod(seen(0, "exited")), "c")
