"""Fetches telemetry from the nodes that have devices, and only from them.

A source costs its node's link 12 MB a day even when nothing is measured (``bus.hub.telemetry``), so a node gets one when a
Device is bound to it and loses it some time after the last is gone.  Two folds, the Devices in CLUSTER and the nodes in
IDENTITY, say what should be; the stream's configuration is compared with it after each change and now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import structlog

from bus import log as buslog
from bus.hub import telemetry
from schemas import codec, identity, subjects

logger = structlog.get_logger(__name__)

DEVICES = "devices.kubeedge.io"
TOGETHER_S = 0.3  # changes within this are one: each rewrites the stream's configuration
LOOK_S = 60.0  # somebody else (the nudger, an older version of us) may have changed it
# What a leaf has kept for the hub has this long to come after the last Device is gone.  What is still there then (the link
# was down) comes when the node gets a Device again, if its leaf has it yet: a source goes on after the last message stored.
LINGER_S = 60.0
RETRY_S = 2.0


class Wanted:
    """Which nodes should have a source.  Pure but for the time, which the caller passes in seconds."""

    def __init__(self, linger_s: float = LINGER_S) -> None:
        self._linger_s = linger_s
        self._node_of: dict[str, str] = {}  # Device's subject -> node
        self._devices: dict[str, int] = {}  # node -> how many
        self._left: dict[str, float] = {}  # node -> when its last Device went
        self._keys: dict[str, str] = {}
        self._paused: dict[str, float] = {}  # node -> until when nothing is fetched from it

    def pause(self, node: str, until_s: float) -> None:
        self._paused[node] = until_s

    def device(self, subject: str, data: Mapping[str, object] | None, now_s: float) -> None:
        spec = (data or {}).get("spec")
        name = spec.get("nodeName") if isinstance(spec, Mapping) else None
        node = name if isinstance(name, str) else ""
        old = self._node_of.pop(subject, "")
        if node:
            self._node_of[subject] = node
            self._devices[node] = self._devices.get(node, 0) + 1
            self._left.pop(node, None)
        if old:
            self._devices[old] -= 1
            if not self._devices[old]:
                del self._devices[old]
                self._left[old] = now_s

    def node(self, name: str, state: identity.NodeState | None) -> None:
        if state is None or state.revoked:
            self._keys.pop(name, None)
        else:
            self._keys[name] = state.public_key

    def now(self, now_s: float) -> dict[str, str]:
        """Node -> its public key."""
        self._left = {n: at for n, at in self._left.items() if now_s - at < self._linger_s}
        self._paused = {n: until for n, until in self._paused.items() if now_s < until}
        return {n: self._keys[n] for n in (*self._devices, *self._left) if n in self._keys and n not in self._paused}

    def next_s(self) -> float | None:
        """When ``now`` will say something else by itself."""
        return min((*(left + self._linger_s for left in self._left.values()), *self._paused.values()), default=None)


class TelemetrySources:
    """``run`` over CORE's log, in one cloud process (in several it is only wasteful)."""

    def __init__(self, store: buslog.Log, *, linger_s: float = LINGER_S) -> None:
        self._log, self._linger_s = store, linger_s
        self._wanted = Wanted(linger_s)
        self._pauses: dict[str, float] = {}
        self._changed = asyncio.Event()

    def pause(self, node: str, for_s: float) -> None:
        """Fetches nothing from a node for a while: what it measures stays on it (cloud/fairness.py)."""
        self._pauses[node] = time.monotonic() + for_s
        self._wanted.pause(node, self._pauses[node])
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._wanted = Wanted(self._linger_s)
                    self._pauses = {n: until for n, until in self._pauses.items() if until > time.monotonic()}
                    for node, until in self._pauses.items():
                        self._wanted.pause(node, until)
                    await self._session(tasks)
            except* buslog.EpochChanged as e:
                logger.warning("telemetry.sources_restart", reason=str(e.exceptions[0]))
            await asyncio.sleep(RETRY_S)

    async def _session(self, tasks: asyncio.TaskGroup) -> None:
        devices, nodes = asyncio.Event(), asyncio.Event()
        filter_ = f"cluster.{subjects.escape(DEVICES)}.devices.>"
        tasks.create_task(self._follow("CLUSTER", filter_, devices, self._device), name="sources.devices")
        tasks.create_task(self._follow("IDENTITY", "identity.nodes.>", nodes, self._node), name="sources.nodes")
        await devices.wait()  # with half of what there is, sources would be removed that are needed
        await nodes.wait()
        while True:
            self._changed.clear()
            wait = await self._settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            await asyncio.sleep(TOGETHER_S)

    async def _settle(self) -> float:
        """Seconds until it should be looked at again when nothing happens."""
        wanted = self._wanted.now(time.monotonic())
        try:
            changed = await telemetry.set_sources(self._log, wanted)
        except buslog.LogError as e:
            logger.warning("telemetry.sources_not_set", reason=str(e))
            return RETRY_S
        if changed:
            logger.info("telemetry.sources", nodes=len(wanted), changed=changed)
        due = self._wanted.next_s()
        return LOOK_S if due is None else min(LOOK_S, max(0.0, due - time.monotonic()))

    async def _follow(
        self, stream: str, filter_: str, loaded: asyncio.Event, take: Callable[[buslog.Recorded], None]
    ) -> None:
        async with contextlib.aclosing(self._log.follow(stream, [filter_], last_per_subject=True)) as batches:
            async for batch in batches:
                for record in batch.records:
                    try:
                        take(record)
                    except codec.DecodeError as e:
                        logger.warning("telemetry.sources_foreign", subject=record.subject, reason=str(e))
                if batch.pending == 0:
                    loaded.set()
                self._changed.set()

    def _device(self, record: buslog.Recorded) -> None:
        self._wanted.device(record.subject, record.event().data, time.monotonic())

    def _node(self, record: buslog.Recorded) -> None:
        ev = record.event()
        self._wanted.node(ev.name, None if ev.data is None else codec.validate(identity.NodeState, ev.data))
