"""The words of an append: its headers (expectation, id), and what the server's acknowledgement means (ADR-22).

Four kinds of answer, and who appends must tell them apart: stored (a sequence); refused for good (too large, a stream that
is sealed); refused because the expectation does not hold, which is somebody else's write; and *undecided*: a stream of
several servers does not look at an expectation while another write to the same subject, or with the same id, is on its way
through the cluster.  That says nothing about who is right, and lasts a few milliseconds: ask again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from bus import wire
from bus.records import EventTooLarge, Expect, LogError, LogFull, LogUnavailable, Undecided, WrongSequence

# nats-server's error codes (server/errors.json).  10071 wrong last sequence, 10070 wrong last message id, 10060 the stream
# that was expected is another.
_WRONG = frozenset({10071, 10070, 10060})
# 10164 "wrong last sequence" without a sequence: another write to the subject is in process.  10158: another one with this
# message id is.  Only streams with replicas answer so.
_UNDECIDED = frozenset({10164, 10158})
_TOO_LARGE = 10054
_FULL = 10077  # "maximum bytes exceeded", of a stream that discards nothing: bus/hub/room.py

UNDECIDED_S_FIRST = 0.005  # a write takes one round between the servers
UNDECIDED_S_MAX = 0.25  # while a leader is elected nothing is decided for some seconds

ID = "Nats-Msg-Id"
EPOCH = "Skerry-Epoch"  # of a META event: the epoch that its writer's view is of; republished with it
_EXPECT = "Nats-Expected-Last-Subject-Sequence"
_EXPECT_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"


def headers(msg_id: str, expect: Expect | None, epoch: str) -> dict[str, str]:
    """Of an append."""
    out = {ID: msg_id}
    if epoch:
        out[EPOCH] = epoch
    if expect is not None:
        out[_EXPECT] = str(expect.seq)
        if expect.filter is not None:
            out[_EXPECT_SUBJECT] = expect.filter
    return out


def header_block(msg_id: str, expect: Expect | None, epoch: str) -> bytes:
    """Raises ValueError for a line break inside."""
    return wire.header_block(headers(msg_id, expect, epoch))


def sequence(subject: str, data: bytes) -> int:
    """The sequence that a message was stored at.  Raises WrongSequence, Undecided, EventTooLarge, LogFull, LogUnavailable,
    LogError, their text naming the subject and the server's words."""
    try:
        ack = json.loads(data)
        err = ack.get("error")
        if err is None:
            return int(ack["seq"])
        code, text = err.get("err_code"), f"{subject}: {err.get('description')} ({err.get('err_code')})"
    except (ValueError, AttributeError, LookupError, TypeError) as e:
        raise LogUnavailable(f"{subject}: the answer is not a publish acknowledgement: {data[:80]!r}") from e
    if code in _WRONG:
        raise WrongSequence(text)
    if code in _UNDECIDED:
        raise Undecided(text)
    if code == _TOO_LARGE:
        raise EventTooLarge(text)
    if code == _FULL:
        raise LogFull(f"the hub's disk is nearly full, its log takes nothing more until there is room: {text}")
    if err.get("code") == 503:
        raise LogUnavailable(text)
    raise LogError(text)


def pauses() -> Iterator[float]:
    """Seconds before each next try of an undecided append: doubling, with jitter, so that two writers part."""
    limit = UNDECIDED_S_FIRST
    while True:
        yield limit * random.uniform(0.5, 1.0)
        limit = min(limit * 2, UNDECIDED_S_MAX)
