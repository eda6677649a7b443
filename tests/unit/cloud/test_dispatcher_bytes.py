"""The dispatcher makes its events' bytes by hand: they are those of the events."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bus import log
from cloud.core import stimuli
from cloud.dispatcher import DispatcherWorker
from schemas import codec, event
from schemas.subjects import ObjectKey

IDENT = event.uuid7(1_700_000_000_000_000, bytes(10))
CAUSE = event.uuid7(1_700_000_000_000_001, bytes(10))
POD = ObjectKey("", "pods", "default", "p")
NODE = ObjectKey("", "nodes", "", "edge-1")
DEVICE = ObjectKey("devices.kubeedge.io", "devices", "default", "d")


def made(**how: Any) -> stimuli.Append:
    fields: dict[str, Any] = {
        "scope": "edge-1",
        "key": POD,
        "prev": 7,
        "rev": 9,
        "uid": "u",
        "data": {"a": [1, {"b": None}]},
    }
    return stimuli.Append(**{**fields, "cause": CAUSE, "trace": CAUSE, **how})


@pytest.mark.parametrize(
    "append",
    [
        made(),
        made(key=NODE),
        made(key=DEVICE, prev=0),
        made(data=None),
        made(data={}, uid="", rev=0),
        made(cause=None, trace=None),
        made(scope="ü" * event.NAME_MAX),
    ],
)
def test_they_decode_to_the_event_and_are_its_only_form(append: stimuli.Append) -> None:
    worker = DispatcherWorker(cast(log.Log, None), 1)
    for _ in range(2):  # the second time its data is packed already
        data = worker._event(append, IDENT)
        ev = codec.decode_event(data)
        assert codec.encode_event(ev) == data
        assert (ev.id, ev.scope, ev.key, ev.uid, ev.rev) == (IDENT, append.scope, append.key, append.uid, append.rev)
        assert (ev.prev, ev.data, ev.cause, ev.trace) == (append.prev, append.data, append.cause, append.trace or IDENT)
        assert ev.deleted == (append.data is None)


def test_a_scope_that_no_event_can_have_is_refused() -> None:
    worker = DispatcherWorker(cast(log.Log, None), 1)
    with pytest.raises(codec.EncodeError, match="341 characters"):
        worker._event(made(scope="x" * 341), IDENT)
