"""The whole dispatcher, a process as it is deployed, on a real hub: how many META events a second, and what one costs.

Two kinds of change: of an object that one node needs, and of one that every node needs.  No object is changed twice, so
that no change folds into a later one: each leads to the events that are counted.  No nodes are connected: what they cost is
in the other benches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from bus import log, pipeline, stamp
from ops.fleet import feed, usage
from ops.fleet.fleet import FleetError
from ops.fleet.lab import Lab
from ops.fleet.worker import node_name
from ops.lab.show import Show
from schemas import codec, event, subjects
from schemas.subjects import ObjectKey

WINDOW = 1000  # appends of ours on their way
CARRIED_S = 600.0  # for what was written to arrive in META
LOOK_S = 0.05
EVENTS = 20_000

Change = tuple[ObjectKey, feed.Data]


async def measure(lab: Lab, show: Show, nodes: int, objects: int, events: int = EVENTS) -> list[dict[str, Any]]:
    """A row for each kind of change.  Raises FleetError when META doesn't grow as it must."""
    names = [node_name(n) for n in range(nodes)]
    lab.start("dispatcher")
    writer = _Writer(lab)
    writing = asyncio.create_task(writer.pipeline.run())
    try:
        with show.step(f"{nodes * objects} objects into the log"):
            await writer.write(x for n in names for x in feed.objects(n, objects))
            await _grown(lab, nodes * objects)
        rows = []
        for what, changes, count in (
            ("one", list(_for_one(names, objects, events)), min(events, nodes * (objects - 1))),
            ("all", list(_for_all(max(1, events // nodes))), max(1, events // nodes) * nodes),
        ):
            with show.step(f"{len(changes)} changes for {what}, {count} events") as line:
                await lab.quiet()
                before, meter, began = await _meta(lab), usage.Meter(lab.groups()), time.monotonic()
                await writer.write(changes)
                await _grown(lab, before + count)
                took, used = time.monotonic() - began, meter.read()
                spent = used["dispatcher"]["cpu_s"]
                row: dict[str, Any] = {"bench": f"dispatcher_{what}", "nodes": nodes, "objects": objects}
                row |= {"shards": lab.hub.shards, "changes": len(changes), "events": count}
                row |= {"seconds": round(took, 2), "events_s": round(count / took)}
                row |= {"cpu_us": round(spent / count * 1e6, 1), "events_s_core": round(count / max(spent, 0.01))}
                rows.append({**row, "used": used})
                line.detail(f"{row['events_s']} events/s, {row['events_s_core']} a core")
        return rows
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def _for_one(names: list[str], objects: int, events: int) -> Iterable[Change]:
    """Another node each time, as changes come."""
    maps = [(name, n) for n in range(objects - 1) for name in names]
    for name, n in maps[:events]:
        key = feed.map_key(name, n)
        yield key, feed.config_map(key, 1, stamped=False)


def _for_all(count: int) -> Iterable[Change]:
    """Services of the namespace: every node with a pod there needs all of them."""
    for n in range(count):
        key = ObjectKey("", "services", feed.NAMESPACE, f"svc-{n}")
        meta = {"name": key.name, "namespace": key.namespace, "uid": f"uid-{key.name}"}
        ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
        spec = {"selector": {"app": "hollow"}, "clusterIP": "10.96.0.1", "type": "ClusterIP", "ports": ports}
        yield key, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


async def _meta(lab: Lab) -> int:
    """Events that META ever had."""
    return sum([(await lab.log.info(f"META-{n}")).last_seq for n in range(lab.hub.shards)])


async def _grown(lab: Lab, wanted: int) -> None:
    deadline = time.monotonic() + CARRIED_S
    while (there := await _meta(lab)) < wanted:
        if time.monotonic() > deadline:
            raise FleetError(f"META has {there} events of {wanted} after {CARRIED_S:g} s")
        await asyncio.sleep(LOOK_S)
    if there != wanted:
        raise FleetError(f"META has {there} events, {wanted} were expected")


class _Writer:
    """CLUSTER as the API writes it, faster than the dispatcher reads."""

    def __init__(self, lab: Lab) -> None:
        self.pipeline: pipeline.Pipeline = lab.log.pipeline()
        self._slots = asyncio.Semaphore(WINDOW)
        self._failed: log.LogError | None = None

    async def write(self, changes: Iterable[Change]) -> None:
        for key, data in changes:
            await self._slots.acquire()
            ident = stamp.new_id()
            ev = event.Event(
                id=ident, type=event.OBJECT_APPLIED, group=key.group, resource=key.resource, namespace=key.namespace,
                name=key.name, uid=data["metadata"]["uid"], time=stamp.now_us(), source=feed.SOURCE, trace=ident, data=data,
            )  # fmt: skip
            self.pipeline.append(subjects.cluster(key), codec.encode_event(ev), ident, self._done)
        for _ in range(WINDOW):  # until the last is answered
            await self._slots.acquire()
        for _ in range(WINDOW):
            self._slots.release()
        if self._failed is not None:
            raise FleetError(f"the hub did not take a change: {self._failed}")

    def _done(self, outcome: pipeline.Outcome) -> None:
        self._slots.release()
        if not isinstance(outcome, int):
            self._failed = outcome
