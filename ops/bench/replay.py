"""How fast the log is folded: read from the hub, decoded, checked and folded, as the debugger and a new worker do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bus import connect, fold, log, stamp
from schemas import codec, event, subjects

EVENTS = 50_000
KEYS = 10_000
SCOPE = "bench-replay"
WINDOW = 500


async def measure(core: connect.Connection, shards: int) -> dict[str, Any]:
    store = log.Log(core)
    try:
        await _fill(store, shards)
        stream = f"META-{subjects.shard_of(SCOPE, shards)}"
        began = time.perf_counter()
        records: list[log.Recorded] = []
        async for batch in store.follow(stream, [subjects.meta_scope(SCOPE, shards)]):
            records += batch.records
            if batch.pending == 0:
                break
        read_s = time.perf_counter() - began
        began = time.perf_counter()
        facts = [fold.fact_of(SCOPE, subjects.parse_meta(r.subject)[2], r.seq, r.payload) for r in records]
        state = fold.fold(facts)
        fold_s = time.perf_counter() - began
    finally:
        await store.close()
    return {
        "events": len(records),
        "objects": len(state),
        "read_per_s": round(len(records) / read_s),
        "decode_check_fold_per_s": round(len(records) / fold_s),
        "together_per_s": round(len(records) / (read_s + fold_s)),
    }


async def _fill(store: log.Log, shards: int) -> None:
    """Objects of about a kilobyte, written without chain: only reading is measured."""
    data = {"kind": "ConfigMap", "data": {"text": "x" * 600}, "metadata": {"labels": {"app": "bench"}}}
    for start in range(0, EVENTS, WINDOW):
        await asyncio.gather(*(_one(store, shards, n, data) for n in range(start, min(EVENTS, start + WINDOW))))


async def _one(store: log.Log, shards: int, n: int, data: dict[str, Any]) -> None:
    key = subjects.ObjectKey("", "configmaps", "default", f"n{n % KEYS}")
    new_id = stamp.new_id()
    ev = event.Event(
        id=new_id, type=event.OBJECT_APPLIED, scope=SCOPE, resource=key.resource, namespace=key.namespace, name=key.name,
        time=stamp.now_us(), source="bench", trace=new_id, data={**data, "n": n},
    )  # fmt: skip
    await store.append_bytes(subjects.meta(SCOPE, key, shards), codec.encode_event(ev), ev.id)
