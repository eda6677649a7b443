"""An operator's compaction: what is over for long leaves CLUSTER, REPORT and META.

The last event of every subject stays in its stream, tombstones too (DESIGN.md, invariant 1); so names that are never used
again stay as well: a pod of a Deployment leaves a tombstone in CLUSTER and a last word in REPORT.  They are small, and years
of them are not.  This takes out, when it is older than the operator says:

* CLUSTER   tombstones, but for those of Nodes: they keep a deleted Node from coming back by an old report
* REPORT    that a pod is gone, when no such pod is in CLUSTER; events about pods and nodes (the API keeps them an hour)

* META      tombstones, but for the last event of each scope: the next one is chained to it, and written expecting it

What makes it harmless:

* AGE_S_MIN: every process that follows a stream has heard of what goes, or has lost its consumer; and who comes back from
  below the horizon begins anew (bus/follower.py, cloud/sync.py).  A replica's cursor moves with each of its catch-ups, also
  the empty ones, so only a node that was away for as long as the tombstones are old meets the horizon;
* a reset that takes many pages passes the horizon with a note of the one that it began under, and the horizon is raised once
  more before the tombstones go: none can have read an object before its tombstone went and go on after it;
* a server that is killed before it wrote its index may bring back what was purged.  So older versions go first, and their
  tombstones only after the index was written: what can come back is a tombstone;
* a purge names the sequence up to which it goes: an object that is made again meanwhile is not touched.

The histories keep everything for their time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import structlog

from bus import log as buslog
from schemas import codec, event

logger = structlog.get_logger("bus.hub.compact")

LOOK_S = 2.0  # a horizon is known to every sync service by then (cloud/sync.py, INFO_AGE_S_MAX)
SETTLE_S = 150.0  # nats-server writes a stream's index every two minutes (NATS-FACTS.md, resurrection)
AGE_S_MIN = 3600.0
REPORT_KINDS_OVER = ("event",)  # history by nature: nothing is decided from them later


@dataclass(frozen=True, slots=True)
class Compacted:
    """``horizon`` is the stream's, 0 when it has none."""

    stream: str
    removed: int
    horizon: int


def over(ev: event.Event, pods: Collection[str]) -> bool:
    """Whether an event, the last of its subject, tells of something that is no more.  ``pods``: uids of those that are."""
    if ev.type == event.OBJECT_DELETED:
        return (ev.group, ev.resource) != ("", "nodes")
    if ev.type != event.REPORT:
        return False
    if ev.resource in REPORT_KINDS_OVER:
        return True
    data = ev.data or {}
    return ev.resource == "pod" and data.get("status") is None and data.get("uid") not in pods


def not_heads(lasts: Iterable[tuple[buslog.Recorded, event.Event]]) -> list[tuple[buslog.Recorded, event.Event]]:
    """Of META: all but the last of each scope."""
    every = list(lasts)
    heads: dict[str, int] = {}
    for r, ev in every:
        heads[ev.scope] = max(r.seq, heads.get(ev.scope, 0))
    return [(r, ev) for r, ev in every if r.seq != heads[ev.scope]]


def pods_of(events: Iterable[event.Event]) -> frozenset[str]:
    """uids of the pods in the last events of CLUSTER."""
    return frozenset(ev.uid for ev in events if (ev.group, ev.resource) == ("", "pods") and not ev.deleted)


async def compact(
    store: buslog.Log,
    *,
    shards: int,
    before_us: int,
    settle_s: float = SETTLE_S,
    say: Callable[[str], None] = lambda _: None,
) -> list[Compacted]:
    """Removes what is over since ``before_us`` (microseconds since 1970, by the log's clock).  May be stopped at any moment
    and begun again.  Raises LogError."""
    cluster = await _lasts(store, "CLUSTER")
    pods = pods_of(ev for _, ev in cluster)
    found: dict[str, list[buslog.Recorded]] = {}
    names = ("CLUSTER", *(f"{kind}-{n}" for kind in ("REPORT", "META") for n in range(shards)))
    for name in names:
        lasts = cluster if name == "CLUSTER" else await _lasts(store, name)
        if name.startswith("META-"):
            lasts = not_heads(lasts)
        found[name] = [r for r, ev in lasts if r.time_us < before_us and over(ev, pods)]
        if found[name]:
            await _raise_horizon(store, name, max(r.seq for r in found[name]))
        for r in found[name]:
            await _purge(store, r, r.seq)
    if any(found.values()):
        say(f"{sum(map(len, found.values()))} subjects are over; waiting {settle_s:g} s for the server to write its index")
        await asyncio.sleep(settle_s)
        for name in names:
            if found[name] and name.startswith("META-"):
                await _raise_horizon(store, name, (await store.info(name)).horizon + 1)
        await asyncio.sleep(min(settle_s, LOOK_S))
    done = []
    for name, records in found.items():
        for r in records:
            await _purge(store, r, r.seq + 1)
        horizon = (await store.info(name)).horizon
        done.append(Compacted(name, len(records), horizon))
        logger.info("hub.compacted", stream=name, removed=len(records), horizon=horizon)
    return done


async def _lasts(store: buslog.Log, name: str) -> list[tuple[buslog.Recorded, event.Event]]:
    """The last record of every subject; bytes that can't be read are nobody's to judge."""
    out = []
    async with contextlib.aclosing(store.follow(name, last_per_subject=True)) as batches:
        async for batch in batches:
            for r in batch.records:
                with contextlib.suppress(codec.DecodeError):
                    out.append((r, r.event()))
            if batch.pending == 0:
                return out
    raise AssertionError("a follower goes on for ever")


async def _raise_horizon(store: buslog.Log, name: str, seq: int) -> None:
    """A cursor at ``seq`` has heard of all that goes."""
    info = await store.info(name)
    if info.horizon < seq:
        metadata = {**(info.config.get("metadata") or {}), buslog.HORIZON_METADATA: str(seq)}
        await store.request(f"STREAM.UPDATE.{name}", {**info.config, "metadata": metadata})


async def _purge(store: buslog.Log, r: buslog.Recorded, below: int) -> None:
    """All of the record's subject with a sequence below that."""
    await store.request(f"STREAM.PURGE.{r.stream}", {"filter": r.subject, "seq": below})
