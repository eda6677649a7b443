"""Gives pods on edge nodes the tolerations with which they live through a cut link (which, and why so: ``staying``).

It follows what CLUSTER holds of the cluster, level-triggered: every pod is looked at after a start, when it changes, and
when its node's autonomy does.  A patch expects the pod as it was seen; a conflict waits for the change that made it, a
failure is tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from bus.kube.errors import StatusError
from bus.kube.storage import Expired, Origin, Stored
from cloud.bridge import kinds, staying
from cloud.bridge.client import Client
from cloud.bridge.mirror import Mirror
from cloud.standalone.controllers import autonomy
from cloud.standalone.storage import ClusterStorage
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

ACTOR = "system:bridge"
MANAGER = "skerry-bridge"
AT_ONCE = 8  # patches in flight
RETRY_S = 5.0  # after a failure, with jitter: an API server that is away is asked by others already
RELIST_S = 1.0  # after CLUSTER began anew, or the watch fell behind


class Stays:
    """``run`` until cancelled.  The queue is as long as there are pods of edges at most: each waits once."""

    def __init__(
        self, client: Client, storage: ClusterStorage, mirror: Mirror, *, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._client, self._storage, self._mirror, self._leads = client, storage, mirror, leads
        self._queue: asyncio.Queue[ObjectKey] = asyncio.Queue()
        self._waiting: set[ObjectKey] = set()
        self._agreed: dict[str, int | None] = {}  # by node
        self._failing = False
        self.patched = 0

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    after = self._storage.revision()
                    for node in self._storage.list(*kinds.NODES):
                        self._agreed[node.key.name] = autonomy.of(node.object)
                    for pod in self._storage.list(*kinds.PODS):
                        self._want(pod.key)
                    tasks.create_task(self._follow(kinds.NODES, after, self._node), name="bridge.stays.nodes")
                    tasks.create_task(self._follow(kinds.PODS, after, self._pod), name="bridge.stays.pods")
                    for n in range(AT_ONCE):
                        tasks.create_task(self._work(), name=f"bridge.stays.{n}")
            except* Expired:
                await asyncio.sleep(RELIST_S)

    async def _follow(self, kind: kinds.Kind, after: int, told: Callable[[Stored], None]) -> None:
        async for change in self._storage.watch(*kind, after=after):
            if change.stored is not None and change.type != "DELETED":
                told(change.stored)

    def _node(self, node: Stored) -> None:
        name, agreed = node.key.name, autonomy.of(node.object)
        if name in self._agreed and self._agreed[name] == agreed:
            return
        self._agreed[name] = agreed
        for pod in self._storage.list(*kinds.PODS):
            if _node_of(pod) == name:
                self._want(pod.key)

    def _pod(self, pod: Stored) -> None:
        self._want(pod.key)

    def _want(self, key: ObjectKey) -> None:
        if key not in self._waiting:
            self._waiting.add(key)
            self._queue.put_nowait(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._waiting.discard(key)
            try:
                await self._settle(key)
                self._failing = False
            except StatusError as e:
                if e.code in (404, 409):
                    continue  # it has changed: the watch tells
                if not self._failing:
                    self._failing = True
                    logger.warning("bridge.stays.failed", pod=f"{key.namespace}/{key.name}", reason=f"{e.code} {e.message}")
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))
                self._want(key)

    async def _settle(self, key: ObjectKey) -> None:
        pod = self._storage.get(key)
        if pod is None or not self._leads():
            return
        node = self._storage.get(ObjectKey(*kinds.NODES, "", _node_of(pod)))
        change = staying.patch(pod.object, autonomy.of(node.object) if node is not None else None)
        if change is None:
            return
        change["metadata"] |= {"uid": pod.object["metadata"].get("uid"), "resourceVersion": str(pod.source_rev)}
        path = kinds.path(kinds.PODS, key.namespace)
        answer = await self._client.patch(path, key.name, change, manager=MANAGER)
        self.patched += 1
        await self._mirror.observe(key, answer, Origin(ACTOR))


def _node_of(pod: Stored) -> str:
    return str((pod.object.get("spec") or {}).get("nodeName") or "")
