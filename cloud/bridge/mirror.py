"""Lists and watches of a cluster into CLUSTER.

What CLUSTER holds is the only memory: starting again is listing again and writing the differences.  A watch goes on where it
ended; when the cluster can't (410), or after RESYNC_S, everything is listed again, in pages, and a page is forgotten before
the next one is asked for.  So memory grows with what edges need, not with the cluster.

A pod's config maps, secrets and tokens are written before the pod: its node then has what it needs when it starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import weakref
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from bus.kube.errors import StatusError
from bus.kube.storage import AlreadyExists, Conflict, Object, Origin, Stored, Unavailable
from cloud.bridge import client as clients
from cloud.bridge import kinds, merging
from cloud.bridge.appends import Appends, Stats, pause
from cloud.bridge.client import Client, Unreachable
from cloud.bridge.kinds import Kind, Source
from cloud.bridge.wanted import Wanted
from cloud.poison import Poison
from cloud.standalone.storage import ClusterStorage
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

ACTOR = "system:bridge"
APPLY_AT_ONCE = 32  # objects of a page: each append waits for the log
ABSENT_S = 60.0  # a kind that isn't served, or that we may not list, is tried again
RELIST_JITTER_S = 3.0  # after 410: an etcd compaction hits every watch of every client at once
RESYNC_S = 1800.0  # a change that a watch should have told and did not is found after this long
BUSY = frozenset({429, 500, 502, 503})  # a watch is begun again where it was; a list would be one more burden
GARBLED_MAX = 2  # times that a watch tells what can't be read, from one revision, before everything is listed
SHORT_WATCH_S = 1.0  # a server that ends watches at once isn't asked in a tight loop
SERVICES_WAIT_S = 5.0  # a pod isn't held back for longer by the first list of its namespace's services
REFERRERS: frozenset[Kind] = frozenset({kinds.PODS, kinds.DEVICE, kinds.CLAIMS})
BeforePod = Callable[[ObjectKey, Object], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Running:
    source: Source
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    rev: int = 0
    said: str = ""
    task: asyncio.Task[None] | None = None


class _Reset(Exception):
    """CLUSTER began anew."""


class Mirror:
    """``run`` until cancelled.  ``loaded`` is set while CLUSTER has at least what the cluster had when we began."""

    def __init__(
        self,
        client: Client,
        storage: ClusterStorage,
        *,
        resync_s: float = RESYNC_S,
        relist_jitter_s: float = RELIST_JITTER_S,
        before_pod: BeforePod | None = None,
    ) -> None:
        self._client, self._storage = client, storage
        self._before_pod = before_pod
        self._resync_s, self._jitter_s = resync_s, relist_jitter_s
        self._wanted = Wanted()
        self._deletions = merging.Deletions()
        self._because: dict[ObjectKey, Origin] = {}
        self._locks: weakref.WeakValueDictionary[ObjectKey, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: asyncio.TaskGroup | None = None
        self._sources: dict[Source, _Running] = {}
        self._reset = asyncio.Event()
        self.loaded = asyncio.Event()
        self.stats = Stats()
        self.poison = Poison("bridge")
        self._appends = Appends(storage, self._deletions, self.stats)

    async def run(self) -> None:
        while True:
            self._reset.clear()
            self._storage.on_reset = self._reset.set
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    self._tasks.create_task(self._until_reset(), name="bridge.reset")
                    await self._session()
            except* _Reset:
                logger.warning("bridge.restart", reason="CLUSTER began anew")
            finally:
                self.loaded.clear()
                self._tasks = None
                self._sources.clear()

    async def _until_reset(self) -> None:
        await self._reset.wait()
        raise _Reset

    async def _session(self) -> None:
        self._wanted = Wanted()
        self._deletions.clear()
        for stored in self._storage.list(*kinds.NODES):
            self._wanted.edge(stored.key.name, True)
        for kind in sorted(REFERRERS):
            for stored in self._storage.list(*kind):
                self._wanted.refer(stored.key, stored.object)
        await self._start(kinds.NODE_SOURCE).listed.wait()
        begun = [self._start(s) for s in (*kinds.REFERRERS, *kinds.OTHERS)]
        for namespace in self._wanted.namespaces:
            begun += self._begin_namespace(namespace)
        for r in begun:
            await r.listed.wait()
        while True:
            await self._sweep()
            if not self.loaded.is_set():
                logger.info("bridge.loaded", written=self.stats.written, removed=self.stats.removed)
                self.loaded.set()
            await asyncio.sleep(self._resync_s)

    async def _sweep(self) -> None:
        """What a process that died left behind, or an append that was cancelled and came after all."""
        for kind in sorted(kinds.MIRRORED):
            for stored in self._storage.list(*kind):
                if not self._wanted.wants(stored.key, stored.object):
                    await self._withdraw(stored.key)

    # --- sources ---------------------------------------------------------------------------------------------------

    def _start(self, source: Source) -> _Running:
        found = self._sources.get(source)
        if found is None:
            assert self._tasks is not None, "run() is not under way"
            found = self._sources[source] = _Running(source)
            found.task = self._tasks.create_task(self._source(found), name=f"bridge.{source}")
        return found

    def _begin_namespace(self, namespace: str) -> list[_Running]:
        return [self._start(s) for s in kinds.of_namespace(namespace)]

    async def _end_namespace(self, namespace: str) -> None:
        """Its last edge pod went."""
        for source in kinds.of_namespace(namespace):
            running = self._sources.pop(source, None) if source not in kinds.OTHERS else None
            if running is not None and running.task is not None:
                running.task.cancel()
                await asyncio.wait([running.task])
                running.listed.set()  # whoever waits for its first list needs it no more
        for kind in (kinds.SERVICES, kinds.SLICES):
            for stored in self._storage.list(*kind, namespace):
                await self._withdraw(stored.key)

    async def _source(self, r: _Running) -> None:
        """Lists and watches one source for ever."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                await self._list(r)
                r.listed.set()
                failures = 0
                self._say(r, "")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(loop.time() + self._resync_s * random.uniform(0.9, 1.1)):
                        await self._watch(r)
            except Unreachable as e:
                failures += 1
                self._say(r, str(e))
                await pause(failures)
            except StatusError as e:
                if e.code in (403, 404) and not r.listed.is_set():
                    r.listed.set()  # the others don't wait for what isn't there
                if e.code in (401, 403, 404):
                    self._say(r, f"{e.code} {e.message}")
                    await asyncio.sleep(ABSENT_S * random.uniform(0.5, 1.0))
                elif e.code in (410, 504):  # 504: our revision is from the future of a restored cluster
                    await asyncio.sleep(self._jitter_s * random.random())
                else:
                    failures += 1
                    self._say(r, f"{e.code} {e.message}")
                    await pause(failures, clients.retry_after_s(e))

    def _say(self, r: _Running, why: str) -> None:
        """Once down, once up."""
        if bool(why) != bool(r.said):
            if why:
                logger.warning("bridge.source.lost", source=str(r.source), reason=why)
            else:
                logger.info("bridge.source.back", source=str(r.source))
        r.said = why

    async def _list(self, r: _Running) -> None:
        self.stats.lists += 1
        s = r.source
        before = self._storage.list(*s.kind, s.namespace or None)
        high = max([r.rev, *(b.source_rev for b in before)])
        seen: set[ObjectKey] = set()
        restored, rev = False, 0
        async with contextlib.aclosing(self._client.pages(s.path, s.what)) as pages:
            async for page in pages:
                rev = page.rev
                if rev < high and not restored:
                    restored = True
                    self._deletions.clear()
                    logger.warning("bridge.cluster_restored", source=str(s), revision=rev, seen=high)
                found: list[Callable[[], Coroutine[Any, Any, None]]] = []
                for obj in page.items:
                    key = kinds.key_of(s.kind, obj)
                    if key is not None and self._wanted.wants(key, obj):
                        seen.add(key)
                        found.append(partial(self._told, s, key, obj, clients.revision(obj), restored))
                self.stats.seen += len(page.items)
                await _all(found)
        for stored in before:
            if stored.key not in seen:
                await self._remove(stored.key, rev, restored=restored)
        r.rev = rev

    async def _watch(self, r: _Running) -> None:
        """For ever; raises StatusError when it can't go on from where it is."""
        failures, loop, again = 0, asyncio.get_running_loop(), False
        while True:
            begun_s = loop.time()
            try:
                if again:
                    await self._still_there(r)
                again = True
                async with contextlib.aclosing(self._client.watch(r.source.path, r.source.what, r.rev)) as events:
                    async for ev in events:
                        if ev.type != "BOOKMARK":
                            self.stats.seen += 1
                            await self._event(r.source, ev)
                        r.rev = max(r.rev, ev.rev)  # not before it is written: else a failure would lose it
                        failures = 0
                        self._say(r, "")
                if loop.time() - begun_s < SHORT_WATCH_S:
                    await asyncio.sleep(SHORT_WATCH_S)
            except StatusError as e:
                if not isinstance(e, Unreachable) and e.code not in BUSY:
                    raise
                self.stats.restarts += 1
                failures += 1
                self._say(r, str(e))
                if isinstance(e, clients.Garbled) and failures >= GARBLED_MAX:
                    raise StatusError(410, "Expired", e.message) from e  # a list may get past it
                await pause(failures, clients.retry_after_s(e))

    async def _still_there(self, r: _Running) -> None:
        """Raises StatusError 410 when the cluster was restored to what it was before our revision: an API server lets a
        watch begin in the future, and waits for it in silence."""
        now = await self._client.revision_now(r.source.path)
        if now < r.rev:
            raise StatusError(410, "Expired", f"{r.source}: the cluster is at {now}, and was at {r.rev} before")

    async def _event(self, s: Source, ev: clients.WatchEvent) -> None:
        key = kinds.key_of(s.kind, ev.object)
        if key is None or not self._wanted.wants(key, ev.object):
            return
        if ev.type == "DELETED":
            await self._remove(key, ev.rev)
        else:
            await self._told(s, key, ev.object, ev.rev)

    async def _told(self, s: Source, key: ObjectKey, obj: Object, rev: int, restored: bool = False) -> None:
        if not s.fetched:
            await self._take(key, obj, rev, restored=restored)
        elif merging.applies(self._storage.get(key), self._deletions.get(key), rev, restored=restored):
            await self._fetch(key, restored=restored)

    async def _fetch(self, key: ObjectKey, *, restored: bool = False) -> None:
        kind = (key.group, key.resource)
        try:
            obj = await self._client.get(kinds.path(kind, key.namespace), key.name)
        except StatusError as e:
            if e.code == 404:
                return  # its watch tells when it comes
            if e.code == 403:
                self.stats.refused += 1
                logger.warning("bridge.fetch.forbidden", object=str(key), reason=e.message)
                return
            raise
        await self._take(key, obj, clients.revision(obj), restored=restored)

    # --- one object ------------------------------------------------------------------------------------------------

    def _lock(self, key: ObjectKey) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    async def _take(
        self,
        key: ObjectKey,
        obj: Object,
        rev: int,
        *,
        origin: Origin | None = None,
        restored: bool = False,
        wait: bool = True,
    ) -> None:
        """An object as the cluster has it; one that can't be carried is set aside.  Not ``wait``: raises Unavailable when
        the log is away."""
        if self.poison.is_aside(key, rev) and not restored:
            return
        try:
            await self._carry(key, obj, rev, origin, restored, wait)
        except (StatusError, Unavailable, Conflict, AlreadyExists):
            raise  # it is not the object's fault
        except Exception as e:  # whatever a strange object makes of us, it must be the only one to suffer
            self.stats.refused += 1
            self.poison.set_aside(key, rev, e)
            if self._storage.get(key) is None:
                for k in self._wanted.forget(key):
                    await self._withdraw(k)
        else:
            self.poison.good(key)

    async def _carry(self, key: ObjectKey, obj: Object, rev: int, origin: Origin | None, restored: bool, wait: bool) -> None:
        kind: Kind = (key.group, key.resource)
        gone: list[ObjectKey] = []
        async with self._lock(key):
            held = self._storage.get(key)
            if not self._wanted.wants(key, obj) or not merging.applies(
                held, self._deletions.get(key), rev, restored=restored
            ):
                return
            if kind in REFERRERS:
                new, gone = self._wanted.refer(key, obj)
                await self._have(key, new)
                if kind == kinds.PODS and held is None and self._before_pod is not None:
                    await self._before_pod(key, obj)
            who = origin or Origin(ACTOR)
            form = kinds.stored_form(kind, obj)
            await self._appends.put(key, form, Origin(who.actor, who.cause, who.trace, rev), restored=restored, wait=wait)
            if kind == kinds.NODES and self._wanted.edge(key.name, True) and self._tasks is not None:
                self._tasks.create_task(self._adopt(key.name), name=f"bridge.adopt.{key.name}")
        for k in gone:
            await self._withdraw(k)

    async def _have(self, key: ObjectKey, new: list[ObjectKey]) -> None:
        """What a referrer names, before itself."""
        if key.resource == "devices":
            new = [*new, ObjectKey(kinds.DEVICES, "devicestatuses", key.namespace, key.name)]
        begun = self._begin_namespace(key.namespace) if key.resource == "pods" and self._tasks is not None else []
        await _all([partial(self._fetch, k) for k in new])
        services = next((r for r in begun if r.source.kind == ("", "services")), None)
        if services is not None and not services.listed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SERVICES_WAIT_S):
                    await services.listed.wait()

    async def _adopt(self, node: str) -> None:
        """A node became an edge: what is bound to it was passed over until now."""
        failures = 0
        for source in (Source(kinds.PODS, what=clients.Selection(fields=f"spec.nodeName={node}")), Source(kinds.DEVICE)):
            while True:
                try:
                    async with contextlib.aclosing(self._client.pages(source.path, source.what)) as pages:
                        async for page in pages:
                            keyed = [(kinds.key_of(source.kind, o), o) for o in page.items]
                            await _all([partial(self._take, k, o, clients.revision(o)) for k, o in keyed if k is not None])
                    break
                except StatusError as e:
                    if e.code in (403, 404):
                        break  # said by its own source
                    failures += 1
                    await pause(failures)

    async def _remove(self, key: ObjectKey, rev: int, *, restored: bool = False) -> None:
        """It was gone from the cluster at ``rev``."""
        async with self._lock(key):
            self.poison.good(key)
            self._deletions.add(key, rev)
            held = self._storage.get(key)
            if not merging.removes(held, rev, restored=restored):
                return
            await self._appends.end(key, rev, self._because.get(key) or Origin(ACTOR), restored=restored)
            await self._gone(key)

    async def _withdraw(self, key: ObjectKey) -> None:
        """It is there, but nobody needs it any more."""
        async with self._lock(key):
            held = self._storage.get(key)
            if held is not None and not self._wanted.wants(key, held.object):
                await self._appends.end(key, held.source_rev, Origin(ACTOR), restored=True)
                await self._gone(key)

    async def _gone(self, key: ObjectKey) -> None:
        """What follows from an object's end."""
        kind = (key.group, key.resource)
        if kind == kinds.NODES:
            self._wanted.edge(key.name, False)
        if kind in REFERRERS:
            for k in self._wanted.forget(key):
                await self._withdraw(k)
            if kind == kinds.DEVICE:
                await self._withdraw(ObjectKey(kinds.DEVICES, "devicestatuses", key.namespace, key.name))
            elif kind == kinds.PODS and key.namespace not in self._wanted.namespaces:
                await self._end_namespace(key.namespace)

    # --- what the writer asks for ----------------------------------------------------------------------------------

    async def observe(self, key: ObjectKey, obj: Object, origin: Origin) -> Stored:
        """The cluster's answer to a write of ours goes to CLUSTER before anybody hears that it was done, with its cause.
        Raises StatusError 503."""
        rev = clients.revision(obj)
        try:
            await self._take(key, obj, rev, origin=origin, wait=False)
        except Unavailable as e:
            raise Unreachable(f"{key} is written, but CLUSTER does not know it yet: {e}") from e
        if self.poison.is_aside(key, rev):
            raise StatusError(422, "Invalid", f"{key} is written, but can't be mirrored: {self.poison.reason(key)}")
        held = self._storage.get(key)
        if held is None or held.source_rev < rev:
            raise Unreachable(f"{key} is written, but is not mirrored")
        return held

    @contextlib.contextmanager
    def because(self, key: ObjectKey, origin: Origin) -> Iterator[None]:
        """While this lasts, the end of an object is by ``origin``."""
        self._because[key] = origin
        try:
            yield
        finally:
            self._because.pop(key, None)


async def _all(work: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """At most APPLY_AT_ONCE at a time; the first failure ends it all."""
    for start in range(0, len(work), APPLY_AT_ONCE):
        outcomes = await asyncio.gather(*(w() for w in work[start : start + APPLY_AT_ONCE]), return_exceptions=True)
        bad = next((o for o in outcomes if isinstance(o, BaseException)), None)
        if bad is not None:
            raise bad
