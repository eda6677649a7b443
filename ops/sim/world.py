"""One run: the world is built, users act and faults happen for some steps, all is healed, and it must come right.

Every step draws from a generator of its own, so that a run without some of its steps is the same run otherwise: that is how
a failure is shrunk.

Liveness bound: CALM_US_MAX of virtual time after healing.  It is the sum of the longest waits that may follow each other:
the replica's refresh (15 min and a fifth), a crash loop's back-off or the pods' next look at the engine (5 min each), and
change.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from bus import fold, log
from ops.sim import checkers, controlled, leading, outcome
from ops.sim.api import USER, ApiServer
from ops.sim.catching_up import SyncService
from ops.sim.controlling import ControllersWorker
from ops.sim.deploying import Deployers
from ops.sim.dispatching import DispatcherWorker
from ops.sim.edge import Edge, Parts, Watching
from ops.sim.entering import Entrance
from ops.sim.faults import Faults
from ops.sim.gate import Gate
from ops.sim.reporting import ReportsWorker
from ops.sim.schedule import MS, S, Schedule
from ops.sim.wire import Link, Wire
from ops.sim.worker import Worker
from ops.sim.workload import Users
from schemas import subjects
from schemas.subjects import ObjectKey

CALM_US_MAX = 2_000 * S
LOOK_US = 20 * S
STEP_US = (0, 20 * MS, 300 * MS, 2 * S, 10 * S, 60 * S)  # at most this long between two steps; drawn for each
AGAIN_US = 15 * S  # an operator's patience
CONTROLLED_SHARE = 1 / 4
GATED_SHARE = 1 / 4
FAULTS_SHARE = 0.3  # of the steps; the others are users


class World:
    def __init__(self, seed: int, kinds: frozenset[str], parts: Parts) -> None:
        self.schedule = schedule = Schedule(seed)
        lots = schedule.lots("world")
        self.hub = hub = parts.hub(schedule, lots.choice((1, 2, 4)))
        self.wire = wire = Wire(schedule, hub)
        self.sync = SyncService(hub, page_bytes=lots.choice((500, 2_000, 512 << 10)), history=lots.random() < 0.3)
        names = [f"edge-{n}" for n in range(1, 1 + lots.randint(2, 5))]
        self.log_checker = checkers.LogChecker(hub)
        self.cluster_checker = checkers.ClusterChecker(hub)
        self.replica_checker = checkers.ReplicaChecker(hub, self.sync.partial)
        self.observer_checker = checkers.ObserverChecker(hub)
        self.report_checker = checkers.ReportChecker()
        self.servers = [
            ApiServer(f"api-{n}", schedule, hub, wire, self.cluster_checker.acknowledged, parts.storage) for n in (1, 2)
        ]
        # Half of the worlds have leases, as in production.  In the others two may work at once: harder, and no worse.
        self.led = schedule.lots("leases").random() < 0.5
        self.lease_checker = checkers.LeaseChecker(hub)
        lead = partial(leading.Campaign, make=parts.lease, changed=self.lease_checker.changed) if self.led else None
        self.dispatchers = [
            DispatcherWorker(f"dispatcher-{n}", schedule, hub, wire, parts.dispatcher, lead=lead, fenced=parts.fenced)
            for n in (1, 2)
        ]
        self.reports = [
            ReportsWorker(f"reports-{n}", schedule, hub, wire, self._ask_for_beat, parts.reports, parts.storage, lead=lead)
            for n in (1, 2)
        ]
        # Controllers in a quarter of the worlds: they multiply what happens.
        drawn = schedule.lots("controllers").random() < CONTROLLED_SHARE
        self.controlled = parts.controllers.always or (drawn and not parts.plain)
        self.control_checker = controlled.ControlChecker(hub)
        self.controllers = [
            ControllersWorker(f"controllers-{n}", schedule, hub, wire, parts.controllers, parts.storage, lead=lead)
            for n in ((1, 2) if self.controlled else ())
        ]
        gated = parts.gated.always or (schedule.lots("gate").random() < GATED_SHARE and not parts.plain)
        self.gate = Gate(schedule, hub, wire, parts.gated) if gated else None
        self._parts = parts
        self._watching = Watching(
            self._beat,
            self._committed,
            self.report_checker.refused,
            self.report_checker.crashed,
            self.report_checker.disk_lost,
            self._told,
        )
        self.edges = [Edge(name, schedule, hub, wire, self.sync, parts, self._watching) for name in names]
        self.clones: list[Edge] = []
        self._shards = {s: subjects.shard_of(s, hub.shards) for s in [*names, "all"]}
        self.hub.on_append.append(self._appended)
        self.hub.on_restore.append(self._restored)
        self.users = Users(schedule, self.servers, names, Deployers(names) if self.controlled else None)
        self.faults = Faults(self, kinds)
        schedule.after_event = self._after_event

    @property
    def workers(self) -> list[Worker]:
        return [*self.servers, *self.dispatchers, *self.reports, *self.controllers, *self.entrances]

    @property
    def entrances(self) -> list[Entrance]:
        return self.gate.entrances if self.gate is not None else []

    @property
    def steady(self) -> list[Worker]:
        """Who runs when nothing goes wrong."""
        if self.led:
            return self.workers
        return [*self.servers, self.dispatchers[0], self.reports[0], *self.controllers[:1], *self.entrances]

    @property
    def links(self) -> list[Link]:
        machines = self.gate.machines if self.gate is not None else []
        return [*(e.link for e in self.edges), *(w.link for w in self.workers), *(m.link for m in machines)]

    # --- what faults do to more than one

    def sync_up(self, up: bool) -> None:
        self.sync.up = up

    def compacted(self) -> None:
        self.log_checker.compacted = True

    def link_is_back(self, link: Link) -> None:
        """The hub sees a connection that was made anew, and has the node asked for a beat (cloud/hints.py)."""
        for edge in self.edges:
            if edge.link is link and edge.lots.random() < 0.8:
                self.schedule.after(edge.lots.randrange(300 * MS, 5 * S), partial(edge.asked, True))

    def clone(self, of: Edge, *, with_store: bool) -> Edge:
        ident = f"{of.name}'{len(self.clones) + 1}"
        made = Edge(of.name, self.schedule, self.hub, self.wire, self.sync, self._parts, self._watching, ident=ident)
        if with_store:
            made.disk.copy_of(of.disk)
            self.report_checker.cloned(made)
        self.clones.append(made)
        self.schedule.after(1, made.boot)
        return made

    def delete_node(self, name: str, done: Callable[[], None]) -> None:
        """An operator tries until it is done; ``done`` once."""
        still = [done]

        async def act(server: ApiServer) -> None:
            if server.storage.get(ObjectKey("", "nodes", "", name)) is not None:
                await server.registry.delete("", "nodes", "", name, how=USER)
            if still:
                still.pop()()

        def attempt() -> None:
            if still:
                self.servers[0].serve(act, lambda why: self.schedule.note(f"node {name} not deleted: {why}"))
                self.schedule.after(AGAIN_US, attempt)

        attempt()

    def _ask_for_beat(self, node: str) -> None:
        for edge in (*self.edges, *self.clones):
            if edge.name == node:
                edge.asked(False)

    # --- watching

    def _beat(self, edge: Edge) -> bytes | None:
        """Every process hears it; the first answer is the one that counts."""
        answers = [a for w in self.reports if (a := w.beat(edge.name, edge.run, edge.machine)) is not None]
        return answers[0] if answers else None

    def _appended(self, record: log.Recorded) -> None:
        self.log_checker.appended(record)
        self.cluster_checker.appended(record)
        self.control_checker.appended(record)
        self.report_checker.appended(record)
        if self.gate is not None:
            self.gate.checker.appended(record)
        if record.stream.startswith("META-"):
            for edge in (*self.edges, *self.clones):
                edge.live(record)

    def _restored(self) -> None:
        self.log_checker.restored()
        self.cluster_checker.restored()
        self.control_checker.restored()
        if self.gate is not None:
            self.gate.restored()
        for edge in (*self.edges, *self.clones):
            edge.nudge(renewed=True)  # the server was started anew: every connection was broken, which nobody can miss

    def _committed(self, edge: Edge) -> None:
        self.replica_checker.committed(edge, self._shards)
        self.report_checker.committed(edge)

    def _told(self, edge: Edge, fact: fold.Fact) -> None:
        self.observer_checker.told(edge, fact)

    def _after_event(self) -> None:
        for edge in (*self.edges, *self.clones):
            if edge.engine.changed:
                edge.engine.changed = False
                checkers.never_two(edge)

    # --- running

    def run(self, steps: int, only: frozenset[int] | None = None) -> None:
        """``only``: the steps that happen; time passes in the others too.  Raises checkers.Violation."""
        for worker in self.steady:
            worker.start()
        for edge in self.edges:
            edge.boot()
        self.schedule.run_for(1 * S)
        self.users.begin()
        if self.gate is not None:
            self.gate.begin()
        self.schedule.run_for(1 * S)
        for n in range(steps):
            lots = random.Random(f"{self.schedule.seed}/step/{n}")
            act = self.faults.act if lots.random() < FAULTS_SHARE else self._users_act
            wait_us = lots.randrange(1 + lots.choice(STEP_US))
            if only is None or n in only:
                self.schedule.do(partial(act, lots))
            self.schedule.run_for(wait_us)
        self.heal()
        self._come_right()

    def _users_act(self, lots: random.Random) -> None:
        if self.gate is not None and lots.random() < 0.25:
            self.gate.act(lots)
        else:
            self.users.act(lots)

    def heal(self) -> None:
        """All but the clocks: those are as they were set."""
        self.schedule.note("heal")
        self.hub.up = self.sync.up = True
        for link in self.links:
            link.heal()
            self.wire.resume(link)
        for worker in self.workers:
            worker.lags_until_us, worker.crash_in = 0, None
            if worker.paused:
                worker.resume()
        for spare in self.workers:
            if spare.running and spare not in self.steady:
                spare.stop()
        for worker in self.steady:
            if not worker.running:
                worker.start()
        for clone in self.clones:
            if not clone.gone:
                clone.switch_off()
        for edge in self.edges:
            edge.disk.full, edge.disk.crash_in = False, None
            edge.engine.fails = 0.0
            if not edge.engine.up:
                edge.engine_up(True)
            self.link_is_back(edge.link)
        self.faults.end()

    def _come_right(self) -> None:
        """And stay so.  A node may still be fenced once: a reports worker that was started anew heard the clone first, and
        keeps it until it was silent for long (cloud/clones.py)."""
        waited = 0
        while True:
            self.schedule.run_for(LOOK_US)
            waited += LOOK_US
            wrong = self._differences()
            if not wrong:
                self.log_checker.last_stays()
                self.log_checker.catch_up_from_anywhere()
                self.schedule.run_for(LOOK_US)
                waited += LOOK_US
                wrong = self._differences()
                if not wrong:
                    break
                if not any(e.fenced for e in self.edges):
                    raise checkers.Violation("stays right", "; ".join(wrong[:8]))
            if waited >= CALM_US_MAX:
                raise checkers.Violation("comes right", f"not {waited // S} s after healing: " + "; ".join(wrong[:8]))
        complaints = [c for w in self.reports for c in w.complaints]
        if complaints:
            raise checkers.Violation("reports are understood", "; ".join(complaints[:3]))

    def _differences(self) -> list[str]:
        found = outcome.differences(self.hub, self.edges, self.report_checker, controlled=self.controlled)
        if self.gate is not None:
            self.gate.help()
            found += self.gate.differences()
        return found

    def end(self) -> None:
        """Nothing goes on: coroutines are closed."""
        for worker in self.workers:
            if worker.running:
                worker.stop()
        for edge in (*self.edges, *self.clones):
            if edge.alive:
                edge.outbox.crash()
