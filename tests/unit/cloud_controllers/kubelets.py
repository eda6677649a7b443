"""The API in memory with the controllers running, and nodes that run whatever they are given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bus.kube import registry as registries
from bus.kube.deletion import DeleteOptions
from bus.kube.memory import MemoryStorage
from bus.kube.registry import Registry
from bus.kube.storage import Origin
from cloud.standalone.run_controllers import ControllerRunner

HOW = registries.Write(Origin("admin"))
Object = dict[str, Any]


class Cluster:
    def __init__(self, storage: MemoryStorage | None = None, registry: Registry | None = None) -> None:
        self.storage = storage or MemoryStorage()
        self.registry = registry or Registry(self.storage)
        self.runner = ControllerRunner(self.registry)
        self.pods = 0  # that ever ran
        self.cut: list[str] = []  # nodes that neither hear nor say anything

    # --- the user

    async def create(self, group: str, resource: str, obj: Object, namespace: str = "default") -> Object:
        return await self.registry.create(group, resource, namespace, obj, how=HOW)

    async def get(self, group: str, resource: str, name: str, namespace: str = "default") -> Object:
        return await self.registry.get(group, resource, namespace, name)

    async def list(self, group: str, resource: str, namespace: str = "default") -> list[Object]:
        return (await self.registry.list(group, resource, namespace))[0]

    async def patch(self, group: str, resource: str, name: str, patch: Object, namespace: str = "default") -> Object:
        return await self.registry.patch(group, resource, namespace, name, patch, kind="merge", how=HOW)

    async def delete(self, group: str, resource: str, name: str, namespace: str = "default", **options: Any) -> None:
        await self.registry.delete(group, resource, namespace, name, how=HOW, options=DeleteOptions(**options))

    async def ready(self, name: str, status: str = "True") -> None:
        """A node's link comes back, or is cut (``Unknown``); what it ran is not known then."""
        status_patch = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        await self.registry.patch("", "nodes", "", name, status_patch, kind="merge", how=HOW, subresource="status")

    async def node(self, name: str, *, ready: bool = True, cpu: str = "4", **spec: Any) -> None:
        labels = spec.pop("labels", {})
        status = {
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        node = {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}
        await self.create("", "nodes", {"apiVersion": "v1", "kind": "Node", **node}, "")

    # --- the nodes

    async def kubelets(
        self, *, healthy: Callable[[Object], bool] = lambda _: True, ends: Callable[[Object], str] = lambda _: ""
    ) -> int:
        """``ends``: the phase in which a running pod ends, or nothing.

        Every node brings its pods to Running and ends what is to be deleted; how many pods that changed."""
        done = 0
        for pod in (await self.registry.list("", "pods"))[0]:
            meta, node = pod["metadata"], pod["spec"].get("nodeName")
            if not node or node in self.cut:
                continue
            if meta.get("deletionTimestamp"):
                if meta.get("deletionGracePeriodSeconds") == 0:
                    continue  # confirmed; somebody's finalizer holds it
                await self.delete("", "pods", meta["name"], meta["namespace"], grace_s=0)
                done += 1
            elif pod["status"].get("phase") == "Pending":
                ready = {"type": "Ready", "status": str(healthy(pod)), "lastTransitionTime": "2026-01-01T00:00:00Z"}
                others = [c for c in pod["status"].get("conditions", []) if c["type"] != "Ready"]
                self.pods += 1
                pod["status"] |= {"podIP": f"10.244.{self.pods // 250}.{self.pods % 250 + 1}"}
                pod["status"] |= {
                    "phase": "Running",
                    "conditions": [*others, ready],
                    "startTime": ready["lastTransitionTime"],
                }
                await self.registry.update("", "pods", meta["namespace"], meta["name"], pod, how=HOW, subresource="status")
                done += 1
            elif pod["status"].get("phase") == "Running" and (phase := ends(pod)):
                pod["status"]["phase"] = phase
                await self.registry.update("", "pods", meta["namespace"], meta["name"], pod, how=HOW, subresource="status")
                done += 1
        return done

    # --- waiting

    async def quiet(self) -> None:
        """Until the controllers have nothing to do."""
        async with asyncio.timeout(20):
            still = 0
            while still < 3:
                await asyncio.sleep(0.002)
                still = still + 1 if self.runner.idle else 0

    async def settle(self, **how: Any) -> None:
        """Until nodes and controllers together have nothing to do."""
        await self.quiet()
        while await self.kubelets(**how):
            await self.quiet()

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not check():
                await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[Cluster]:
    task = asyncio.create_task(cluster.runner.run())
    try:
        await asyncio.wait({task, ready := asyncio.create_task(cluster.runner.loaded.wait())}, return_when="FIRST_COMPLETED")
        ready.cancel()
        yield cluster
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def deployment(name: str = "web", replicas: int = 2, image: str = "busybox:1", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def pod(name: str, **spec: Any) -> Object:
    meta = {"name": name, **spec.pop("metadata", {})}
    containers = [{"name": "c", "image": "busybox:1", **spec.pop("container", {})}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers, **spec}}


def condition(obj: Object, kind: str) -> Object:
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind), {})


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running(Cluster()) as c:
        yield c
