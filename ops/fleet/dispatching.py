"""The dispatcher's core alone (decisions, no I/O): what an event costs as nodes grow.

Each event is one change of one config map that one pod names, so that each leads to one append.  What the whole worker
costs is in the rows of ``catch_up``.
"""

from __future__ import annotations

import time
from typing import Any

from bus import stamp
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from ops.fleet import feed
from ops.fleet.worker import node_name
from schemas import event
from schemas.subjects import ObjectKey

CHANGES = 5_000


def _event(key: ObjectKey, data: dict[str, Any]) -> event.Event:
    ident = stamp.new_id()
    return event.Event(
        id=ident, type=event.OBJECT_APPLIED, group=key.group, resource=key.resource, namespace=key.namespace, name=key.name,
        uid=data["metadata"]["uid"], time=stamp.now_us(), source="fleet/feed", trace=ident, data=data,
    )  # fmt: skip


def core(nodes: int, objects: int, shards: int = 4) -> dict[str, float]:
    """Microseconds of CPU for an event in the pure core, with ``nodes`` nodes of ``objects`` objects folded."""
    made = Dispatcher(shards)
    seq = meta = 0
    waiting: list[stimuli.Instruction] = []

    def tell(s: stimuli.Stimulus) -> None:
        waiting.extend(made.handle(s))

    def answer() -> None:
        nonlocal meta
        while waiting:
            asked = waiting.pop()
            assert isinstance(asked, stimuli.Append)
            meta += 1
            tell(stimuli.Appended(asked.scope, meta))
            tell(stimuli.Written(meta, asked.scope))  # the worker sees its own writing too

    for n in range(nodes):
        for key, data in feed.objects(node_name(n), objects):
            seq += 1
            tell(stimuli.ClusterEvent(seq, _event(key, data)))
    tell(stimuli.Loaded(seq))
    answer()
    changed = []
    for i in range(CHANGES):
        key = feed.map_key(node_name(i * 7919 % nodes), i % (objects - 1))
        changed.append(_event(key, feed.config_map(key, i + 2, stamped=True)))
    before, began = meta, time.process_time()
    for ev in changed:
        seq += 1
        tell(stimuli.ClusterEvent(seq, ev))
        answer()
    took = time.process_time() - began
    assert meta - before == CHANGES, (meta, before)
    return {"core_us": round(took / CHANGES * 1e6, 1), "core_events_s": round(CHANGES / took)}
