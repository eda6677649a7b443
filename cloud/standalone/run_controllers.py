"""Runs the controllers that a cluster would bring: watches in, ``reconcile``, writes out.

One process and one loop for all of them; each has its own queue and one worker, so a controller never races with itself.
What is done with a change, a turn and a failure: attending.py.  What is told of it, as Events: recorder.py.
Any of them can be left out by name (switches.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from bus import stamp
from bus.kube import registry as registries
from bus.kube import upkeep
from bus.kube.errors import StatusError
from bus.kube.storage import Expired, Origin
from cloud import api
from cloud.standalone import gauges
from cloud.standalone.attending import RETRY_S, Attending
from cloud.standalone.controllers import (
    base,
    binding,
    claim_binder,
    clusterroles,
    cronjob,
    daemonset,
    deployment,
    disruption,
    endpoints,
    garbage,
    horizontal,
    job,
    legacy_tokens,
    namespace,
    node_lifecycle,
    podgc,
    quota,
    replicaset,
    rootca,
    scheduler,
    serviceaccount,
    statefulset,
    taint_eviction,
)
from cloud.standalone.controllers.base import Controller, Kind
from cloud.standalone.recorder import Recorder
from cloud.standalone.view import IndexedView
from cloud.standalone.workqueue import WorkQueue
from schemas import local_volumes
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

CONTROLLERS: dict[str, Controller] = {
    c.name: c
    for c in (
        deployment.CONTROLLER,
        replicaset.CONTROLLER,
        replicaset.OLDER,
        daemonset.CONTROLLER,
        statefulset.CONTROLLER,
        job.CONTROLLER,
        job.ORPHANS,
        cronjob.CONTROLLER,
        endpoints.CONTROLLER,
        endpoints.SLICE_CONTROLLER,
        serviceaccount.CONTROLLER,
        rootca.controller(""),
        legacy_tokens.controller(None, ""),
        clusterroles.CONTROLLER,
        scheduler.CONTROLLER,
        garbage.CONTROLLER,
        namespace.CONTROLLER,
        node_lifecycle.CONTROLLER,
        taint_eviction.CONTROLLER,
        disruption.CONTROLLER,
        horizontal.controller(),
        quota.controller(),
        claim_binder.CONTROLLER,
        podgc.CONTROLLER,
        podgc.TERMINATED,
        podgc.EVENT_TTL,
    )
}

BOOTSTRAP_S_MAX = 5.0
BOOTSTRAP = Origin("system:controller:bootstrap")
RELIST_S = 0.5  # after a watch fell behind

_DEFINITIONS: Kind = ("apiextensions.k8s.io", "customresourcedefinitions")


class ControllerRunner:
    """``run`` until cancelled.  ``names``: which controllers, None for all; raises ValueError for an unknown name.
    ``root_ca``: PEM of the authority by which the API is known, for those who give it to pods.  ``usage`` tells what nodes
    use; without it autoscalers have no figures.

    ``leads`` is asked before every write: with several cloud processes only one works (cloud/core/leases.py)."""

    def __init__(
        self,
        registry: registries.Registry,
        names: Iterable[str] | None = None,
        *,
        leads: Callable[[], bool] = lambda: True,
        root_ca: str = "",
        usage: gauges.Ask | None = None,
    ) -> None:
        wanted = list(CONTROLLERS) if names is None else list(names)
        unknown = [n for n in wanted if n not in CONTROLLERS]
        if unknown:
            raise ValueError(f"no controller {', '.join(unknown)}; there are: {', '.join(CONTROLLERS)}")
        self._registry, self._reader = registry, registry.reader
        self._view = IndexedView(registry.reader, registry.catalog)
        self._gauges = gauges.Gauges(usage, self._view) if usage is not None and horizontal.NAME in wanted else None
        made = (
            rootca.controller(root_ca),
            legacy_tokens.controller(registry.issuer, root_ca),
            quota.controller(),
            horizontal.controller(self._gauges.figures) if self._gauges is not None else horizontal.controller(),
        )
        self._controllers = {**CONTROLLERS, **{c.name: c for c in made}}
        self._queues = {n: WorkQueue() for n in wanted}
        self._recorder = Recorder(registry, self._view, leads=leads, now_us=lambda: stamp.now_us())
        self._attending = Attending(
            registry,
            self._view,
            self._controllers,
            self._queues,
            leads=leads,
            now_us=lambda: stamp.now_us(),
            tell=self._recorder.add,
        )
        self._watched: dict[Kind, asyncio.Task[None]] = {}
        self._listed: set[Kind] = set()
        self._ready = asyncio.Event()
        self.stats = self._attending.stats

    @property
    def loaded(self) -> asyncio.Event:
        """Set once every kind was listed."""
        return self._ready

    @property
    def idle(self) -> bool:
        """Nothing to look at now (some keys may be due later)."""
        return self._ready.is_set() and not any(map(len, self._queues.values()))

    async def run(self) -> None:
        await self._bootstrap()
        async with asyncio.TaskGroup() as tasks:
            self._watch_all(tasks)
            await self._ready.wait()
            if self._gauges is not None:
                tasks.create_task(self._gauges.run(), name="controllers.gauges")
            tasks.create_task(self._recorder.run(), name="controllers.recorder")
            for name, queue in self._queues.items():
                tasks.create_task(self._work(self._controllers[name], queue), name=f"controller.{name}")

    async def _bootstrap(self) -> None:
        """The namespaces and definitions that a new log lacks; a hub that is away is waited for."""
        wait_s = RETRY_S
        while True:
            try:
                await upkeep.bootstrap(self._registry, BOOTSTRAP)
                await self._storage_class()
                return
            except StatusError as e:
                if e.code not in api.RETRY_CODES:
                    raise
                logger.warning("controllers.waiting", reason=str(e))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, BOOTSTRAP_S_MAX)

    async def _storage_class(self) -> None:
        """The class for volumes on the nodes' own disks; one that people changed stays as they made it."""
        how = registries.Write(BOOTSTRAP)
        if self._reader.get(ObjectKey(*base.CLASSES, "", local_volumes.CLASS)) is None:
            try:
                await self._registry.create(*base.CLASSES, "", binding.local_class(), how=how)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise

    # --- watching --------------------------------------------------------------------------------------------------

    def _watch_all(self, tasks: asyncio.TaskGroup) -> None:
        """Every kind that is served now; called again when definitions change.  A kind that is gone is watched on: empty."""
        for kind in self._view.kinds():
            if kind not in self._watched:
                self._watched[kind] = tasks.create_task(self._watch(kind, tasks), name=f"controllers.watch.{kind[1]}")

    async def _watch(self, kind: Kind, tasks: asyncio.TaskGroup) -> None:
        while True:
            after = self._reader.revision()
            self._list(kind)
            try:
                async for change in self._reader.watch(*kind, after=after):
                    self._attending.changed(change)
                    if kind == _DEFINITIONS:
                        self._watch_all(tasks)
            except Expired as e:
                logger.info("controllers.relist", resource=kind[1], reason=str(e))
            self._listed.discard(kind)
            self._ready.clear()  # the indexes miss what happened: nobody decides on them until they are whole again
            await asyncio.sleep(RELIST_S)

    def _list(self, kind: Kind) -> None:
        self._attending.listed(kind, self._reader.list(*kind))
        self._listed.add(kind)
        if self._listed >= set(self._watched):
            self._ready.set()

    # --- working ---------------------------------------------------------------------------------------------------

    async def _work(self, controller: Controller, queue: WorkQueue) -> None:
        while True:
            key = await queue.take()
            try:
                await self._ready.wait()
                await self._attending.look(controller, key)
            finally:
                queue.done(key)
            await asyncio.sleep(0)  # a thousand looks that write nothing must not hold up the API beside them
