"""One run: the world is built, users act and faults happen for some steps, all is healed, and it must come right.

Liveness bound: CALM_US_MAX of virtual time after healing.  It is the sum of the longest waits that may follow each other: a
crash loop's back-off (300 s), the pods' next look at the engine (300 s), the replica's refresh (360 s), and change.
"""

from __future__ import annotations

from bus import log
from ops.sim.swarm import checkers, outcome
from ops.sim.swarm.api import Api
from ops.sim.swarm.catching_up import SyncService
from ops.sim.swarm.dispatching import DispatcherWorker
from ops.sim.swarm.edge import Edge, Parts
from ops.sim.swarm.faults import Faults
from ops.sim.swarm.hub import Hub
from ops.sim.swarm.reporting import ReportsWorker
from ops.sim.swarm.schedule import MS, S, Schedule
from ops.sim.swarm.wire import Link, Wire
from ops.sim.swarm.workload import Users
from schemas import event, subjects

CALM_US_MAX = 1_200 * S
LOOK_US = 20 * S
STEP_US = (0, 20 * MS, 300 * MS, 2 * S, 10 * S, 60 * S)  # at most this long between two steps; drawn for each


class World:
    def __init__(self, seed: int, kinds: frozenset[str], parts: Parts) -> None:
        self.schedule = schedule = Schedule(seed)
        lots = schedule.lots("world")
        self.hub = Hub(schedule, shards=lots.choice((1, 2, 4)))
        self.wire = Wire(schedule, self.hub)
        self.api = Api(schedule, self.hub)
        self.sync = SyncService(self.hub, page_bytes=lots.choice((500, 2_000, 512 << 10)), history=lots.random() < 0.3)
        self.dispatchers = [
            DispatcherWorker(f"dispatcher-{n}", schedule, self.hub, self.wire, parts.dispatcher, fenced=parts.fenced)
            for n in (1, 2)
        ]
        self.reports = ReportsWorker(schedule, self.hub, self.wire, self.api)
        names = [f"edge-{n}" for n in range(1, 1 + lots.randint(2, 5))]
        self.edges = [
            Edge(
                name,
                schedule,
                self.hub,
                self.wire,
                self.sync,
                parts,
                self.reports.beat,
                self._committed,
                self._refused,
                self._disk_lost,
            )
            for name in names
        ]
        self.log_checker = checkers.LogChecker(self.hub)
        self.replica_checker = checkers.ReplicaChecker(self.hub, self.sync.partial)
        self.report_checker = checkers.ReportChecker()
        self._shards = {s: subjects.shard_of(s, self.hub.shards) for s in [*names, "all"]}
        self.hub.on_append.append(self._appended)
        self.hub.on_restore.append(self._restored)
        self.users = Users(schedule, self.api, names)
        self.faults = Faults(self, kinds)
        self._lots = schedule.lots("steps")
        schedule.after_event = self._after_event

    @property
    def links(self) -> list[Link]:
        return [*(e.link for e in self.edges), *(d.link for d in self.dispatchers), self.reports.link]

    def sync_up(self, up: bool) -> None:
        self.sync.up = up

    # --- watching

    def _appended(self, record: log.Recorded) -> None:
        self.log_checker.appended(record)
        self.report_checker.appended(record)
        if record.stream.startswith("META-"):
            for edge in self.edges:
                edge.live(record)

    def _restored(self) -> None:
        self.log_checker.restored()
        for edge in self.edges:
            edge.reconnected()

    def _committed(self, edge: Edge) -> None:
        self.replica_checker.committed(edge, self._shards)
        self.report_checker.committed(edge)

    def _refused(self, edge: Edge, subject: str, ev: event.Event) -> None:
        self.report_checker.refused(edge, subject, ev)

    def _disk_lost(self, edge: Edge) -> None:
        self.report_checker.disk_lost(edge)

    def _after_event(self) -> None:
        for edge in self.edges:
            if edge.engine.changed:
                edge.engine.changed = False
                checkers.never_two(edge)

    # --- running

    def run(self, steps: int) -> None:
        """Raises checkers.Violation."""
        self.dispatchers[0].start()
        self.reports.start()
        for edge in self.edges:
            edge.boot()
        self.schedule.run_for(2 * S)
        for _ in range(steps):
            fault = self._lots.random() < 0.3
            wait_us = self._lots.randrange(1 + self._lots.choice(STEP_US))
            self.schedule.do(self.faults.act if fault else self._user)
            self.schedule.run_for(wait_us)
        self.heal()
        self._come_right()

    def _user(self) -> None:
        if self.hub.up:
            self.users.act()

    def heal(self) -> None:
        self.schedule.note("heal")
        self.faults.over = True
        self.hub.up = self.sync.up = True
        for link in self.links:
            link.heal()
            self.wire.resume(link)
        first, second = self.dispatchers
        for worker in (first, second, self.reports):
            worker.lags_until_us = 0
            if worker.paused:
                worker.resume()
        if second.running:
            second.stop()
        for worker in (first, self.reports):
            if not worker.running:
                worker.start()
        for edge in self.edges:
            edge.disk.full, edge.disk.crash_in = False, None
            if not edge.engine.up:
                edge.engine_up(True)

    def _come_right(self) -> None:
        waited = 0
        while True:
            self.schedule.run_for(LOOK_US)
            waited += LOOK_US
            wrong = outcome.differences(self.api, self.edges, self.report_checker)
            if not wrong:
                break
            if waited >= CALM_US_MAX:
                raise checkers.Violation("comes right", f"not {waited // S} s after healing: " + "; ".join(wrong[:8]))
        self.log_checker.last_stays()
        self.schedule.run_for(LOOK_US)
        wrong = outcome.differences(self.api, self.edges, self.report_checker)
        if wrong:
            raise checkers.Violation("stays right", "; ".join(wrong[:8]))
        if self.reports.complaints:
            raise checkers.Violation("reports are understood", "; ".join(self.reports.complaints[:3]))
