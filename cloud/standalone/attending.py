"""What controllers do with a change, a turn and an answer, whoever drives them: the process (run_controllers.py), which has
watches, coroutines and real time, or a simulation, which has none of these.

A plan that fails is made again from what the API says then, ever later; one that is refused again and again is given up
until something changes, one that could not be stored (the hub is away) never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from bus.kube import registry as registries
from bus.kube.storage import Change, Stored
from cloud import api
from cloud.core.writes import Write
from cloud.standalone import naming
from cloud.standalone.controllers import base, events, quota, telling
from cloud.standalone.controllers.base import Controller, Kind
from cloud.standalone.view import IndexedView
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

RETRY_S = 0.05  # doubles: a conflict is over as soon as the other write is seen
RETRY_S_MAX = 60.0
RETRIES_MAX = 15  # about six minutes; after that a key waits for the next change of what it depends on
ROOM_S = 0.1  # a quota changes with every pod: one try for some of them


class Queue(Protocol):
    """A controller's keys; see turns.py."""

    def add(self, key: ObjectKey, delay_s: float = 0.0) -> None: ...


@dataclass(slots=True)
class Stats:
    """Since the start of the process."""

    reconciled: int = 0
    written: int = 0
    retried: int = 0
    given_up: int = 0


class Attending:
    """``queues``: of the controllers that run, by name.  ``leads`` is asked before every write.  ``tell`` hears what is to
    be said of each write that succeeded, and who says it."""

    def __init__(
        self,
        registry: registries.Registry,
        view: IndexedView,
        controllers: Mapping[str, Controller],
        queues: Mapping[str, Queue],
        *,
        leads: Callable[[], bool],
        now_us: Callable[[], int],
        tell: Callable[[telling.Said, str], None] | None = None,
    ) -> None:
        self._tell = tell
        self._registry, self._reader, self._view = registry, registry.reader, view
        self._controllers, self._queues, self._leads, self._now_us = controllers, queues, leads, now_us
        self._failures: dict[tuple[str, ObjectKey], int] = {}
        self.stats = Stats()

    # --- what happens

    def listed(self, kind: Kind, listed: Sequence[Stored]) -> None:
        """A whole list of a kind: the first, or after a watch that missed something."""
        before = self._view.replace(kind, listed)
        for stored in listed:
            self._concern(kind, stored, before.pop(stored.key, None))
        for old in before.values():
            self._concern(kind, None, old)

    def changed(self, change: Change) -> None:
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

    # --- a turn

    async def look(self, controller: Controller, key: ObjectKey) -> None:
        """One look at a key, with its writes.  It belongs to nobody else meanwhile."""
        queue = self._queues[controller.name]
        self.stats.reconciled += 1
        tells = self._tell is not None and controller.name in telling.COMPONENTS
        about = self._view.get(key) if tells else None
        plan = controller.reconcile(self._view, key, self._now_us())
        for write in naming.fixed(plan.writes, lambda k: self._reader.get(k) is not None):
            if not self._leads():
                return  # about to be ended: whoever leads now looks at everything anew
            before = self._reader.get(write.key) if about is not None and write.verb != "create" else None
            outcome = await api.execute(self._registry, write, controller.actor)
            if isinstance(outcome, api.Done):
                self.stats.written += 1
                self._written(write.key, outcome)
                if about is not None:
                    done = telling.Done(write, before.object if before is not None else None, outcome.object)
                    self._say(controller, about, done)
            else:
                await self._denied(controller, write, outcome)
                self._retry(controller, queue, key, outcome)
                return
        self._failures.pop((controller.name, key), None)
        if plan.again_us is not None:
            queue.add(key, plan.again_us / 1e6)

    def _say(self, controller: Controller, about: Stored, done: telling.Done) -> None:
        if self._tell is None:
            return
        try:
            for said in telling.of(self._view, controller.name, about, done):
                self._tell(said, controller.actor)
        except Exception as e:  # what was written stays written: words about it are no reason to fail
            logger.error("controller.untold", controller=controller.name, object=str(about.key), reason=repr(e))

    async def _denied(self, controller: Controller, write: Write, why: api.Outcome) -> None:
        """Whoever looks at an owner whose pods are not let in is told why, as an event (``kubectl describe``)."""
        denied = why.denied if isinstance(why, api.Unreachable | api.Refused) else ""
        ref = base.controller_of(write.object or {}) if write.verb == "create" and denied else None
        served = self._view.kind_of(str(ref.get("apiVersion")), str(ref.get("kind"))) if ref is not None else None
        if ref is None or served is None:
            return
        owner = self._view.get(ObjectKey(*served[0], write.key.namespace if served[1] else "", str(ref.get("name"))))
        if owner is not None and base.uid(owner.object) == ref.get("uid"):
            said = telling.refused(controller.name, owner, write, denied)
            for event in events.tell(self._view, owner, said.reason, said.message, self._now_us(), said.component):
                await api.execute(self._registry, event, controller.actor)

    def _written(self, key: ObjectKey, done: api.Done) -> None:
        """Before its watch tells: what is looked at next must find it."""
        name = key.name or done.object["metadata"]["name"]
        stored = self._reader.get(ObjectKey(key.group, key.resource, key.namespace, name))
        if stored is not None:
            self._view.fold(stored)

    def _retry(
        self, controller: Controller, queue: Queue, key: ObjectKey, why: api.Stale | api.Unreachable | api.Refused
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
