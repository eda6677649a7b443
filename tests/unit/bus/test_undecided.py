"""What the server's answers to an append mean: recorded from nats-server 2.15, one server and three."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from bus import acks, log

SUBJECT = "meta.0.edge-1.core.pods.default.p"


def refusal(code: int, err_code: int, text: str) -> bytes:
    error = {"code": code, "err_code": err_code, "description": text}
    return json.dumps({"error": error, "stream": "META-0", "seq": 0}).encode()


def test_stored_is_a_sequence_also_when_it_was_before() -> None:
    assert acks.sequence(SUBJECT, b'{"stream":"META-0", "seq":17}') == 17
    assert acks.sequence(SUBJECT, b'{"stream":"META-0", "domain":"hub", "seq":17, "duplicate": true}') == 17


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(400, 10071, "wrong last sequence: 7"), log.WrongSequence),
        (refusal(400, 10164, "wrong last sequence"), log.Undecided),
        (refusal(409, 10158, "duplicate message id is in process"), log.Undecided),
        (refusal(400, 10054, "message size exceeds maximum allowed"), log.EventTooLarge),
        (refusal(503, 10163, "expected last sequence per subject temporarily unavailable"), log.LogUnavailable),
        (refusal(400, 10109, "invalid operation on sealed stream"), log.LogError),
        (b"-ERR", log.LogUnavailable),
        (b"[1]", log.LogUnavailable),
        (b"{}", log.LogUnavailable),
        (b'{"seq": null}', log.LogUnavailable),
    ],
)
def test_a_refusal_is_told_apart(answer: bytes, error: type[log.LogError]) -> None:
    with pytest.raises(log.LogError, match="meta.0.edge-1") as caught:
        acks.sequence(SUBJECT, answer)
    assert type(caught.value) is error


def test_undecided_is_no_conflict_but_for_who_knows_no_better_an_outage() -> None:
    assert issubclass(log.Undecided, log.LogUnavailable) and not issubclass(log.Undecided, log.WrongSequence)


def test_pauses_grow_and_stay_bounded() -> None:
    waits = list(itertools.islice(acks.pauses(), 20))
    assert all(0 < w <= acks.UNDECIDED_S_MAX for w in waits)
    assert waits[0] <= acks.UNDECIDED_S_FIRST and min(waits[-5:]) >= acks.UNDECIDED_S_MAX / 2


class Answers:
    """A connection whose server gives these answers, one after the other."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []
        self.payload_bytes_max = 1 << 20

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, headers: Any = None) -> Any:
        self.asked.append((subject, headers))
        self.data = self.answers.pop(0)
        return self


async def test_an_undecided_append_is_repeated_with_the_same_id_until_it_is_decided() -> None:
    undecided = refusal(400, 10164, "wrong last sequence")
    server = Answers(undecided, undecided, b'{"stream":"META-0", "seq":17}')
    store = log.Log(server)  # type: ignore[arg-type]
    assert await store.append_bytes(SUBJECT, b"x", "id-1", expect=log.Expect(3, "meta.0.edge-1.>")) == 17
    assert len(server.asked) == 3 and all(a == server.asked[0] for a in server.asked)


async def test_what_stays_undecided_ends_and_says_so() -> None:
    server = Answers(*[refusal(409, 10158, "duplicate message id is in process")] * 1000)
    store = log.Log(server, timeout_s=0.1)  # type: ignore[arg-type]
    with pytest.raises(log.Undecided, match="in process"):
        await store.append_bytes(SUBJECT, b"x", "id-1", expect=log.Expect(3))


async def test_a_conflict_is_asked_about_at_the_leader_and_is_ours_when_the_id_is() -> None:
    ours = b'{"message":{"subject":"s","seq":9,"hdrs":"TkFUUy8xLjANCk5hdHMtTXNnLUlkOiBpZC0xDQoNCg=="}}'
    server = Answers(refusal(400, 10071, "wrong last sequence: 9"), ours)
    store = log.Log(server)  # type: ignore[arg-type]
    assert await store.append_bytes(SUBJECT, b"x", "id-1", expect=log.Expect(3)) == 9
    assert server.asked[1][0] == "$JS.API.STREAM.MSG.GET.META-0"
    nothing = b'{"error":{"code":404,"err_code":10037,"description":"no message found"}}'
    for answer in (ours, nothing):
        again = log.Log(Answers(refusal(400, 10071, "wrong last sequence: 9"), answer))  # type: ignore[arg-type]
        with pytest.raises(log.WrongSequence):
            await again.append_bytes(SUBJECT, b"x", "id-2", expect=log.Expect(3))
