"""The storage of the standalone Kubernetes API: the CLUSTER stream, and a watch cache folded from it.

resourceVersion is the stream's sequence.  Create expects that the subject's last message is nothing or a tombstone, replace
and delete expect the version they read; the server decides, so any number of API servers write to one log without a
leader.  A write returns when the cache has folded it: one reads one's own writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from bus import log, stamp
from bus.kube import cache
from bus.kube.ordered import Snapshot
from bus.kube.storage import (
    AlreadyExists,
    Change,
    Conflict,
    Listing,
    NoRoom,
    Object,
    Origin,
    Stored,
    TooLarge,
    Unavailable,
)
from schemas import codec, event, subjects
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

STREAM = "CLUSTER"
FOLD_TIMEOUT_S = 10.0  # how long a write waits to be seen; the fold is milliseconds behind unless the hub is in trouble
APPEND_TRIES = 3  # an append without acknowledgement is repeated with the same id


class ClusterStorage:
    """Implements ``Storage``.  ``start`` returns when the first fold is complete."""

    def __init__(self, store: log.Log, *, component: str = "cloud/api") -> None:
        self._log = store
        self._source = stamp.source(component)
        self.cache = cache.WatchCache()
        self._gone: dict[ObjectKey, int] = {}  # sequence of each tombstone: what a create has to expect
        self._loaded = asyncio.Event()
        self._anew: dict[ObjectKey, Stored] | None = None  # what another epoch of the log holds, while it is being read
        self._task: asyncio.Task[None] | None = None
        self.refused = 0
        self.on_reset: Callable[[], None] = lambda: None

    async def start(self, timeout_s: float = 60.0) -> None:
        """Raises Unavailable when the log can't be read in time."""
        self._task = asyncio.create_task(self._fold(), name="cluster.fold")
        try:
            async with asyncio.timeout(timeout_s):
                await self._loaded.wait()
        except TimeoutError as e:
            await self.stop()
            raise Unavailable(f"stream {STREAM} could not be read within {timeout_s:g} s") from e

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    # --- folding

    async def _fold(self) -> None:
        """A log that was made anew, restored, or that lost its tail is read whole before anybody sees it: half of it would
        show objects without their owners, and controllers would clean up what is only not read yet.  Until then
        readers have the old state, and writes are refused."""
        while True:
            try:
                await self._follow()
            except log.EpochChanged as e:
                logger.warning("cluster.epoch_changed", error=str(e))
                self._forget()

    def _forget(self) -> None:
        """What comes next is another log."""
        self._loaded.clear()
        self._gone.clear()
        self._anew = {}

    async def _follow(self) -> None:
        loading, last = True, 0
        async with contextlib.aclosing(self._log.follow(STREAM, last_per_subject=True)) as batches:
            async for batch in batches:
                for r in batch.records:
                    self._take(r)
                    last = r.seq
                if loading and batch.pending == 0:
                    loading = False
                    self._begin(last)

    def _begin(self, last: int) -> None:
        """Everything up to ``last`` was read."""
        anew, self._anew = self._anew, None
        if anew is None:
            # Holes between last states are not history: watches begin here.
            self.cache.begin(self.cache.revision())
        else:
            self.cache.reset(last, anew.values())
            self.on_reset()
        self._loaded.set()

    def _take(self, r: log.Recorded) -> None:
        try:
            ev = r.event()
        except codec.DecodeError as e:
            self.refused += 1
            logger.warning("cluster.event.refused", seq=r.seq, subject=r.subject, reason=str(e))
            if self._anew is None:
                self.cache.advance(r.seq)
            return
        data = None if ev.deleted else ev.data
        if data is None:
            self._gone[ev.key] = r.seq
        else:
            self._gone.pop(ev.key, None)
        if self._anew is None:
            self.cache.apply(r.seq, ev.key, data, ev.id, ev.trace, ev.rev, r.time_us)
        elif data is None:
            self._anew.pop(ev.key, None)
        else:
            self._anew[ev.key] = Stored(ev.key, r.seq, data, ev.id, ev.trace, ev.rev)

    # --- Reader

    def revision(self) -> int:
        return self.cache.revision()

    def get(self, key: ObjectKey) -> Stored | None:
        return self.cache.get(key)

    def changed(self, group: str, resource: str) -> int:
        return self.cache.changed(group, resource)

    def list(self, group: str, resource: str, namespace: str | None = None) -> Listing:
        return self.cache.list(group, resource, namespace)

    def at(self, group: str, resource: str, namespace: str | None, rev: int) -> Snapshot:
        return self.cache.at(group, resource, namespace, rev)

    def watch(self, group: str, resource: str, namespace: str | None = None, *, after: int) -> AsyncIterator[Change]:
        return self.cache.watch(group, resource, namespace, after=after)

    # --- Storage

    def _check_current(self) -> None:
        if not self._loaded.is_set():
            raise Unavailable(f"stream {STREAM} began anew and is being read: try again")

    async def create(self, key: ObjectKey, obj: Object, origin: Origin) -> Stored:
        self._check_current()
        if self.cache.get(key) is not None:
            raise AlreadyExists(f"{key} exists")
        try:
            return await self._write(key, obj, self._gone.get(key, 0), origin)
        except log.WrongSequence as e:
            await self._refresh(key)
            if self.cache.get(key) is not None:
                raise AlreadyExists(f"{key} exists") from e
            # Made and deleted again behind our back: now its tombstone is known.
            try:
                return await self._write(key, obj, self._gone.get(key, 0), origin)
            except log.WrongSequence as again:
                raise AlreadyExists(f"{key} is being created by another") from again

    async def replace(self, key: ObjectKey, obj: Object, expect: int, origin: Origin) -> Stored:
        return await self._change(key, obj, expect, origin)

    async def delete(self, key: ObjectKey, expect: int, origin: Origin) -> Stored:
        return await self._change(key, None, expect, origin)

    async def _change(self, key: ObjectKey, obj: Object | None, expect: int, origin: Origin) -> Stored:
        self._check_current()
        held = self.cache.get(key)
        if held is not None and held.rev > expect:
            raise Conflict(f"{key} is at {held.rev}, not at {expect}", held.rev)
        try:
            return await self._write(key, obj, expect, origin, last=held)
        except log.WrongSequence as e:
            await self._refresh(key)
            current = self.cache.get(key)
            rev = current.rev if current else None
            raise Conflict(f"{key} is at {rev}, not at {expect}", rev) from e

    async def _write(
        self, key: ObjectKey, obj: Object | None, expect: int, origin: Origin, *, last: Stored | None = None
    ) -> Stored:
        now, new_id = self._stamp()
        uid = ((obj or (last.object if last else {})).get("metadata") or {}).get("uid", "")
        ev = event.Event(
            id=new_id,
            type=event.OBJECT_APPLIED if obj is not None else event.OBJECT_DELETED,
            group=key.group,
            resource=key.resource,
            namespace=key.namespace,
            name=key.name,
            uid=uid,
            rev=origin.source_rev,
            time=now,
            source=self._source,
            actor=origin.actor,
            cause=origin.cause,
            trace=origin.trace or new_id,
            data=obj,
        )
        try:
            payload = codec.encode_event(ev)
        except codec.EncodeError as e:
            raise TooLarge(f"{key}: {e}") from e
        seq = await self._append(subjects.cluster(key), payload, ev.id, expect)
        await self._seen(seq)
        if obj is None:
            state = last.object if last is not None else {}
            return Stored(key, seq, state, ev.id, ev.trace, ev.rev)
        return Stored(key, seq, obj, ev.id, ev.trace, ev.rev)

    async def _append(self, subject: str, payload: bytes, msg_id: str, expect: int) -> int:
        for attempt in range(APPEND_TRIES):
            try:
                return await self._log.append_bytes(subject, payload, msg_id, expect=log.Expect(expect))
            except log.EventTooLarge as e:
                raise TooLarge(str(e)) from e
            except log.LogFull as e:
                raise NoRoom(str(e)) from e
            except log.LogUnavailable as e:
                if attempt == APPEND_TRIES - 1:
                    raise Unavailable(str(e)) from e
                await self._pause(0.1 * (attempt + 1))
        raise AssertionError

    async def _seen(self, seq: int) -> None:
        try:
            await self._folded(seq)
        except TimeoutError as e:
            raise Unavailable(f"written as #{seq}, but not seen within {FOLD_TIMEOUT_S:g} s") from e

    # --- time and chance, which a simulation has others of

    def _stamp(self) -> tuple[int, str]:
        """Now, and a new id."""
        return stamp.now_us(), stamp.new_id()

    async def _pause(self, s: float) -> None:
        await asyncio.sleep(s)

    async def _folded(self, seq: int) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(FOLD_TIMEOUT_S):
            await self.cache.wait_for(seq)

    async def _refresh(self, key: ObjectKey) -> None:
        """After a lost race: fold at least as far as what beat us."""
        try:
            last = await self._log.last_of(STREAM, subjects.cluster(key))
        except log.LogError as e:
            raise Unavailable(f"{key}: {e}") from e
        if last is not None:
            await self._seen(last.seq)
        else:
            self._gone.pop(key, None)  # a compaction took the tombstone out: now nothing must be there
