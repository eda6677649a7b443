"""The reports worker: REPORT and the API's objects in, the API's statuses out.

It shares its objects with the API's cache (a Reader), so one process that runs both holds them once.  Beats and lost
connections are told by whoever listens to them (``beat``, ``link_down``).  Nothing is kept but in the log: stopping is
cancelling, and a second worker beside it writes the same, once (the API refuses the slower one).

What the log brings waits in lanes, one a node, each subject's last word once: a node that floods is read at its own cost.
How much each node sent is told to ``on_spent`` (cloud/gatekeeper.py), by the log's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bus import log, stamp
from bus.kube.storage import Expired
from cloud import api
from cloud.core import kubelets, lanes
from cloud.core import report_words as words
from cloud.core import reports as core
from cloud.core.writes import Write
from schemas import codec, subjects
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

ACTOR = "system:edge-reports"
TICK_S = 1.0
LANE_A_TURN = 8  # reports of a node before the next one has its turn
WORK_AT_ONCE = 64  # reports between two looks of the loop at everything else: some 6 ms
LANE_MAX = 2_000  # subjects of one node that wait; then its shard is read no further until there are fewer
SAY_S = 1.0  # refused reports are said at most so often: a flood of them must not fill our own log
PAUSE_S = 1.0  # before everything is read again, after a reset of the log or a watch that fell behind


@dataclass(slots=True)
class Stats:
    """Since the start of the process."""

    written: int = 0
    conflicts: int = 0
    failures: int = 0
    rejected: int = 0
    refused: int = 0
    last_refused: str = ""


class ReportsWorker:
    """``run`` until cancelled.  ``grace_s``: how long a link may be silent before the node counts as lost."""

    def __init__(
        self,
        store: log.Log,
        registry: api.Api,
        shards: int,
        *,
        grace_s: float = core.GRACE_US / 1e6,
        kubelet: kubelets.Kubelet | None = None,
        on_spent: Callable[[str, int, float], None] = lambda *_: None,
    ) -> None:
        self._log, self._registry, self._reader, self._shards = store, registry, registry.reader, shards
        self._grace_us = int(grace_s * 1e6)
        self._kubelet = kubelet
        self._core = core.Reports(self._grace_us, kubelet)
        self._clock = stamp.SteadyClock()
        self._effects: asyncio.TaskGroup | None = None
        self._ready = asyncio.Event()
        self._lost = False
        self._said_refused = float("-inf")
        self._on_spent = on_spent
        self._lanes: lanes.Lanes[log.Recorded] = lanes.Lanes(LANE_A_TURN)
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self.stats = Stats()

    @property
    def loaded(self) -> asyncio.Event:
        """Set while the first folds are complete and the API is being written."""
        return self._ready

    @property
    def idle(self) -> bool:
        return self._core.idle

    def spoken_for(self, node: str, boot: str) -> bool:
        """Whether what is known of the node was said by another machine than the one booted as ``boot``."""
        return self._core.spoken_for(node, boot)

    def beat(self, node: str) -> None:
        """A node's sign of life."""
        if self._ready.is_set():
            self._tell(words.BeatSeen(node, self._clock.now_us()))

    def link_down(self, node: str) -> None:
        """The hub closed or lost the node's connection."""
        if self._ready.is_set():
            self._tell(words.LinkDown(node, self._clock.now_us()))

    def duplicate(self, node: str, message: str) -> None:
        """Two daemons live on one identity; "" when that is over."""
        if self._ready.is_set():
            self._tell(words.Duplicate(node, message, self._clock.now_us()))

    def doors_shut(self, nodes: dict[str, str]) -> None:
        """All nodes that are shut out now, with what is said of each."""
        if self._ready.is_set():
            self._tell(words.DoorsShut(nodes, self._clock.now_us()))

    async def run(self) -> None:
        while True:
            try:
                self._lanes = lanes.Lanes(LANE_A_TURN)
                async with asyncio.TaskGroup() as self._effects:
                    self._core, self._clock = core.Reports(self._grace_us, self._kubelet), stamp.SteadyClock()
                    await self._session(self._effects)
            except* (log.EpochChanged, Expired) as e:
                logger.warning("reports.restart", error=str(e.exceptions[0]))
            finally:
                self._ready.clear()
            await asyncio.sleep(PAUSE_S)

    async def _session(self, tasks: asyncio.TaskGroup) -> None:
        after = self._reader.revision()
        await self._deleted_nodes()
        for group, resource in sorted(core.FOLDED):
            for stored in self._reader.list(group, resource):
                self._tell(words.ApiEvent(stored.rev, stored.key, stored.object, 0))
            tasks.create_task(self._watch(group, resource, after), name=f"reports.watch.{resource}")
        loaded = [asyncio.Event() for _ in range(self._shards)]
        for shard in range(self._shards):
            tasks.create_task(self._follow(shard, loaded[shard]), name=f"reports.follow.{shard}")
        tasks.create_task(self._work(), name="reports.work")
        for event in loaded:
            await event.wait()
        while self._lanes:
            await self._until_emptied()
        self._tell(words.Loaded(self._clock.now_us()))
        self._ready.set()
        while True:
            await asyncio.sleep(TICK_S)
            self._tell(words.Tick(self._clock.now_us()))

    async def _deleted_nodes(self) -> None:
        """A list shows no tombstones, but a deleted Node must not come back by a report from before its deletion."""
        filter_ = subjects.cluster(ObjectKey("", "nodes", "", "x")).removesuffix("x") + "*"
        after, more = 0, True
        while more:
            try:
                page = await self._log.last("CLUSTER", [filter_], after=after)
            except log.LogUnavailable:
                await asyncio.sleep(PAUSE_S)
                continue
            for r in page.records:
                with contextlib.suppress(codec.DecodeError):  # told by whoever folds CLUSTER
                    ev = r.event()
                    if ev.data is None:
                        self._tell(words.ApiEvent(r.seq, ev.key, None, r.time_us))
            after, more = page.up_to, page.more

    async def _watch(self, group: str, resource: str, after: int) -> None:
        async for change in self._reader.watch(group, resource, after=after):
            if change.stored is not None:
                gone = change.type == "DELETED"
                obj = None if gone else change.stored.object
                self._tell(words.ApiEvent(change.rev, change.stored.key, obj, change.time_us))

    async def _follow(self, shard: int, loaded: asyncio.Event) -> None:
        async with contextlib.aclosing(self._log.follow(f"REPORT-{shard}", last_per_subject=True)) as batches:
            async for batch in batches:
                for r in batch.records:
                    try:
                        node = subjects.unescape(r.subject.split(".")[2])  # a node's permission names it there
                    except (IndexError, subjects.SubjectError) as e:
                        self._refuse(str(e))
                        continue
                    if loaded.is_set():
                        self._on_spent(node, len(r.payload), r.time_us / 1e6)
                    self._lanes.put(node, r.subject, r)
                    self._filled.set()
                    while self._lanes.waiting(node) >= LANE_MAX:
                        await self._until_emptied()
                if batch.pending == 0:
                    loaded.set()

    async def _until_emptied(self) -> None:
        self._emptied.clear()
        await self._emptied.wait()

    async def _work(self) -> None:
        while True:
            for r in self._lanes.take(WORK_AT_ONCE):
                try:
                    self._tell(words.Reported(r.seq, r.event(), r.time_us))
                except codec.DecodeError as e:
                    self._refuse(str(e))
            self._emptied.set()
            if self._lanes:
                await asyncio.sleep(0)
            else:
                self._filled.clear()
                await self._filled.wait()

    def _refuse(self, reason: str) -> None:
        self.stats.refused += 1
        self.stats.last_refused = reason
        now = time.monotonic()
        if now - self._said_refused >= SAY_S:
            self._said_refused = now
            logger.warning("reports.event.refused", reason=reason, refused=self.stats.refused)

    # --- stimuli in, effects out -----------------------------------------------------------------------------------

    def _tell(self, stimulus: words.Stimulus) -> None:
        assert self._effects is not None
        for instruction in self._core.handle(stimulus):
            match instruction:
                case Write():
                    self._effects.create_task(self._write(instruction), name="reports.write")
                case words.Complain(seq, about, reason):
                    self._refuse(f"#{seq} {about}: {reason}")

    async def _write(self, w: Write) -> None:
        outcome = await api.execute(self._registry, w, ACTOR)
        match outcome:
            case api.Done(rev):
                self.stats.written += 1
                self._tell(words.Written(w.key, rev))
            case api.Stale():
                self.stats.conflicts += 1
                self._tell(words.WriteConflict(w.key))
            case api.Unreachable(reason):
                self.stats.failures += 1
                if not self._lost:
                    logger.warning("reports.api.lost", error=reason)
                self._tell(words.WriteFailed(w.key))
            case api.Refused(reason):
                self.stats.rejected += 1
                logger.error("reports.write.refused", reason=reason)
                self._tell(words.WriteRefused(w.key))
        self._lost = isinstance(outcome, api.Unreachable)
