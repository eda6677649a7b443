"""All of the bridge: CLUSTER mirrors a cluster, reports become statuses there.

It keeps no state of its own, so stopping is cancelling.  Two at once write each change once (CLUSTER's expectations, the
cluster's resourceVersions) but ask the API server twice: with several replicas ``run`` belongs to the leader (``election``),
and ``leads`` is asked right before each write to the cluster is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bus import log
from cloud import reports
from cloud.bridge.client import Client
from cloud.bridge.credentials import Credentials
from cloud.bridge.leases import Leases
from cloud.bridge.mirror import RELIST_JITTER_S, RESYNC_S, Mirror
from cloud.bridge.stays import Stays
from cloud.bridge.tokens import Tokens
from cloud.bridge.writer import ClusterApi
from cloud.core import reports as core
from cloud.core.kubelets import Kubelet
from cloud.standalone.storage import ClusterStorage


class Bridge:
    """``storage`` is started by the caller, and read by others as they like.  ``run`` until cancelled."""

    def __init__(
        self,
        store: log.Log,
        storage: ClusterStorage,
        credentials: Credentials,
        shards: int,
        *,
        leads: Callable[[], bool] = lambda: True,
        grace_s: float = core.GRACE_US / 1e6,
        resync_s: float = RESYNC_S,
        relist_jitter_s: float = RELIST_JITTER_S,
        kubelet: Kubelet | None = None,
        on_spent: Callable[[str, int, float], None] = lambda *_: None,
    ) -> None:
        self._log, self._storage, self._credentials = store, storage, credentials
        self._shards, self._leads, self._grace_s = shards, leads, grace_s
        self._resync_s, self._jitter_s = resync_s, relist_jitter_s
        self._kubelet = kubelet
        self._on_spent = on_spent
        self.ready = asyncio.Event()
        self.mirror: Mirror | None = None
        self.reports: reports.ReportsWorker | None = None
        self.leases: Leases | None = None

    def beat(self, node: str) -> None:
        """A node's sign of life."""
        if self.reports is not None and self.leases is not None:
            self.reports.beat(node)
            self.leases.beat(node)

    def spoken_for(self, node: str, boot: str) -> bool:
        """Whether what is known of the node was said by another machine than the one booted as ``boot``."""
        return self.reports is not None and self.reports.spoken_for(node, boot)

    def link_down(self, node: str) -> None:
        """The hub closed or lost the node's connection."""
        if self.reports is not None:
            self.reports.link_down(node)
        if self.leases is not None:
            self.leases.lost(node)

    def duplicate(self, node: str, message: str) -> None:
        """Two daemons live on one identity; "" when that is over."""
        if self.reports is not None:
            self.reports.duplicate(node, message)

    def doors_shut(self, nodes: dict[str, str]) -> None:
        """All nodes that are shut out now, with what is said of each."""
        if self.reports is not None:
            self.reports.doors_shut(nodes)

    @property
    def loaded(self) -> bool:
        """Whether beats are taken."""
        return self.reports is not None and self.reports.loaded.is_set()

    async def run(self) -> None:
        client = Client(self._credentials, leads=self._leads)
        try:
            tokens = Tokens(client, self._storage, leads=self._leads)
            mirror = self.mirror = Mirror(
                client,
                self._storage,
                resync_s=self._resync_s,
                relist_jitter_s=self._jitter_s,
                before_pod=tokens.ensure,
            )
            self.leases = Leases(client, self._storage, grace_s=self._grace_s)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(mirror.run(), name="bridge.mirror")
                # What the cluster has must be known first: a Node that isn't mirrored yet would be registered again.
                await mirror.loaded.wait()
                api = ClusterApi(client, self._storage, mirror, leads=self._leads)
                self.reports = reports.ReportsWorker(
                    self._log,
                    api,
                    self._shards,
                    grace_s=self._grace_s,
                    kubelet=self._kubelet,
                    on_spent=self._on_spent,
                )
                stays = Stays(client, self._storage, mirror, leads=self._leads)
                tasks.create_task(self.leases.run(), name="bridge.leases")
                tasks.create_task(stays.run(), name="bridge.stays")
                tasks.create_task(tokens.run(), name="bridge.tokens")
                tasks.create_task(self.reports.run(), name="reports")
                await self.reports.loaded.wait()
                self.ready.set()
        finally:
            self.ready.clear()
            self.reports = self.leases = self.mirror = None
            await client.close()
