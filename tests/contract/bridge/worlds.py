"""A cluster (our own API over TLS), a log, and a bridge between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from bus import log, stamp
from bus.kube.storage import Stored
from cloud.bridge import credentials, kinds
from cloud.bridge.bridge import Bridge
from cloud.dispatcher import DispatcherWorker
from cloud.standalone.storage import ClusterStorage
from schemas import event, subjects
from schemas.subjects import ObjectKey
from tests.contract.bridge.faults import FaultyProxy
from tests.contract.bus import plain
from tests.contract.kube_served import TOKEN, Served

NODE = ObjectKey("", "nodes", "", "edge-1")
POD = ObjectKey("", "pods", "default", "p")


class World:
    def __init__(self, cluster: Served, store: log.Log, storage: ClusterStorage, proxy: FaultyProxy, folder: Path) -> None:
        self.cluster, self.log, self.storage, self.proxy, self._folder = cluster, store, storage, proxy, folder

    # --- the cluster's side

    async def create(self, group: str, resource: str, obj: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
        return await self.cluster.api.create(group, resource, namespace, obj, how=self.cluster.how())

    async def node(self, name: str = "edge-1") -> None:
        meta = {"name": name, "labels": {kinds.EDGE_LABEL: ""}}
        await self.create("", "nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta}, "")

    async def pod(self, name: str = "p", node: str = "edge-1", **spec: Any) -> dict[str, Any]:
        return await self.create("", "pods", pod(name, node, **spec))

    async def config_map(self, name: str, **data: str) -> None:
        await self.create(
            "", "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        )

    async def secret(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": name}}
        await self.create("", "secrets", body)

    async def set_config_map(self, name: str, **data: str) -> None:
        now = await self.cluster.api.get("", "configmaps", "default", name)
        await self.cluster.api.update("", "configmaps", "default", name, {**now, "data": data}, how=self.cluster.how())

    def there(self, key: ObjectKey) -> dict[str, Any] | None:
        stored = self.cluster.storage.get(key)
        return stored.object if stored else None

    # --- our side

    def held(self, resource: str) -> list[str]:
        return self.held_in("", resource)

    def held_in(self, group: str, resource: str) -> list[str]:
        return [s.key.name for s in self.storage.list(group, resource)]

    @property
    def sources(self) -> int:
        """How many watches a bridge has when one namespace has pods on edges: a kind that isn't served has none."""
        wanted = {*kinds.CLUSTER_WIDE, *kinds.of_namespace("default")}
        return sum(self.cluster.api.catalog.find(*s.kind) is not None for s in wanted)

    def agrees(self, keys: list[ObjectKey]) -> bool:
        """CLUSTER has of the mirrored kinds exactly these, each as the cluster has it (what it adds to each pod aside)."""
        found = [s for kind in kinds.MIRRORED for s in self.storage.list(*kind)]
        added = ("events", "serviceaccounts")
        here = {s.key: s for s in found if s.key.resource not in added and s.key.name != "kube-root-ca.crt"}
        return set(here) == set(keys) and all(self._same(s) for s in here.values())

    def _same(self, stored: Stored) -> bool:
        source = self.cluster.storage.get(stored.key)
        return (
            source is not None
            and source.rev == stored.source_rev
            and kinds.stored_form((stored.key.group, stored.key.resource), source.object) == stored.object
        )

    async def meta(self, node: str = "edge-1") -> dict[ObjectKey, dict[str, Any] | None]:
        page = await self.log.last("META-0", [subjects.meta_scope(node, 1)])
        return {e.key: e.data for e in (r.event() for r in page.records)}

    async def versions(self) -> int:
        """Events in CLUSTER."""
        return (await self.log.info("CLUSTER")).last_seq

    async def report(
        self, kind: str, data: dict[str, Any], name: str = "", node: str = "edge-1", namespace: str = "default"
    ) -> event.Event:
        ident = stamp.new_id()
        ev = event.Event(
            id=ident, type=event.REPORT, scope=node, resource=kind, namespace=namespace if name else "",
            name=name or node, time=stamp.now_us(), source="test@0", trace=ident, data=data,
        )  # fmt: skip
        await self.log.append(subjects.report(node, kind, 1, namespace if name else None, name or None), ev)
        return ev

    async def node_report(self, node: str = "edge-1", **extra: Any) -> event.Event:
        info = {"operatingSystem": "linux", "architecture": "amd64"}
        status = {"capacity": {"pods": "110"}, "allocatable": {"pods": "110"}, "nodeInfo": info}
        return await self.report("node", {"status": status, "ready": True, "boot": "b", **extra}, node=node)

    @contextlib.asynccontextmanager
    async def bridge(
        self,
        *,
        direct: bool = False,
        kubeconfig: Path | None = None,
        who: credentials.Credentials | None = None,
        **how: Any,
    ) -> AsyncIterator[Bridge]:
        """Through the proxy, or ``direct`` over TLS with the kubeconfig that an administrator has, or as somebody else."""
        path = kubeconfig or (self.cluster.kubeconfig if direct else self._proxied())
        made = Bridge(self.log, self.storage, who or credentials.load(path), 1, relist_jitter_s=0.05, **how)
        async with _running(made.run()) as task:
            await until(lambda: made.ready.is_set() or task.done())
            if task.done():
                task.result()
            yield made

    def _proxied(self) -> Path:
        path = self._folder / "kubeconfig-proxy"
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.proxy.port}"}
        config["users"][0]["user"] = {"token": TOKEN}
        path.write_text(yaml.safe_dump(config))
        return path

    @contextlib.asynccontextmanager
    async def dispatcher(self) -> AsyncIterator[None]:
        worker = DispatcherWorker(self.log, 1)
        async with _running(worker.run()):
            yield


def pod(name: str = "p", node: str = "edge-1", **spec: Any) -> dict[str, Any]:
    for_ever = [{"operator": "Exists"}]  # so that the bridge has nothing to add to it (test_cut_nodes_keep_pods.py)
    body = {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}], "tolerations": for_ever, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def cm(name: str) -> ObjectKey:
    return ObjectKey("", "configmaps", "default", name)


def secret(name: str) -> ObjectKey:
    return ObjectKey("", "secrets", "default", name)


def pods(*names: str) -> list[ObjectKey]:
    return [ObjectKey("", "pods", "default", n) for n in names]


def mounting(config_map: str = "", secret_name: str = "") -> dict[str, Any]:
    volumes: list[dict[str, Any]] = []
    if config_map:
        volumes.append({"name": "c", "configMap": {"name": config_map}})
    if secret_name:
        volumes.append({"name": "s", "secret": {"secretName": secret_name}})
    return {"volumes": volumes}


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(check: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            result = check()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def world(cluster: Served, folder: Path) -> AsyncIterator[World]:
    server = plain.PlainServer(folder / "jetstream")
    await server.start()
    connection = await plain.client(server)
    store = log.Log(connection)
    await plain.make_streams(store)
    storage = ClusterStorage(store)
    await storage.start()
    proxy = FaultyProxy(cluster.url)
    await proxy.start()
    try:
        yield World(cluster, store, storage, proxy, folder)
    finally:
        await proxy.stop()
        await storage.stop()
        await store.close()
        await connection.close()
        server.kill()
