"""The nodes that have joined, as IDENTITY knows them."""

from __future__ import annotations

import structlog

from bus import log as buslog
from schemas import codec, identity

log = structlog.get_logger("bus.identity.nodes")


async def read_nodes(log_: buslog.Log) -> dict[str, identity.NodeState]:
    """By name, revoked ones too.  An event that can't be read is left out and said.  Raises LogError."""
    found: dict[str, identity.NodeState] = {}
    after, more = 0, True
    while more:
        page = await log_.last("IDENTITY", ["identity.nodes.>"], after=after)
        after, more = page.up_to, page.more
        for record in page.records:
            try:
                ev = record.event()
                found[ev.name] = codec.validate(identity.NodeState, ev.data or {})
            except codec.DecodeError as e:
                log.warning("identity.foreign_event", reason=str(e))
    return found
