"""Room on the hub's disk: streams refuse before it is full, and what is worth least gives way first.

nats-server on a full disk loses more than the write that didn't fit: the stream takes nothing more until the server is
started anew (bus/hub/health.py), and who was acknowledged a moment before may find the last seconds gone.  So its streams
are told beforehand how much they may still grow, from what is free, and what is free is looked at all the time:

* streams of state (CLUSTER, META, REPORT) have ``max_bytes`` and ``discard: new``: a write beyond it is refused with a
  reason.  The API says 507, reports wait in their outboxes, replicas go on.  Nothing of state is ever thrown away for room;
* below twice the reserve the histories give way, oldest first, then telemetry;
* what remains, the reserve, is for leases, identity, audit and the server's own files, and for what is written between two
  looks.

On three servers each looks at its own disk and writes what it found into the streams' metadata; the least counts, also that
of a server that is away.  When there is room again all limits go up by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structlog

from bus import log as buslog

logger = structlog.get_logger("bus.hub.room")

LOOK_S = 5.0
METADATA = "skerry.room."  # with the server's number: "<level> <bytes that a stream of state may grow>"
STATE = ("CLUSTER", "META-", "REPORT-")
HISTORY = "HISTORY-"
GIVE_WAY_LEAST = {HISTORY: 1 << 20, "TELEMETRY": 16 << 20}  # what each keeps, whatever the need; in the order of giving way
# Of all streams of state together: the server reserves what a stream may have, and takes no limits beyond its own
# (bus.hub.config, max_file_store).
ROOM_BYTES_MAX = 1 << 38

Level = Literal["ok", "tight", "full"]


WORDS: dict[Level, str] = {
    "ok": "ok",
    "tight": "little room on the disk: histories and telemetry give way",
    "full": "the disk is nearly full: nothing more is taken into the log until there is room",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The reserve: ``share`` of the disk, at least ``least`` and at most ``most`` bytes."""

    share: float = 0.05
    least: int = 64 << 20
    most: int = 2 << 30

    def reserve(self, total: int) -> int:
        return min(self.most, max(self.least, int(total * self.share)))


@dataclass(frozen=True, slots=True)
class Plan:
    """``room``: bytes that each stream of state may grow until the next look.  ``give_way``: new limits by stream."""

    level: Level
    room: int
    give_way: dict[str, int] = field(default_factory=dict)
    lift: frozenset[str] = frozenset()


def plan(free: int, total: int, sizes: Mapping[str, int], limits: Mapping[str, int], policy: Policy) -> Plan:
    """``sizes`` and ``limits`` (0: none): bytes of all streams.  Pure."""
    reserve = policy.reserve(total)
    level: Level = "full" if free <= reserve else "tight" if free <= 2 * reserve else "ok"
    spare = min(max(0, free - reserve) // 4, ROOM_BYTES_MAX // max(1, sum(map(is_state, sizes))))
    room = 1 << (spare.bit_length() - 1) if spare else 0  # a power of two, so that limits are not changed all the time
    give_way: dict[str, int] = {}
    need = 2 * reserve - free
    for kind, least in GIVE_WAY_LEAST.items():
        those = {n: s for n, s in sizes.items() if n.startswith(kind) and s > least}
        if need <= 0 or not those:
            continue
        had = sum(those.values())
        for name, size in those.items():
            give_way[name] = max(least, size - need * size // had)
        need -= had - sum(give_way[n] for n in those)
    lift = frozenset(n for n in sizes if n.startswith(HISTORY) and limits.get(n, 0) > 0 and free > 4 * reserve)
    return Plan(level, room, give_way, lift)


def limit_of(size: int, now: int, room: int) -> int:
    """``max_bytes`` of a stream of state that may grow by ``room``; ``now``: as it is, 0 for none.  Left as it is while it
    is about right."""
    headroom = now - size
    if now > 0 and (room // 2 <= headroom <= 4 * room if room else headroom <= 1):
        return now
    return max(1, size + room)


def least_room(metadata: Mapping[str, str]) -> tuple[Level, int]:
    """Of all servers: what was found last."""
    found: list[tuple[int, Level]] = []
    for key, value in metadata.items():
        level, _, room = value.partition(" ")
        if key.startswith(METADATA) and level in ("ok", "tight", "full") and room.isdigit():
            found.append((int(room), level))  # type: ignore[arg-type]
    if not found:
        return "ok", 0
    levels: list[Level] = [level for _, level in found]
    worst: Level = "full" if "full" in levels else "tight" if "tight" in levels else "ok"
    return worst, min(found)[0]


def is_state(name: str) -> bool:
    return name.startswith(STATE)


class RoomKeeper:
    """``run`` beside the server number ``number``, whose store is in ``folder``."""

    def __init__(
        self,
        store: buslog.Log,
        folder: Path,
        number: int = 1,
        *,
        policy: Policy | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        self._log, self._folder, self._number = store, folder, number
        self._policy, self._look_s = policy or Policy(), look_s
        self.level: Level = "ok"

    async def run(self) -> None:
        """For ever."""
        failing = False
        while True:
            try:
                await self.look()
                failing = False
            except (buslog.LogError, OSError) as e:
                if not failing:
                    logger.warning("room.unknown", error=str(e))
                failing = True
            await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Raises LogError, OSError."""
        disk = shutil.disk_usage(self._folder)
        streams = await self._streams()
        sizes = {n: int(s["state"]["bytes"]) for n, s in streams.items()}
        limits = {n: max(0, int(s["config"].get("max_bytes") or 0)) for n, s in streams.items()}
        found = plan(disk.free, disk.total, sizes, limits, self._policy)
        if found.level != self.level:
            say = logger.info if found.level == "ok" else logger.warning
            say("room.changed", level=found.level, free_bytes=disk.free, folder=str(self._folder))
            self.level = found.level
        for name in found.give_way:
            if not 0 < limits[name] <= found.give_way[name]:
                await self._update(streams[name], {"max_bytes": found.give_way[name]})
        for name in found.lift:
            await self._update(streams[name], {"max_bytes": -1})
        mine = {f"{METADATA}{self._number}": f"{found.level} {found.room}"}
        for name in filter(is_state, streams):
            metadata = {**(streams[name]["config"].get("metadata") or {}), **mine}
            limit = limit_of(sizes[name], limits[name], least_room(metadata)[1])
            if limit != limits[name] or metadata != streams[name]["config"].get("metadata"):
                await self._update(streams[name], {"max_bytes": limit, "discard": "new", "metadata": metadata})

    async def _streams(self) -> dict[str, dict[str, Any]]:
        out: dict[str, dict[str, Any]] = {}
        while True:
            answer = await self._log.request("STREAM.LIST", {"offset": len(out)})
            page = answer.get("streams") or []
            out.update((s["config"]["name"], s) for s in page)
            if not page or len(out) >= int(answer["total"]):
                return out

    async def _update(self, stream: Mapping[str, Any], change: Mapping[str, Any]) -> None:
        config = stream["config"]
        with contextlib.suppress(buslog.LogUnavailable):  # a cluster between two leaders: at the next look
            await self._log.request(f"STREAM.UPDATE.{config['name']}", {**config, **change})


async def told(store: buslog.Log) -> Level:
    """The level as the streams have it.  Raises LogError."""
    return least_room((await store.info("CLUSTER")).config.get("metadata") or {})[0]
