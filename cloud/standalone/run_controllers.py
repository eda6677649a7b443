"""Runs the controllers that a cluster would bring: watches in, ``reconcile``, writes out.

One process and one loop for all of them; each has its own queue and one worker, so a controller never races with itself.
A plan that fails is made again from what the API says then, ever later; one that is refused again and again is given up
until something changes, one that could not be stored (the hub is away) never.
Any of them can be left out by name (switches.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from bus import stamp
from bus.kube import registry as registries
from bus.kube import upkeep
from bus.kube.errors import StatusError
from bus.kube.storage import Change, Expired, Origin, Stored
from cloud import api
from cloud.core.writes import Write
from cloud.standalone import gauges, naming
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
    events,
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

RETRY_S = 0.05  # doubles: a conflict is over as soon as the other write is seen
RETRY_S_MAX = 60.0
RETRIES_MAX = 15  # about six minutes; after that a key waits for the next change of what it depends on
BOOTSTRAP_S_MAX = 5.0
BOOTSTRAP = Origin("system:controller:bootstrap")
ROOM_S = 0.1  # a quota changes with every pod: one try for some of them
RELIST_S = 0.5  # after a watch fell behind

_DEFINITIONS: Kind = ("apiextensions.k8s.io", "customresourcedefinitions")


@dataclass(slots=True)
class Stats:
    """Since the start of the process."""

    reconciled: int = 0
    written: int = 0
    retried: int = 0
    given_up: int = 0


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
        self._registry, self._reader, self._leads = registry, registry.reader, leads
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
        self._failures: dict[tuple[str, ObjectKey], int] = {}
        self._watched: dict[Kind, asyncio.Task[None]] = {}
        self._listed: set[Kind] = set()
        self._ready = asyncio.Event()
        self.stats = Stats()

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
                    self._change(change)
                    if kind == _DEFINITIONS:
                        self._watch_all(tasks)
            except Expired as e:
                logger.info("controllers.relist", resource=kind[1], reason=str(e))
            self._listed.discard(kind)
            self._ready.clear()  # the indexes miss what happened: nobody decides on them until they are whole again
            await asyncio.sleep(RELIST_S)

    def _list(self, kind: Kind) -> None:
        listed = self._reader.list(*kind)
        before = self._view.replace(kind, listed)
        for stored in listed:
            self._concern(kind, stored, before.pop(stored.key, None))
        for old in before.values():
            self._concern(kind, None, old)
        self._listed.add(kind)
        if self._listed >= set(self._watched):
            self._ready.set()

    def _change(self, change: Change) -> None:
        stored = change.stored
        if stored is None:
            return
        kind = (stored.key.group, stored.key.resource)
        if change.type == "DELETED":
            self._view.forget(stored.key, change.rev)
            self._concern(kind, None, change.old or stored)
        else:
            self._view.fold(stored)
            self._concern(kind, stored, change.old)

    def _concern(self, kind: Kind, seen: Stored | None, old: Stored | None) -> None:
        if kind == quota.QUOTAS:
            self._room((seen or old).key.namespace)  # type: ignore[union-attr]
        for name, queue in self._queues.items():
            controller = self._controllers[name]
            if kind in controller.watches or base.EVERY in controller.watches:
                for key in controller.concerns(self._view, seen, old):
                    self._failures.pop((name, key), None)
                    queue.add(key, controller.delay_us / 1e6)

    def _room(self, namespace: str) -> None:
        """A quota changed: what failed there may have room now, and need not wait for its next try."""
        for name, key in [f for f in self._failures if f[1].namespace == namespace]:
            del self._failures[name, key]
            self._queues[name].add(key, ROOM_S)

    # --- working ---------------------------------------------------------------------------------------------------

    async def _work(self, controller: Controller, queue: WorkQueue) -> None:
        while True:
            key = await queue.take()
            try:
                await self._ready.wait()
                await self._look(controller, queue, key)
            finally:
                queue.done(key)
            await asyncio.sleep(0)  # a thousand looks that write nothing must not hold up the API beside them

    async def _look(self, controller: Controller, queue: WorkQueue, key: ObjectKey) -> None:
        self.stats.reconciled += 1
        plan = controller.reconcile(self._view, key, stamp.now_us())
        for write in naming.fixed(plan.writes, lambda k: self._reader.get(k) is not None):
            if not self._leads():
                return  # about to be ended: whoever leads now looks at everything anew
            outcome = await api.execute(self._registry, write, controller.actor)
            if isinstance(outcome, api.Done):
                self.stats.written += 1
                self._written(write.key, outcome)
            else:
                await self._denied(controller, write, outcome)
                self._retry(controller, queue, key, outcome)
                return
        self._failures.pop((controller.name, key), None)
        if plan.again_us is not None:
            queue.add(key, plan.again_us / 1e6)

    async def _denied(self, controller: Controller, write: Write, why: api.Outcome) -> None:
        """Whoever looks at an owner whose pods are not let in is told why, as an event (``kubectl describe``)."""
        denied = why.denied if isinstance(why, api.Unreachable | api.Refused) else ""
        ref = base.controller_of(write.object or {}) if write.verb == "create" and denied else None
        served = self._view.kind_of(str(ref.get("apiVersion")), str(ref.get("kind"))) if ref is not None else None
        if ref is None or served is None:
            return
        owner = self._view.get(ObjectKey(*served[0], write.key.namespace if served[1] else "", str(ref.get("name"))))
        if owner is not None and base.uid(owner.object) == ref.get("uid"):
            said = f"Error creating: {denied}"
            component = f"{controller.name}-controller"
            for event in events.tell(self._view, owner, "FailedCreate", said, stamp.now_us(), component):
                await api.execute(self._registry, event, controller.actor)

    def _written(self, key: ObjectKey, done: api.Done) -> None:
        """Before its watch tells: what is looked at next must find it."""
        name = key.name or done.object["metadata"]["name"]
        stored = self._reader.get(ObjectKey(key.group, key.resource, key.namespace, name))
        if stored is not None:
            self._view.fold(stored)

    def _retry(
        self, controller: Controller, queue: WorkQueue, key: ObjectKey, why: api.Stale | api.Unreachable | api.Refused
    ) -> None:
        failures = self._failures[controller.name, key] = self._failures.get((controller.name, key), 0) + 1
        if failures > RETRIES_MAX and not isinstance(why, api.Unreachable):
            del self._failures[controller.name, key]
            self.stats.given_up += 1
            logger.error("controller.given_up", controller=controller.name, object=str(key), reason=why.reason)
            return
        self.stats.retried += 1
        if isinstance(why, api.Refused) and failures == 1:
            logger.warning("controller.refused", controller=controller.name, object=str(key), reason=why.reason)
        queue.add(key, min(RETRY_S_MAX, RETRY_S * 2 ** min(failures - 1, RETRIES_MAX)))
