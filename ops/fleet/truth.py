"""What a fleet should hold, from the log: the other side of ``HollowNode.digest``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from bus import fold, log
from ops.fleet.node import ALL, entry_digest
from schemas import codec, event, subjects


async def digest(store: log.Log, shards: int, nodes: Sequence[str]) -> tuple[int, int]:
    """(digest, objects) of what these nodes should hold together.  Raises LogError."""
    names = set(nodes)
    total = objects = 0
    for shard in range(shards):
        async with contextlib.aclosing(store.follow(f"META-{shard}", last_per_subject=True)) as batches:
            async for batch in batches:
                for r in batch.records:
                    _, scope, key = subjects.parse_meta(r.subject)
                    holders = nodes if scope == ALL else [scope] if scope in names else []
                    if not holders or codec.unpack(r.payload)["type"] == event.OBJECT_DELETED:
                        continue
                    entry = fold.store_key(scope, key), fold.store_value(r.seq, r.payload)
                    total += sum(entry_digest(n, *entry) for n in holders)
                    objects += len(holders)
                if batch.pending == 0:
                    break
    return total, objects
