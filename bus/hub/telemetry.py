"""Telemetry from the nodes' leafs into the hub's TELEMETRY stream: JetStream's own sourcing, over the two accounts.

The hub keeps one source a node.  It asks the leaf (``up.<node>.<life>.api...``, the one JetStream call that a leaf lets
through) for a consumer that begins after the last message that the hub has *stored*, so nothing is lost and nothing doubled
by cut links or crashes on either side; the acknowledgement is the hub's own log.

What it costs, measured on 2.15.1: a consumer's heartbeat of some 140 bytes every second (fixed in the server) as long as
the link is up, 12 MB a day a node.  So a node without devices has no source (``cloud/telemetry_sources.py`` decides).  All
sources are in one stream's configuration, each change rewrites it: with 2,000 nodes a nudge takes 0.2 s, and the
configuration of some 5,000 is as large as a message may be.  Then there must be several TELEMETRY streams.

After a cut the hub looks for the leaf with growing pauses (up to 40 s seen, two minutes by the server's source code);
``nudge`` has it look now (0.2 s), and ``bus.hub.nudger`` calls it when a link comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import structlog

from bus import log as buslog
from bus.identity import permissions
from schemas import subjects

log = structlog.get_logger("bus.hub.telemetry")

STREAM = permissions.TELEMETRY_STREAM
_TRIES_MAX = 5  # two writers of the stream's configuration: the later one wins, so each looks whether its change is there


def source_of(node: str, public_key: str) -> dict[str, Any]:
    """The source of one life of one node.

    The filter is also the name under which the hub finds its place again, and what a reader can compare a message's
    subject with (``origin_is_true``)."""
    up = subjects.uplink(node, permissions.life_of(public_key))
    return {
        "name": STREAM,
        "filter_subject": subjects.telemetry_node(node),
        "external": {"api": f"{up}.api", "deliver": f"{up}.deliver"},
    }


def origin_is_true(subject: str, headers: Mapping[str, str] | None) -> bool:
    """Whether a sourced message's subject belongs to the node it came from.

    The server doesn't check it: a hostile leaf can deliver any subject.  It does write which source the message came by:
    ``Nats-Stream-Source: <stream>:<hash> <sequence> <filter> <transform> <subject>`` (nats-server, server/stream.go)."""
    origin = origin_of(headers)
    return origin != "" and subject.startswith(f"telemetry.{origin}.")


def origin_of(headers: Mapping[str, str] | None) -> str:
    """The token of the node that a sourced message was fetched from; "" for one that was not sourced."""
    parts = ((headers or {}).get("Nats-Stream-Source") or "").split(" ")
    tokens = parts[2].split(".") if len(parts) >= 3 else []
    return tokens[1] if len(tokens) == 3 and tokens[0] == "telemetry" and tokens[2] == ">" else ""


async def add_telemetry_source(log_: buslog.Log, node: str, public_key: str) -> bool:
    """Begins to fetch a node's telemetry; sources of its former lives end.  Raises LogError.

    True when something changed."""
    return await _change(log_, node, source_of(node, public_key))


async def set_sources(log_: buslog.Log, keys: Mapping[str, str]) -> int:
    """Exactly these nodes (name to public key) have a source.  How many were added or removed.  Raises LogError."""
    wanted = {n: source_of(n, k) for n, k in keys.items()}
    essences = {_essence(s) for s in wanted.values()}
    changes = 0
    for _ in range(_TRIES_MAX):
        config = (await log_.info(STREAM)).config
        now = list(config.get("sources") or [])
        kept = [s for s in now if _essence(s) in essences]
        there = {_essence(s) for s in kept}
        missing = [s for s in wanted.values() if _essence(s) not in there]
        if not missing and len(kept) == len(now):
            return changes
        changes = max(changes, len(missing) + len(now) - len(kept))
        await log_.request(f"STREAM.UPDATE.{STREAM}", {**config, "sources": [*kept, *missing]})
    raise buslog.LogError(f"the sources of {STREAM} are changed by somebody else all the time")


async def remove_telemetry_source(log_: buslog.Log, node: str) -> bool:
    """Ends it; what was fetched stays.  Raises LogError."""
    return await _change(log_, node, None)


async def nudge(log_: buslog.Log, nodes: Collection[str]) -> int:
    """Has the hub look for these nodes' leafs now: their sources are taken out and put back, which begins after the last
    message stored, as ever.  How many have a source.  Raises LogError."""
    filters = {subjects.telemetry_node(n) for n in nodes}
    config = (await log_.info(STREAM)).config
    sources = list(config.get("sources") or [])
    mine = [s for s in sources if s.get("filter_subject") in filters]
    if mine:
        without = [s for s in sources if s not in mine]
        await log_.request(f"STREAM.UPDATE.{STREAM}", {**config, "sources": without})
        # Read again: a node may have joined in between.
        config = (await log_.info(STREAM)).config
        now = list(config.get("sources") or [])
        there = {s.get("filter_subject") for s in now}
        back = [s for s in mine if s.get("filter_subject") not in there]
        await log_.request(f"STREAM.UPDATE.{STREAM}", {**config, "sources": [*now, *back]})
    return len(mine)


async def stalled(log_: buslog.Log, *, silent_s: float = 2.5) -> set[str]:
    """Nodes whose source has heard nothing from its leaf for ``silent_s`` (a heartbeat comes every second)."""
    info = await log_.request(f"STREAM.INFO.{STREAM}")
    out = set()
    for s in info.get("sources") or []:
        active, filter_ = s.get("active", -1), s.get("filter_subject", "")
        if (active < 0 or active > silent_s * 1e9) and filter_.count(".") == 2:
            out.add(subjects.unescape(filter_.split(".")[1]))
    return out


def _is_of(source: Mapping[str, Any], node: str) -> bool:
    return bool(source.get("filter_subject") == subjects.telemetry_node(node))


async def _change(log_: buslog.Log, node: str, wanted: dict[str, Any] | None) -> bool:
    for attempt in range(_TRIES_MAX):
        config = (await log_.info(STREAM)).config
        current = list(config.get("sources") or [])
        mine = [s for s in current if _is_of(s, node)]
        if [_essence(s) for s in mine] == ([] if wanted is None else [_essence(wanted)]):
            return attempt > 0
        others = [s for s in current if not _is_of(s, node)]
        sources = others if wanted is None else [*others, wanted]
        await log_.request(f"STREAM.UPDATE.{STREAM}", {**config, "sources": sources})
    raise buslog.LogError(f"the sources of {STREAM} are changed by somebody else all the time")


def _essence(source: Mapping[str, Any]) -> tuple[Any, Any]:
    return source.get("filter_subject"), (source.get("external") or {}).get("api")
