"""The dispatcher at work: reads META and CLUSTER, lets the core decide, writes META.

Everything runs in one loop: a stimulus is handled the moment it is there, and what an instruction leads to is the next
stimulus.  Appends go through a pipeline: thousands a second, to as many scopes.  Nothing is kept but in the log, so stopping
is cancelling, beginning anew is always right, and a second worker on the same shards costs some conflicts and no more
(``cloud/core/dispatcher.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from bus import log, pipeline, stamp
from cloud.core import stimuli
from cloud.core.dispatcher import Dispatcher
from schemas import codec, event, subjects

logger = structlog.get_logger(__name__)

CLUSTER = "CLUSTER"
RELOADS_MAX = 16  # scopes read again at once; a hub that was away makes every scope ask
EPOCH_PAUSE_S = 1.0  # a hub that is being restored isn't read in a tight loop
BROKEN_PAUSE_S_MAX = 60.0  # a fault of ours that comes again must not keep the hub busy


LATELY_MAX = 16  # objects, of at most a megabyte each, kept as bytes
_MAY_BE_DEFAULT = ("group", "namespace", "uid", "rev", "cause")  # left out where they are: absent means default


class _Broken(Exception):
    """The core failed at a stimulus: its state can't be trusted any more, the log's can."""


@dataclass(slots=True)
class Stats:
    """Since the start of the process."""

    appended: int = 0
    conflicts: int = 0
    failures: int = 0
    too_large: int = 0
    refused: int = 0
    last_refused: str = ""
    broken: int = 0  # sessions that a fault of ours ended


class DispatcherWorker:
    """Dispatches the shards in ``owns`` (None: all ``shards``) until cancelled."""

    def __init__(self, store: log.Log, shards: int, owns: Iterable[int] | None = None) -> None:
        self._log, self._shards = store, shards
        self._owns = frozenset(range(shards) if owns is None else owns)
        self._core = Dispatcher(shards, self._owns)
        self._effects: asyncio.TaskGroup | None = None
        self._pipeline: pipeline.Pipeline | None = None
        self._failed: asyncio.Future[None] | None = None
        self._reloads = asyncio.Semaphore(RELOADS_MAX)
        self._loaded = asyncio.Event()
        self._source = stamp.source("cloud/dispatcher")
        self._epochs: dict[int, str] = {}  # of META, by shard
        self._lately: dict[tuple[subjects.ObjectKey, int], bytes] = {}
        self._lost = False  # a log out of reach is said once down, once up
        self.stats = Stats()

    @property
    def loaded(self) -> asyncio.Event:
        """Set once the first fold is complete."""
        return self._loaded

    @property
    def idle(self) -> bool:
        """Every scope holds what CLUSTER up to ``folded`` makes it owed."""
        return self._core.idle

    @property
    def folded(self) -> int:
        """Sequence of CLUSTER that decisions are based on."""
        return self._core.folded

    async def run(self) -> None:
        """Until cancelled.  A log that was made anew or restored is read from the start, as after a restart; so it is after
        a fault of ours, for what a broken core would say of other nodes can't be trusted either."""
        pause_s = EPOCH_PAUSE_S
        while True:
            try:
                async with asyncio.TaskGroup() as self._effects:
                    self._core = Dispatcher(self._shards, self._owns)
                    self._lately.clear()  # a log that was restored has other objects with these revisions
                    self._failed = asyncio.get_running_loop().create_future()
                    self._pipeline = self._log.pipeline()
                    self._effects.create_task(self._pipeline.run(), name="dispatcher.pipeline")
                    self._effects.create_task(self._whole(self._failed), name="dispatcher.whole")
                    await self._session(self._effects)
            except* log.EpochChanged as e:
                logger.warning("dispatcher.epoch_changed", error=str(e.exceptions[0]))
                pause_s = EPOCH_PAUSE_S
            except* _Broken:
                self.stats.broken += 1
                pause_s = min(pause_s * 2, BROKEN_PAUSE_S_MAX)
            self._loaded.clear()
            await asyncio.sleep(pause_s)

    async def _whole(self, failed: asyncio.Future[None]) -> None:
        """Ends the session when the core fails."""
        await failed

    async def _session(self, tasks: asyncio.TaskGroup) -> None:
        # META before CLUSTER: what a scope holds was then decided from nothing newer than what is folded next.
        for shard in sorted(self._owns):
            loaded = asyncio.Event()
            tasks.create_task(self._follow_meta(shard, loaded), name=f"dispatcher.meta.{shard}")
            await loaded.wait()
        loading = True
        async with contextlib.aclosing(self._log.follow(CLUSTER, last_per_subject=True)) as batches:
            async for batch in batches:
                for left, r in zip(range(len(batch.records) - 1, -1, -1), batch.records, strict=True):
                    self._fold(r, more=left + batch.pending > 0)
                if loading and batch.pending == 0:
                    loading = False
                    self._tell(stimuli.Loaded(self._core.folded))
                    self._loaded.set()

    async def _follow_meta(self, shard: int, loaded: asyncio.Event) -> None:
        """First what the scopes hold; after the first fold only that something is written, so that another's is noticed."""
        stream, seq, epoch = f"META-{shard}", 0, ""
        async with contextlib.aclosing(self._log.follow(stream, last_per_subject=True)) as batches:
            async for batch in batches:
                self._epochs[shard] = epoch = batch.epoch
                for r in batch.records:
                    seq = r.seq
                    if self._loaded.is_set():
                        self._written(r)
                    elif (entry := self._meta_event(r)) is not None:
                        self._tell(entry)
                if batch.pending == 0:
                    loaded.set()
                if self._loaded.is_set():
                    break
        async with contextlib.aclosing(self._log.follow(stream, after=seq, epoch=epoch, addresses_only=True)) as batches:
            async for batch in batches:
                for r in batch.records:
                    self._written(r)

    def _fold(self, r: log.Recorded, *, more: bool) -> None:
        try:
            self._tell(stimuli.ClusterEvent(r.seq, r.event(), more))
        except codec.DecodeError as e:
            self._refuse(str(e))
            self._tell(stimuli.Folded(r.seq, more))

    def _written(self, r: log.Recorded) -> None:
        try:
            self._tell(stimuli.Written(r.seq, subjects.parse_meta_scope(r.subject)))
        except subjects.SubjectError as e:
            self._refuse(f"{r.stream} #{r.seq}: {e}")

    def _meta_event(self, r: log.Recorded) -> stimuli.MetaEvent | None:
        try:
            _, scope, key = subjects.parse_meta(r.subject)
        except subjects.SubjectError as e:
            self._refuse(f"{r.stream} #{r.seq}: {e}")
            return None
        try:
            return stimuli.MetaEvent(r.seq, scope, key, r.event())
        except codec.DecodeError as e:
            self._refuse(str(e))
            return stimuli.MetaEvent(r.seq, scope, key, None)

    def _refuse(self, reason: str) -> None:
        self.stats.refused += 1
        self.stats.last_refused = reason
        logger.warning("dispatcher.event.refused", reason=reason)

    def _unreachable(self, error: log.LogError) -> None:
        self.stats.failures += 1
        if not self._lost:
            self._lost = True
            logger.warning("dispatcher.log.lost", error=str(error))

    def _reachable(self) -> None:
        if self._lost:
            self._lost = False
            logger.info("dispatcher.log.back")

    # --- stimuli in, effects out -----------------------------------------------------------------------------------

    def _tell(self, stimulus: stimuli.Stimulus) -> None:
        assert self._effects is not None and self._failed is not None
        if self._failed.done():
            return  # this session is over
        try:
            for instruction in self._core.handle(stimulus):
                match instruction:
                    case stimuli.Append():
                        self._append(instruction)
                    case stimuli.ReloadScope():
                        self._effects.create_task(self._reload(instruction), name="dispatcher.reload")
        except Exception as e:
            logger.exception("dispatcher.broken", stimulus=str(stimulus)[:500])
            self._failed.set_exception(_Broken(str(e)))

    def _append(self, a: stimuli.Append) -> None:
        assert self._pipeline is not None
        done = functools.partial(self._appended, a)
        try:
            subject = subjects.meta(a.scope, a.key, self._shards)
            expect = log.Expect(a.prev, subjects.meta_scope(a.scope, self._shards))
            epoch = self._epochs.get(subjects.shard_of(a.scope, self._shards), "")
            ident = stamp.new_id()
            self._pipeline.append(subject, self._event(a, ident), ident, done, expect=expect, epoch=epoch)
        except (codec.EncodeError, subjects.SubjectError, ValueError) as e:
            # Not told from here: the core's next append would be told inside this one, and so on for a whole scope.
            asyncio.get_running_loop().call_soon(self._refused, a, e)

    def _appended(self, a: stimuli.Append, outcome: int | log.LogError) -> None:
        match outcome:
            case log.WrongSequence():
                self.stats.conflicts += 1
                self._tell(stimuli.AppendConflict(a.scope))
            case log.EventTooLarge():
                self._refused(a, outcome)
            case log.LogError():
                self._unreachable(outcome)
                self._tell(stimuli.AppendFailed(a.scope))
            case seq:
                self.stats.appended += 1
                self._reachable()
                self._tell(stimuli.Appended(a.scope, seq))

    def _refused(self, a: stimuli.Append, error: Exception) -> None:
        self.stats.too_large += 1
        logger.error("dispatcher.object.refused", scope=a.scope, object=str(a.key), reason=str(error))
        self._tell(stimuli.AppendRefused(a.scope))

    def _event(self, a: stimuli.Append, ident: str) -> bytes:
        """An event.Event's bytes, without making one: everything in it but the scope is of an event that was validated."""
        if len(a.scope) > event.NAME_MAX:
            raise codec.EncodeError(f"a scope of {len(a.scope)} characters, the limit is {event.NAME_MAX}")
        envelope: dict[str, str | int] = {
            "v": event.EVENT_VERSION,
            "id": ident,
            "type": event.OBJECT_DELETED if a.data is None else event.OBJECT_APPLIED,
            "scope": a.scope,
            "group": a.key.group,
            "resource": a.key.resource,
            "namespace": a.key.namespace,
            "name": a.key.name,
            "uid": a.uid,
            "rev": a.rev,
            "time": stamp.now_us(),
            "source": self._source,
            "actor": "system:dispatcher",
            "cause": a.cause or "",
            "trace": a.trace or ident,
            "prev": a.prev,
        }
        for name in _MAY_BE_DEFAULT:
            if not envelope[name]:
                del envelope[name]
        return codec.encode_applied(envelope, None if a.data is None else self._packed(a, a.data))

    def _packed(self, a: stimuli.Append, data: dict[str, Any]) -> bytes:
        """One change may go to thousands of scopes: one after the other, so the last few objects are enough."""
        of = (a.key, a.rev)
        packed = self._lately.get(of)
        if packed is None:
            packed = self._lately[of] = codec.pack(data, checked=True)
            if len(self._lately) > LATELY_MAX:
                del self._lately[next(iter(self._lately))]
        return packed

    async def _reload(self, r: stimuli.ReloadScope) -> None:
        await asyncio.sleep(r.delay_ms / 1000)
        async with self._reloads:
            self._tell(await self._reloaded(r.scope))

    async def _reloaded(self, scope: str) -> stimuli.Stimulus:
        stream = f"META-{subjects.shard_of(scope, self._shards)}"
        entries: list[stimuli.MetaEvent] = []
        try:
            after, more, head = 0, True, 0
            while more:
                page = await self._log.last(stream, [subjects.meta_scope(scope, self._shards)], after=after)
                head = max([head, *(r.seq for r in page.records)])
                entries.extend(e for r in page.records if (e := self._meta_event(r)) is not None)
                after, more = page.up_to, page.more
            last = await self._log.info(CLUSTER)  # after the scope: what it holds was decided from no more than this
        except log.LogError as e:
            self._unreachable(e)
            return stimuli.ReloadFailed(scope)
        self._reachable()
        return stimuli.ScopeReloaded(scope, tuple(entries), last.last_seq, head, after)
