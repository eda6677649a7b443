"""The streams of a hub, as they should be: made when missing, changed when they differ, never deleted.

Each carries the epoch of its making in its metadata: a cursor of another epoch is worth nothing (DESIGN.md, invariant 1).
No stream of state has a TTL or an age limit, and no delete marker: the last event of every subject stays.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from bus import log as buslog
from bus.hub import accounts
from schemas.reports import REPORT_BYTES_MAX

log = structlog.get_logger("bus.hub.streams")

VERSIONS_DEFAULT = 8  # H: what a replica that lags can still read one by one; the history has the rest
# A history that loses its leader, or its origin's, reads on 7 to 17 s later (measured), and what its origin has dropped by
# then it lacks for ever: an object may change three times a second meanwhile.
VERSIONS_OF_THREE = 64
# A node that was away for long sends up to RUN_MAX (bus/outbox.py) reports of one subject at once: the history must get to
# read them before the stream drops them.  What the stream keeps more the history has anyway.
VERSIONS_OF_REPORTS = 64
HISTORY_DAYS_DEFAULT = 30
TELEMETRY_DAYS_DEFAULT = 7
TELEMETRY_BYTES_DEFAULT = 8 << 30
AUDIT_DAYS_DEFAULT = 365
AUDIT_EACH_MAX = 10_000  # of one kind about one name, some 5 MB: who is refused all the time pushes out nobody else's
AUDIT_BYTES_MAX = 1 << 30  # two million decisions; who is refused again and again must not fill the disk
# Replicas hold no consumers (live subscription and catch-up instead); API servers, workers and debuggers hold a few each.
CONSUMERS_MAX = 10_000
DUPLICATE_WINDOW_S = 120
READS_S_MAX = 30.0  # a mirror asks its origin again after at most that long
READS_LOOK_S = 0.1
REPORT_HEADER_ROOM = 4 << 10  # Nats-Msg-Id and the like
_DAY_NS = 86_400 * 10**9

Config = dict[str, Any]


class StreamsError(Exception):
    """A stream exists in a way that can't be changed into what is needed; the message says how."""


@dataclass(frozen=True, slots=True)
class Limits:
    versions: int = VERSIONS_DEFAULT
    history_days: int = HISTORY_DAYS_DEFAULT
    telemetry_days: int = TELEMETRY_DAYS_DEFAULT
    telemetry_bytes: int = TELEMETRY_BYTES_DEFAULT
    audit_days: int = AUDIT_DAYS_DEFAULT
    replicas: int = 1


@dataclass(slots=True)
class Ensured:
    """What ``ensure_streams`` did; ``changed`` has ``stream: field: old -> new``."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def _state(name: str, subjects: list[str], limits: Limits) -> Config:
    return {
        "name": name,
        "subjects": subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "new",  # beyond max_bytes, which bus/hub/room.py sets: state is never thrown away for room
        "max_msgs_per_subject": limits.versions,
        "max_consumers": CONSUMERS_MAX,
        "num_replicas": limits.replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": False,
        "deny_delete": True,  # one event can't be taken out of the log; a compaction purges by sequence, and sets a horizon
        "allow_atomic": True,
        "duplicate_window": DUPLICATE_WINDOW_S * 10**9,
    }


def _history(of: str, limits: Limits) -> Config:
    return {
        "name": f"HISTORY-{of}",
        # As if it were elsewhere: the server makes a mirror next to its origin answer direct gets for it, and this one
        # forgets what is older than its age limit, which would make objects vanish from a catch-up.
        "mirror": {"name": of, "external": {"api": accounts.MIRROR_API}},
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "compression": "s2",
        "max_age": limits.history_days * _DAY_NS,
        "max_consumers": CONSUMERS_MAX,
        "num_replicas": limits.replicas,
        "allow_direct": True,
        "mirror_direct": False,
        "deny_delete": True,
    }


def limits_of(replicas: int) -> Limits:
    return Limits(replicas=replicas, versions=VERSIONS_DEFAULT if replicas == 1 else VERSIONS_OF_THREE)


def wanted(shards: int, limits: Limits | None = None) -> list[Config]:
    """Configurations of all streams of a hub, mirrors after what they mirror.  Sources of TELEMETRY are not in it."""
    limits = limits or Limits()
    state = [_state("CLUSTER", ["cluster.>"], limits)]
    for n in range(shards):
        meta = _state(f"META-{n}", [f"meta.{n}.>"], limits)
        meta["republish"] = {"src": f"meta.{n}.>", "dest": "live.>"}
        state.append(meta)
    # What nodes write is bounded by the stream itself: a reader that asks for many must not be sent gigabytes.
    report = {
        "max_msg_size": REPORT_BYTES_MAX + REPORT_HEADER_ROOM,
        "max_msgs_per_subject": max(limits.versions, VERSIONS_OF_REPORTS),
    }
    state += [{**_state(f"REPORT-{n}", [f"report.{n}.>"], limits), **report} for n in range(shards)]
    identity = _state("IDENTITY", ["identity.>"], limits)
    audit = {
        **_state("AUDIT", ["audit.>"], limits),
        "discard": "old",
        "max_msgs_per_subject": AUDIT_EACH_MAX,
        "max_age": limits.audit_days * _DAY_NS,
        "max_bytes": AUDIT_BYTES_MAX,
    }
    # Who leads what in the cloud, now: nothing of it is worth keeping.
    leases = {**_state("LEASES", ["lease.>"], limits), "max_msgs_per_subject": 1, "allow_atomic": False}
    telemetry = {
        **_state("TELEMETRY", ["telemetry.>"], limits),
        "discard": "old",
        "max_msgs_per_subject": -1,
        "max_age": limits.telemetry_days * _DAY_NS,
        "max_bytes": limits.telemetry_bytes,
        "compression": "s2",
        "deny_delete": False,
        "allow_atomic": False,
    }
    return [*state, identity, audit, leases, telemetry, *(_history(c["name"], limits) for c in state)]


async def ensure_streams(log_: buslog.Log, *, shards: int, limits: Limits | None = None) -> Ensured:
    """Makes and changes the streams over a CORE connection, and on a new hub returns when each history reads its origin:
    what is written before may be dropped again before it is read.  Idempotent.  Raises StreamsError, LogUnavailable."""
    done = Ensured()
    for config in wanted(shards, limits):
        await _ensure(log_, config, done)
    if (await log_.info("CLUSTER")).last_seq == 0:  # a hub that is new; a later one must serve before all is well again
        for name in (c["name"] for c in wanted(shards, limits) if "mirror" in c):
            await _reads(log_, name)
    for line in done.changed:
        log.info("stream.changed", change=line)
    return done


async def differences(log_: buslog.Log, *, shards: int, limits: Limits | None = None) -> dict[str, list[str]]:
    """What ``ensure_streams`` would make or change, by stream; changes nothing.  Raises LogUnavailable."""
    out: dict[str, list[str]] = {}
    for config in wanted(shards, limits):
        try:
            found = _differences((await log_.info(config["name"])).config, config)
        except buslog.LogUnavailable:
            raise
        except buslog.LogError as e:
            found = [str(e)]
        if found:
            out[config["name"]] = found
    return out


async def _ensure(log_: buslog.Log, config: Config, done: Ensured) -> None:
    name = config["name"]
    try:
        current = (await log_.info(name)).config
    except buslog.LogUnavailable:
        raise
    except buslog.LogError as e:
        if "10059" not in str(e):  # stream not found
            raise
        made = {**config, "metadata": {buslog.EPOCH_METADATA: secrets.token_hex(8)}}
        try:
            await log_.request(f"STREAM.CREATE.{name}", made)
        except buslog.LogUnavailable:
            raise
        except buslog.LogError as failed:
            if "(10058)" in str(failed):  # made by another process at this moment
                await _ensure(log_, config, done)
                return
            if any(code in str(failed) for code in _LATER):
                raise buslog.LogUnavailable(str(failed)) from failed
            raise StreamsError(f"can't make stream {name}: {failed}") from failed
        done.created.append(name)
        return
    differences = _differences(current, config)
    if not differences:
        return
    try:
        await log_.request(f"STREAM.UPDATE.{name}", {**current, **config})
    except buslog.LogUnavailable:
        raise
    except buslog.LogError as failed:
        text = "; ".join(differences)
        raise StreamsError(f"stream {name} differs and can't be changed ({text}): {failed}") from failed
    done.changed += [f"{name}: {d}" for d in differences]


async def _reads(log_: buslog.Log, history: str) -> None:
    """Returns when a history has its consumer on its origin.  Raises LogUnavailable."""
    deadline = time.monotonic() + READS_S_MAX
    while True:
        told = await log_.request(f"STREAM.INFO.{history}")
        mirror = told.get("mirror") or {}
        # ``active``: nanoseconds since the origin was last heard, -1 if never (nats-server, StreamSourceInfo).
        if mirror.get("active", -1) >= 0:
            return
        if time.monotonic() > deadline:
            why = (mirror.get("error") or {}).get("description", "it has not heard from it")
            raise buslog.LogUnavailable(f"{history} does not read its origin yet: {why}")
        await asyncio.sleep(READS_LOOK_S)


# Not all servers of a cluster are there yet; no room on the disk, or none that the server can give now.
_LATER = ("(10005)", "(10023)", "(10047)")
_ABSENT: tuple[Any, ...] = (None, False, 0, -1, "", [], {}, "none")  # the server leaves out what has no effect


def _differences(current: Config, config: Config) -> list[str]:
    out = []
    for key, value in config.items():
        now = current.get(key)
        if now == value or (now in _ABSENT and value in _ABSENT):
            continue
        if isinstance(value, dict) and isinstance(now, dict) and not _differences(now, value):
            continue
        out.append(f"{key}: {now!r} -> {value!r}")
    return out
