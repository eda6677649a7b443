"""What goes wrong: each run enables a random subset of kinds (swarm testing), and each fault heals by itself in the end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from ops.sim.api import ApiServer
from ops.sim.controlling import ControllersWorker
from ops.sim.dispatching import DispatcherWorker
from ops.sim.edge import Edge
from ops.sim.entering import Entrance
from ops.sim.gate import Gate
from ops.sim.hub import DEDUPE_US, Hub
from ops.sim.reporting import ReportsWorker
from ops.sim.schedule import MS, Clock, S, Schedule
from ops.sim.wire import LATE_US_MAX, Link
from ops.sim.worker import Worker
from ops.sim.workload import Users

KINDS = (
    "loss",  # live messages lost
    "dup",  # live messages twice
    "delay",  # slow links, and single messages that are very late
    "ack-loss",  # requests that were done and never answered
    "cut",  # a link, both ways or one way
    "edge-crash",  # at any step of any transaction, or between two instructions
    "cloud-crash",  # API server, dispatcher or reports worker, at once or between two instructions
    "lag",  # a cloud worker reads CLUSTER late, and everything else in time
    "failover",  # a dispatcher dies; what it wrote last arrives when its successor has begun
    "race",  # two dispatchers, or two reports workers; one of them paused with an append in its hands
    "pause",  # an API server sleeps with a write in its hands
    "disk-full",
    "disk-lost",  # the node comes back with an empty store
    "torn",  # the power goes in the middle of a commit
    "containers",  # a container exits, or is removed by somebody
    "engine",  # the container engine goes away, with or without its containers
    "engine-fails",  # its calls end badly
    "mapper",  # killed and started again
    "clocks",  # a machine's wall clock is set, by up to hours, and stays so
    "clone",  # a second machine with the node's identity
    "rejoin",  # revoked, perhaps deleted, and joined again with the same or an empty store
    "hub-down",
    "restore",  # the hub comes back from an older backup, in a new epoch
    "sync-busy",
    "compact",  # an operator takes out of the log what is over
    "old-claims",  # the folder that says who may not come in is restored from an old copy
)
CLOCK_OFF_S_MAX = 5 * 3600


class World(Protocol):
    schedule: Schedule
    hub: Hub
    edges: list[Edge]
    clones: list[Edge]
    servers: list[ApiServer]
    dispatchers: list[DispatcherWorker]
    reports: list[ReportsWorker]
    controllers: list[ControllersWorker]  # none in worlds without
    gate: Gate | None  # where machines join and are revoked
    users: Users
    led: bool  # workers lead by leases

    @property
    def links(self) -> list[Link]: ...

    @property
    def entrances(self) -> list[Entrance]: ...

    def sync_up(self, up: bool) -> None: ...

    def link_is_back(self, link: Link) -> None: ...

    def compacted(self) -> None: ...

    def clone(self, of: Edge, *, with_store: bool) -> Edge: ...

    def delete_node(self, name: str, done: Callable[[], None]) -> None: ...


class Faults:
    """``act(lots)`` does one; everything about it is drawn from ``lots``."""

    def __init__(self, world: World, kinds: frozenset[str]) -> None:
        self._w = world
        self.kinds = sorted(kinds)
        self.done: dict[str, int] = {}
        self.over = False  # healed: what was planned before then doesn't happen any more
        self._joins: dict[str, Callable[[], None]] = {}  # of revoked nodes

    def act(self, lots: Random) -> None:
        if not self.kinds:
            return
        kind = lots.choice(self.kinds)
        self.done[kind] = self.done.get(kind, 0) + 1
        handler: Callable[[Random], None] = getattr(self, "_" + kind.replace("-", "_"))
        handler(lots)

    def end(self) -> None:
        """All is healed: who was to join joins now."""
        self.over = True
        for join in list(self._joins.values()):
            join()

    def _for_a_while(self, lots: Random, heal: Callable[[], None], max_s: int = 90) -> None:
        self._w.schedule.after(lots.randrange(100 * MS, max_s * S), heal)

    def _note(self, what: str) -> None:
        self._w.schedule.note(f"fault {what}")

    def _some_edge(self, lots: Random) -> Edge:
        return lots.choice(self._w.edges)

    # --- wire

    def _loss(self, lots: Random) -> None:
        link = self._some_edge(lots).link
        link.loss = lots.choice((0.05, 0.3, 1.0))
        self._note(f"{link.name} loses {link.loss}")
        self._for_a_while(lots, lambda: setattr(link, "loss", 0.0))

    def _dup(self, lots: Random) -> None:
        link = self._some_edge(lots).link
        link.dup = 0.5
        self._for_a_while(lots, lambda: setattr(link, "dup", 0.0))

    def _delay(self, lots: Random) -> None:
        link = lots.choice(self._w.links)
        link.delay_us_max, link.late = lots.choice(((2 * S, 0.0), (100 * MS, 0.1), (8 * S, 0.0)))
        self._note(f"{link.name} is slow {link.delay_us_max} {link.late}")

        def heal() -> None:
            link.delay_us_max, link.late = 20 * MS, 0.0

        self._for_a_while(lots, heal)

    def _ack_loss(self, lots: Random) -> None:
        link = lots.choice(self._w.links)
        link.ack_loss = lots.choice((0.2, 0.8))
        self._note(f"{link.name} loses answers {link.ack_loss}")
        self._for_a_while(lots, lambda: setattr(link, "ack_loss", 0.0))

    def _cut(self, lots: Random) -> None:
        link = lots.choice([e.link for e in self._w.edges] * 2 + self._w.links)
        link.to_hub, link.from_hub = lots.choice(((False, False), (False, False), (True, False), (False, True)))
        self._note(f"{link.name} is cut {link.to_hub} {link.from_hub}")
        if lots.random() < 0.5:
            self._w.schedule.after(10 * S, lambda: self._told_lost(link))

        def heal() -> None:
            link.to_hub = link.from_hub = True
            self._note(f"{link.name} is whole")
            self._w.link_is_back(link)

        self._for_a_while(lots, heal, 300)

    def _told_lost(self, link: Link) -> None:
        """The hub saw the connection end, and the node did not answer since (cloud/hints.py)."""
        for edge in self._w.edges:
            if edge.link is link and not link.to_hub:
                for worker in self._w.reports:
                    worker.link_down(edge.name)

    # --- processes

    def _edge_crash(self, lots: Random) -> None:
        edge = self._some_edge(lots)
        if not edge.alive:
            return
        if lots.random() < 0.3:
            edge.crashed()
        else:
            edge.disk.crash_in = lots.randrange(1, 60)

    def _cloud_crash(self, lots: Random) -> None:
        some: list[Worker] = [*self._w.dispatchers, *self._w.reports, *self._w.servers, *self._w.controllers]
        worker = lots.choice([*some, *self._w.entrances])
        if not worker.running:
            return
        if lots.random() < 0.5:
            worker.crash_in = lots.randrange(1, 80)
            return
        worker.stop()
        self._for_a_while(lots, lambda: None if worker.running else worker.start(), 60)

    def _lag(self, lots: Random) -> None:
        some: list[Worker] = [*self._w.dispatchers, *self._w.dispatchers, *self._w.reports, *self._w.servers]
        worker = lots.choice([*some, *self._w.controllers])
        worker.lags_until_us = self._w.schedule.now_us + lots.randrange(30 * S)
        self._note(f"{worker.name} lags")

    def _failover(self, lots: Random) -> None:
        """kill -9 with an append in the kernel's hands: a connection may deliver it half a minute later."""
        working = [w for w in self._w.dispatchers if w.works]
        if not working or (worker := lots.choice(working)).paused or worker.link.held is not None:
            return
        held: list[Callable[[], None]] = []
        worker.link.held = held
        look_us = lots.randrange(50 * MS, 3 * S)

        def fail() -> None:
            if worker.link.held is not held or self.over:
                return
            worker.stop()
            self._note(f"failover with {len(held)} messages on the way")
            for arrive in held:
                self._w.schedule.after(lots.randrange(1 * S, LATE_US_MAX), arrive)
            if held:
                self._w.users.undo(lots)
            again_us = lots.randrange(10 * MS, 3 * S)
            self._w.schedule.after(again_us, lambda: None if worker.running else worker.start())

        self._w.schedule.after(look_us, fail)

    def _race(self, lots: Random) -> None:
        """A second worker of a kind, and pauses for both; in the end there is one again.  Where they have leases there are
        always two, and one sleeps while it leads."""
        pairs: list[list[DispatcherWorker] | list[ReportsWorker] | list[ControllersWorker]] = [
            self._w.dispatchers,
            self._w.dispatchers,
            self._w.reports,
            *([self._w.controllers] if self._w.controllers else ()),
        ]
        first, second = lots.choice(pairs)
        if not self._w.led and not second.running:
            second.start()
            self._for_a_while(lots, lambda: second.stop() if second.running else None, 400)
        self._nap(lots, lots.choice((first, second)))

    def _pause(self, lots: Random) -> None:
        self._nap(lots, lots.choice([*self._w.servers, *self._w.entrances]))

    def _nap(self, lots: Random, worker: Worker) -> None:
        """A pause is of use when there is something in its hands: soon after the next write of a user."""
        hold, asleep_us = lots.random() < 0.7, lots.randrange(100 * MS, 60 * S)

        def sleep() -> None:
            if worker.running and not worker.paused and not self.over:
                worker.pause(hold_out=hold)
                self._w.schedule.after(asleep_us, lambda: worker.resume() if worker.paused else None)

        self._w.schedule.after(lots.randrange(400 * MS), sleep)

    def _clocks(self, lots: Random) -> None:
        """NTP is lost, or comes back, or somebody sets the time: nothing that is decided may hang on it."""
        machines: list[tuple[str, Clock]] = [(e.ident, e.clock) for e in self._w.edges]
        workers: list[Worker] = [*self._w.servers, *self._w.dispatchers, *self._w.reports, *self._w.controllers]
        machines += [(w.name, w.clock) for w in workers]
        name, clock = lots.choice([*machines, ("hub", self._w.hub.clock), ("hub", self._w.hub.clock)])
        most = lots.choice((2 * S, 600 * S, CLOCK_OFF_S_MAX * S))
        clock.off_us = lots.randrange(-most, most)
        self._note(f"the clock of {name} is {clock.off_us / S:.0f} s off")

    # --- node

    def _disk_full(self, lots: Random) -> None:
        edge = self._some_edge(lots)
        edge.disk.full = True
        self._note(f"{edge.name} disk full")
        self._for_a_while(lots, lambda: setattr(edge.disk, "full", False), lots.choice((60, DEDUPE_US // S * 4)))

    def _disk_lost(self, lots: Random) -> None:
        """Sometimes the node comes back to a disk that is full at once: of logs, of images."""
        edge = self._some_edge(lots)
        edge.lose_disk()
        if lots.random() < 0.3:
            edge.disk.full = True
            self._for_a_while(lots, lambda: setattr(edge.disk, "full", False))

    def _torn(self, lots: Random) -> None:
        edge = self._some_edge(lots)
        if edge.alive:
            edge.disk.torn, edge.disk.crash_in = True, lots.randrange(1, 60)

    def _containers(self, lots: Random) -> None:
        edge = self._some_edge(lots)
        if not edge.engine.containers:
            return
        container_id = lots.choice(sorted(edge.engine.containers))
        if lots.random() < 0.7:
            edge.engine.exit(container_id, lots.choice((0, 1, 137)))
        else:
            edge.engine.vanish(container_id)

    def _engine(self, lots: Random) -> None:
        edge = self._some_edge(lots)
        edge.engine.stop(kill=lots.random() < 0.4)
        self._note(f"{edge.name} engine down")
        edge.engine_up(False)
        self._for_a_while(lots, lambda: edge.engine_up(True))

    def _engine_fails(self, lots: Random) -> None:
        engine = self._some_edge(lots).engine
        engine.fails = lots.choice((0.1, 0.5))
        self._for_a_while(lots, lambda: setattr(engine, "fails", 0.0))

    def _mapper(self, lots: Random) -> None:
        self._some_edge(lots).mapper.start()

    def _clone(self, lots: Random) -> None:
        """A copied disk image, or a thief who has the credentials alone."""
        edge = self._some_edge(lots)
        if any(c.name == edge.name for c in self._w.clones):
            return
        clone = self._w.clone(edge, with_store=lots.random() < 0.5)
        self._note(f"{edge.name} is cloned")
        self._for_a_while(lots, lambda: None if clone.gone else clone.switch_off(), 400)

    def _rejoin(self, lots: Random) -> None:
        """Its credentials are revoked, which cuts the link; in time it joins again, with another key."""
        edge = self._some_edge(lots)
        edge.link.to_hub = edge.link.from_hub = False
        self._note(f"{edge.name} is revoked")
        forget, empty = lots.random() < 0.5, lots.random() < 0.5

        def join() -> None:
            if self._joins.pop(edge.name, None) is None:
                return
            self._note(f"{edge.name} joins again")
            if empty:
                edge.lose_disk()
            else:
                edge.crashed()
            edge.link.to_hub = edge.link.from_hub = True

        self._joins[edge.name] = join
        if forget:  # and only then a new token is given out
            del self._joins[edge.name]
            self._w.delete_node(edge.name, lambda: self._deleted(edge.name, join))
        self._for_a_while(lots, join, 200)

    def _deleted(self, node: str, join: Callable[[], None]) -> None:
        self._joins[node] = join
        if self.over:
            join()

    # --- hub

    def _hub_down(self, lots: Random) -> None:
        self._w.hub.up = False
        self._note("hub down")

        def heal() -> None:
            if not self._w.hub.up:
                self._w.hub.up = True
                for edge in self._w.edges:
                    self._w.link_is_back(edge.link)

        self._for_a_while(lots, heal, 30)

    def _restore(self, lots: Random) -> None:
        if not self._w.hub.has_backup or lots.random() < 0.5:
            self._w.hub.backup([lots.randrange(800 * MS) for _ in range(4)])
            return
        self._w.hub.restore()

    def _compact(self, _: Random) -> None:
        self._w.hub.compact()
        self._w.compacted()

    def _old_claims(self, _: Random) -> None:
        if self._w.gate is not None:
            self._w.gate.old_claims()

    def _sync_busy(self, lots: Random) -> None:
        self._w.sync_up(False)
        self._for_a_while(lots, lambda: self._w.sync_up(True), 40)
