"""The Lease of each node in kube-node-lease, renewed while the node beats.

The cluster's node lifecycle controller takes a node without renewals for lost, as with any kubelet.  A node beats far less
often than a kubelet renews (links are paid by the byte), so the bridge renews for it until its own grace is over or the hub
tells that the link is gone.
Source: Kubernetes documentation, "Nodes", "Heartbeats"; kubelet's nodelease.
"""

from __future__ import annotations

import asyncio

import structlog

from bus import stamp
from bus.kube import times
from bus.kube.errors import StatusError
from bus.kube.storage import Reader
from cloud.bridge import kinds
from cloud.bridge.client import Client
from schemas import times as schema_times
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

NAMESPACE = "kube-node-lease"
LEASES: kinds.Kind = ("coordination.k8s.io", "leases")
LEASE_S = 40  # kubelet's nodeLeaseDurationSeconds
RENEW_S = 10.0  # a node that beats more often costs no more than a kubelet
AT_ONCE = 16  # renewals in flight; those that can't start in time are made by the next beat
WAITING_MAX = 4096  # nodes whose renewal waits: beyond it a beat is let go, the next comes in seconds
MANAGER = "skerry-bridge"


class Leases:
    """``beat`` is told of each beat; ``run`` until cancelled."""

    def __init__(self, client: Client, reader: Reader, *, renew_s: float = RENEW_S, grace_s: float = 0.0) -> None:
        self._client, self._reader, self._renew_s = client, reader, renew_s
        self._grace_s = grace_s
        self._beaten_s: dict[str, float] = {}
        self._renewed_s: dict[str, float] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue(WAITING_MAX)
        self._waiting: set[str] = set()
        self._lost = False
        self.renewed = 0
        self.failed = 0

    def beat(self, node: str) -> None:
        self._beaten_s[node] = asyncio.get_running_loop().time()
        self._want(node)

    def lost(self, node: str) -> None:
        """Its Lease is left to run out."""
        self._beaten_s.pop(node, None)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            now_s = asyncio.get_running_loop().time()
            for node, at in list(self._beaten_s.items()):
                if now_s - at > self._grace_s:
                    del self._beaten_s[node]
                else:
                    self._want(node)

    def _want(self, node: str) -> None:
        now_s = asyncio.get_running_loop().time()
        due = now_s - self._renewed_s.get(node, float("-inf")) >= self._renew_s
        if due and node not in self._waiting and not self._queue.full():
            self._waiting.add(node)
            self._queue.put_nowait(node)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            workers.create_task(self._keep(), name="bridge.leases.keep")
            for n in range(AT_ONCE):
                workers.create_task(self._work(), name=f"bridge.leases.{n}")

    async def _work(self) -> None:
        while True:
            node = await self._queue.get()
            try:
                await self._renew(node)
            except StatusError as e:
                self.failed += 1
                if not self._lost:
                    self._lost = True
                    logger.warning("bridge.lease.lost", node=node, reason=f"{e.code} {e.message}")
            finally:
                self._waiting.discard(node)

    async def _renew(self, node: str) -> None:
        stored = self._reader.get(ObjectKey(*kinds.NODES, "", node))
        if stored is None:
            self._renewed_s.pop(node, None)
            return  # not registered (yet), or deleted: the Lease goes with its Node
        path = kinds.path(LEASES, NAMESPACE)
        now = times.micro(schema_times.rfc3339(stamp.now_us()))
        spec = {"holderIdentity": node, "leaseDurationSeconds": LEASE_S, "renewTime": now}
        try:
            await self._client.patch(path, node, {"spec": spec}, manager=MANAGER)
        except StatusError as e:
            if e.code != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": stored.object["metadata"].get("uid", "")}
            meta = {"name": node, "namespace": NAMESPACE, "ownerReferences": [owner]}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            await self._client.create(path, lease, manager=MANAGER)
        self._renewed_s[node] = asyncio.get_running_loop().time()
        self.renewed += 1
        self._lost = False
