"""The controllers' process in the simulation: the real controllers and scheduler over the real view, turns and writes.

What cloud/standalone/run_controllers.py does with asyncio is done here in virtual time: each kind is listed, its changes are
told in order and some time after the cache has them, so that an index is older than what it points to; each controller
looks at one key after the other.  The cache itself is behind the log whenever the process lags, and behind the other API
servers always.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bus.kube import cache
from bus.kube.storage import Change, Object
from cloud.standalone import run_controllers
from cloud.standalone.attending import Attending
from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Controller, Kind
from cloud.standalone.turns import Turns
from cloud.standalone.view import IndexedView
from ops.sim.api import ApiWorker, WorkersStorage
from ops.sim.hub import Hub
from ops.sim.leading import Lead
from ops.sim.schedule import MS, S, Schedule
from ops.sim.wire import Wire
from ops.sim.worker import Life
from schemas.subjects import ObjectKey

NAMES = ("deployment", "replicaset", "scheduler", "nodelifecycle", "tainteviction", "podgc", "garbage")
RELIST_US = int(run_controllers.RELIST_S * S)
TOLD_US_MAX = 20 * MS
LATE, LATE_US_MAX = 0.03, 3 * S  # share of changes that the indexes hear of much later
TURN_US_MAX = 5 * MS


def controllers() -> dict[str, Controller]:
    return {n: run_controllers.CONTROLLERS[n] for n in NAMES}


@dataclass(frozen=True)
class Made:
    """What a mutant may replace."""

    controllers: Callable[[], Mapping[str, Controller]] = controllers
    turns: type[Turns] = Turns
    attending: type[Attending] = Attending
    always: bool = False  # in every world


class TellingCache(cache.WatchCache):
    """Tells each change that it folds, as a watch from now on would."""

    def __init__(self, tell: Callable[[Change], None]) -> None:
        super().__init__()
        self._tell_one = tell

    def apply(
        self,
        rev: int,
        key: ObjectKey,
        obj: Object | None,
        event_id: str = "",
        trace: str = "",
        source_rev: int = 0,
        time_us: int = 0,
    ) -> Change | None:
        change = super().apply(rev, key, obj, event_id, trace, source_rev, time_us)
        if change is not None:
            self._tell_one(change)
        return change


class Queue:
    """A controller's keys, and whoever works on them."""

    def __init__(self, turns: Turns, work: Life, worker: ControllersWorker, controller: Controller) -> None:
        self._turns, self._work, self._w, self._controller = turns, work, worker, controller
        self._working = self._planned = False
        self._due_s: float | None = None

    def add(self, key: ObjectKey, delay_s: float = 0.0) -> None:
        if self._turns.add(key, self._w.now_s, delay_s):
            self.wake()

    def wake(self) -> None:
        if not self._working and not self._planned:
            self._planned = True
            self._work.later(self._w.lots.randrange(1, TURN_US_MAX), self._turn)

    def _turn(self) -> None:
        self._planned = False
        if self._working or not self._w.ready:
            return  # woken when it is ready, or when this turn is over
        key = self._turns.take(self._w.now_s)
        if key is None:
            self._arm()
            return
        self._working = True

        def done(result: object) -> None:
            self._working = False
            if isinstance(result, Exception):
                raise result
            self._turns.done(key)
            self.wake()

        self._work.spawn(self._w.look(self._controller, key), done)

    def _arm(self) -> None:
        due = self._turns.next_s
        if due is not None and due != self._due_s:
            self._due_s = due
            wait_us = 1 + int((due - self._w.now_s) * S)
            self._work.later(max(1, wait_us), lambda: self.wake() if self._due_s == due else None)


class ControllersWorker(ApiWorker):
    def __init__(
        self,
        name: str,
        schedule: Schedule,
        hub: Hub,
        wire: Wire,
        made: Made,
        storage: type[WorkersStorage] = WorkersStorage,
        *,
        lead: Lead | None = None,
    ) -> None:
        self._parts, self._lead = made, lead
        super().__init__(name, schedule, hub, wire, storage)
        self._work = self.life
        self._campaign = None if lead is None else self.life
        self._untold: deque[Change] = deque()
        self._telling = False
        self.ready = self._begun = False
        self._attending: Attending | None = None
        self._queues: dict[str, Queue] = {}
        self._leads: Callable[[], bool] = lambda: True

    @property
    def now_s(self) -> float:
        return self.schedule.mono_us / S

    def made(self) -> None:
        super().made()
        self.storage.cache = TellingCache(self._changed)

    def begin(self) -> None:
        self.made()
        self._begun = False
        self._end_work()
        self.follow("CLUSTER", lambda r, _: self.storage.take(r), self._loaded)

    def another_epoch(self) -> None:
        """The process goes on; its watches end once the other log is read, and it lists anew."""
        self.epoch = self.hub.epoch
        self.storage.forget()
        self.follow("CLUSTER", lambda r, _: self.storage.take(r), self._loaded)

    # --- work

    def _loaded(self) -> None:
        self.storage.begin()
        if self._begun:
            self.ready = False
            self._untold.clear()
            self._work.later(RELIST_US, self._list)
            return
        self._begun = True
        if self._lead is None:
            self._work_anew()
        else:
            campaign = self._lead(self, "controllers", self._work_anew, self._end_work, lambda: 0)
            self._leads = lambda: campaign.leads
            campaign.start()

    def _work_anew(self) -> None:
        self._end_work()
        work = self._work = self.new_life()
        view = IndexedView(self.registry.reader, self.registry.catalog)
        self._view = view
        known = self._parts.controllers()
        self._queues = {n: Queue(self._parts.turns(), work, self, c) for n, c in known.items()}
        self._attending = self._parts.attending(
            self.registry, view, known, self._queues, leads=lambda: self._leads(), now_us=lambda: self.clock.now_us
        )
        self._list()

    def _end_work(self) -> None:
        self._work.end()
        self.ready = False
        self._untold.clear()

    def _list(self) -> None:
        assert self._attending is not None
        self._untold.clear()
        for kind in self._kinds():
            self._attending.listed(kind, self.storage.list(*kind))
        self.ready = True
        for queue in self._queues.values():
            queue.wake()

    def _kinds(self) -> list[Kind]:
        return [k for k in self._view.kinds() if k != base.EVENTS]  # nobody here waits for them

    # --- what happens

    def _changed(self, change: Change) -> None:
        if not self.ready or change.stored is None:
            return
        if (change.stored.key.group, change.stored.key.resource) == base.EVENTS:
            return
        self._untold.append(change)
        if not self._telling or len(self._untold) == 1:
            self._plan()

    def _plan(self) -> None:
        self._telling = True
        late = self.lots.random() < LATE
        self._work.later(self.lots.randrange(1, LATE_US_MAX if late else TOLD_US_MAX), self._tell)

    def _tell(self) -> None:
        """All that waits: a watch that was late tells it in one go."""
        self._telling = False
        if self._attending is None or not self.ready:
            return
        while self._untold:
            self._attending.changed(self._untold.popleft())

    async def look(self, controller: Controller, key: ObjectKey) -> None:
        assert self._attending is not None
        await self._attending.look(controller, key)
