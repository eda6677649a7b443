"""Objects for a fleet, and changes to them: written into the log as the API (CLUSTER) or the dispatcher (META) writes them.

CLUSTER is the long way: the dispatcher carries each object on.  META is the short one, for what concerns only hub and nodes,
and for the scope ``all``; no dispatcher may run beside it, it would withdraw what nothing in CLUSTER asks for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from bus import log, stamp
from ops.fleet.node import ALL, SENT
from schemas import event, subjects
from schemas.subjects import ObjectKey

NAMESPACE = "default"
WINDOW = 400  # appends in flight: the client is at full speed from 100 (NATS-FACTS), nodes' chains are short
SOURCE = "fleet/feed"
ACKED_S = 120.0  # a hub under a storm answers late; one that does not answer for so long is not measured
AGAIN_S = 0.5

Data = dict[str, Any]


def pod_key(node: str) -> ObjectKey:
    return ObjectKey("", "pods", NAMESPACE, f"pod-{node}")


def map_key(node: str, n: int) -> ObjectKey:
    return ObjectKey("", "configmaps", NAMESPACE, f"cm-{node}-{n}")


def pod(node: str, maps: int) -> Data:
    """A pod bound to ``node`` that names its config maps, so that the dispatcher sends them along."""
    refs = [{"configMapRef": {"name": map_key(node, n).name}} for n in range(maps)]
    key = pod_key(node)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": key.name, "namespace": NAMESPACE, "uid": f"uid-{key.name}", "labels": {"app": "hollow"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "app", "image": "busybox:1.36", "command": ["sleep", "infinity"], "envFrom": refs}],
            "restartPolicy": "Always",
        },
        "status": {"phase": "Pending"},
    }


def config_map(key: ObjectKey, value: int, *, stamped: bool) -> Data:
    meta: Data = {"name": key.name, "namespace": key.namespace, "uid": f"uid-{key.name}"}
    if stamped:
        meta["annotations"] = {SENT: str(time.monotonic_ns())}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": str(value), "text": "x" * 200}}


def objects(node: str, count: int) -> Iterable[tuple[ObjectKey, Data]]:
    """``count`` objects of a node: a pod and the config maps that it names, these first."""
    for n in range(count - 1):
        key = map_key(node, n)
        yield key, config_map(key, 0, stamped=False)
    yield pod_key(node), pod(node, count - 1)


class Feed:
    """``cluster``: write into CLUSTER, else into META."""

    def __init__(self, store: log.Log, shards: int, *, cluster: bool, seed: int = 1) -> None:
        self._log, self._shards, self._cluster = store, shards, cluster
        self._heads: dict[str, int] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(WINDOW)
        self._random = random.Random(seed)
        self.written = 0
        self.again = 0  # appends that had to be tried again

    async def load(self, nodes: Iterable[str], count: int) -> None:
        await self._all(self._load_node(n, count) for n in nodes)

    async def _load_node(self, node: str, count: int) -> None:
        for key, data in objects(node, count):
            await self._write(node, key, data)

    async def change(self, node: str, n: int, value: int, *, stamped: bool = True) -> None:
        key = map_key(node, n)
        async with self._lock(node):
            await self._write(node, key, config_map(key, value, stamped=stamped))

    async def change_share(self, nodes: list[str], count: int, share: float, value: int = 1) -> int:
        """One change to ``share`` of all objects that can change (the config maps); how many."""
        maps = [(node, n) for node in nodes for n in range(count - 1)]
        chosen = self._random.sample(maps, int(len(maps) * share))
        await self._all(self.change(node, n, value, stamped=False) for node, n in chosen)
        return len(chosen)

    async def tell_all(self, value: int) -> None:
        """One stamped object in the scope of every node: always META, the dispatcher has nothing for ``all``."""
        key = ObjectKey("", "configmaps", "kube-system", "fleet-all")
        async with self._lock(ALL):
            await self._meta(ALL, key, config_map(key, value, stamped=True))

    async def changes(self, nodes: list[str], count: int, rate: float, seconds: float) -> int:
        """Stamped changes to random objects of random nodes, ``rate`` a second by the clock; how many.

        A writer that can't keep up starts late what it can't start in time: the stamp is made at the start."""
        loop = asyncio.get_running_loop()
        began, made = loop.time(), 0
        async with asyncio.TaskGroup() as tasks:
            while made < rate * seconds:
                due = began + made / rate
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                node = self._random.choice(nodes)
                tasks.create_task(self.change(node, self._random.randrange(count - 1), made + 2))
                made += 1
        return made

    # --- one write

    async def _all(self, work: Iterable[Awaitable[None]]) -> None:
        """All of it, in a window."""

        async def one(w: Awaitable[None]) -> None:
            try:
                await w
            finally:
                self._slots.release()

        async with asyncio.TaskGroup() as tasks:
            for w in work:
                await self._slots.acquire()
                tasks.create_task(one(w))

    def _lock(self, scope: str) -> asyncio.Lock:
        return self._busy.setdefault(scope, asyncio.Lock())

    async def _write(self, node: str, key: ObjectKey, data: Data) -> None:
        if self._cluster:
            await self._until_acked(lambda: self._log.append(subjects.cluster(key), _event("", key, data)), None)
        else:
            await self._meta(node, key, data)

    async def _meta(self, scope: str, key: ObjectKey, data: Data) -> None:
        of_scope, subject = subjects.meta_scope(scope, self._shards), subjects.meta(scope, key, self._shards)

        async def append() -> int:
            head = self._heads.get(scope, 0)
            return await self._log.append(subject, _event(scope, key, data, prev=head), expect=log.Expect(head, of_scope))

        async def look() -> None:
            """What was not acknowledged may have been stored."""
            last = await self._log.last_of(subjects.stream_of(subject), of_scope)
            self._heads[scope] = 0 if last is None else last.seq

        self._heads[scope] = await self._until_acked(append, look)

    async def _until_acked(self, append: Callable[[], Awaitable[int]], look: Callable[[], Awaitable[None]] | None) -> int:
        """Raises LogError when the hub takes it not within ACKED_S."""
        deadline = time.monotonic() + ACKED_S
        failed = False
        while True:
            try:
                if failed and look is not None:
                    await look()
                seq = await append()
            except (log.LogUnavailable, log.WrongSequence):
                if time.monotonic() > deadline:
                    raise
                failed = True
                self.again += 1
                await asyncio.sleep(AGAIN_S)
            else:
                self.written += 1
                return seq


def _event(scope: str, key: ObjectKey, data: Data, prev: int | None = None) -> event.Event:
    ident = stamp.new_id()
    return event.Event(
        id=ident, type=event.OBJECT_APPLIED, scope=scope, group=key.group, resource=key.resource, namespace=key.namespace,
        name=key.name, uid=data["metadata"]["uid"], time=stamp.now_us(), source=SOURCE, trace=ident, prev=prev, data=data,
    )  # fmt: skip
