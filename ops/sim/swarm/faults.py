"""What goes wrong: each run enables a random subset of kinds (swarm testing), and each fault heals by itself in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ops.sim.swarm.dispatching import DispatcherWorker
from ops.sim.swarm.edge import Edge
from ops.sim.swarm.hub import Hub
from ops.sim.swarm.reporting import ReportsWorker
from ops.sim.swarm.schedule import MS, S, Schedule
from ops.sim.swarm.wire import LATE_US_MAX, Link
from ops.sim.swarm.workload import Users

KINDS = (
    "loss",  # live messages lost
    "dup",  # live messages twice
    "delay",  # slow links, and single messages that are very late
    "ack-loss",  # requests that were done and never answered
    "cut",  # a link, both ways or one way
    "edge-crash",  # at any step of any transaction, or between two events
    "cloud-crash",  # dispatcher or reports worker
    "lag",  # a cloud worker reads CLUSTER late, and everything else in time
    "failover",  # a dispatcher dies; what it wrote last arrives when its successor has begun
    "race",  # two dispatchers; one of them paused with an append in its hands
    "disk-full",
    "disk-lost",  # the node comes back with an empty store
    "containers",  # a container exits, or is removed by somebody
    "engine",  # the container engine goes away, with or without its containers
    "hub-down",
    "restore",  # the hub comes back from an older backup, in a new epoch
    "sync-busy",
)


class World(Protocol):
    schedule: Schedule
    hub: Hub
    edges: list[Edge]
    dispatchers: list[DispatcherWorker]
    reports: ReportsWorker
    users: Users

    @property
    def links(self) -> list[Link]: ...

    def sync_up(self, up: bool) -> None: ...


class Faults:
    def __init__(self, world: World, kinds: frozenset[str]) -> None:
        self._w = world
        self._lots = world.schedule.lots("faults")
        self.kinds = sorted(kinds)
        self.done: dict[str, int] = {}
        self.over = False  # healed: what was planned before then doesn't happen any more

    def act(self) -> None:
        if not self.kinds:
            return
        kind = self._lots.choice(self.kinds)
        self.done[kind] = self.done.get(kind, 0) + 1
        handler: Callable[[], None] = getattr(self, "_" + kind.replace("-", "_"))
        handler()

    def _for_a_while(self, heal: Callable[[], None], max_s: int = 90) -> None:
        self._w.schedule.after(self._lots.randrange(100 * MS, max_s * S), heal)

    def _note(self, what: str) -> None:
        self._w.schedule.note(f"fault {what}")

    def _some_edge(self) -> Edge:
        return self._lots.choice(self._w.edges)

    # --- wire

    def _loss(self) -> None:
        link = self._some_edge().link
        link.loss = self._lots.choice((0.05, 0.3, 1.0))
        self._note(f"{link.name} loses {link.loss}")
        self._for_a_while(lambda: setattr(link, "loss", 0.0))

    def _dup(self) -> None:
        link = self._some_edge().link
        link.dup = 0.5
        self._for_a_while(lambda: setattr(link, "dup", 0.0))

    def _delay(self) -> None:
        link = self._lots.choice(self._w.links)
        link.delay_us_max, link.late = self._lots.choice(((2 * S, 0.0), (100 * MS, 0.1), (8 * S, 0.0)))
        self._note(f"{link.name} is slow {link.delay_us_max} {link.late}")

        def heal() -> None:
            link.delay_us_max, link.late = 20 * MS, 0.0

        self._for_a_while(heal)

    def _ack_loss(self) -> None:
        link = self._lots.choice(self._w.links)
        link.ack_loss = self._lots.choice((0.2, 0.8))
        self._note(f"{link.name} loses answers {link.ack_loss}")
        self._for_a_while(lambda: setattr(link, "ack_loss", 0.0))

    def _cut(self) -> None:
        link = self._lots.choice([e.link for e in self._w.edges] * 2 + self._w.links)
        link.to_hub, link.from_hub = self._lots.choice(((False, False), (False, False), (True, False), (False, True)))
        self._note(f"{link.name} is cut {link.to_hub} {link.from_hub}")

        def heal() -> None:
            link.to_hub = link.from_hub = True
            self._note(f"{link.name} is whole")

        self._for_a_while(heal, 300)

    # --- processes

    def _edge_crash(self) -> None:
        edge = self._some_edge()
        if not edge.alive:
            return
        if self._lots.random() < 0.3:
            edge.crashed()
        else:
            edge.disk.crash_in = self._lots.randrange(1, 30)

    def _cloud_crash(self) -> None:
        worker = self._lots.choice([*self._w.dispatchers, self._w.reports])
        if not worker.running:
            return
        worker.stop()
        self._for_a_while(lambda: None if worker.running else worker.start(), 60)

    def _lag(self) -> None:
        worker = self._lots.choice([*self._w.dispatchers, *self._w.dispatchers, self._w.reports])
        worker.lags_until_us = self._w.schedule.now_us + self._lots.randrange(30 * S)
        self._note(f"{worker.name} lags")

    def _failover(self) -> None:
        """kill -9 with an append in the kernel's hands: a connection may deliver it half a minute later."""
        worker = self._w.dispatchers[0]
        if not worker.running or worker.paused or worker.link.held is not None:
            return
        held: list[Callable[[], None]] = []
        worker.link.held = held
        look_us = self._lots.randrange(50 * MS, 3 * S)

        def fail() -> None:
            if worker.link.held is not held or self.over:
                return
            worker.stop()
            self._note(f"failover with {len(held)} messages on the way")
            for arrive in held:
                self._w.schedule.after(self._lots.randrange(1 * S, LATE_US_MAX), arrive)
            if held:
                self._w.users.undo()
            again_us = self._lots.randrange(10 * MS, 3 * S)
            self._w.schedule.after(again_us, lambda: None if worker.running else worker.start())

        self._w.schedule.after(look_us, fail)

    def _race(self) -> None:
        """A second dispatcher, and pauses for both; in the end there is one again."""
        first, second = self._w.dispatchers
        if not second.running:
            second.start()
            self._for_a_while(lambda: second.stop() if second.running else None, 400)
        sleeper = self._lots.choice((first, second))
        if sleeper.running and not sleeper.paused:
            hold = self._lots.random() < 0.7
            # A pause is of use when there is something in its hands: soon after the next write of a user.
            self._w.schedule.after(self._lots.randrange(400 * MS), lambda: self._pause(sleeper, hold))

    def _pause(self, worker: DispatcherWorker, hold: bool) -> None:
        if worker.running and not worker.paused and not self.over:
            worker.pause(hold_out=hold)
            self._for_a_while(lambda: worker.resume() if worker.paused else None, 60)

    # --- node

    def _disk_full(self) -> None:
        edge = self._some_edge()
        edge.disk.full = True
        self._note(f"{edge.name} disk full")
        self._for_a_while(lambda: setattr(edge.disk, "full", False))

    def _disk_lost(self) -> None:
        """Sometimes the node comes back to a disk that is full at once: of logs, of images."""
        edge = self._some_edge()
        edge.lose_disk()
        if self._lots.random() < 0.3:
            edge.disk.full = True
            self._for_a_while(lambda: setattr(edge.disk, "full", False))

    def _containers(self) -> None:
        edge = self._some_edge()
        if not edge.engine.containers:
            return
        container_id = self._lots.choice(sorted(edge.engine.containers))
        if self._lots.random() < 0.7:
            edge.engine.exit(container_id, self._lots.choice((0, 1, 137)))
        else:
            edge.engine.vanish(container_id)

    def _engine(self) -> None:
        edge = self._some_edge()
        edge.engine.stop(kill=self._lots.random() < 0.4)
        self._note(f"{edge.name} engine down")
        edge.engine_up(False)
        self._for_a_while(lambda: edge.engine_up(True))

    # --- hub

    def _hub_down(self) -> None:
        self._w.hub.up = False
        self._note("hub down")

        def heal() -> None:
            self._w.hub.up = True

        self._for_a_while(heal, 30)

    def _restore(self) -> None:
        if not self._w.hub.has_backup or self._lots.random() < 0.5:
            self._w.hub.backup()
            return
        self._w.hub.restore()

    def _sync_busy(self) -> None:
        self._w.sync_up(False)
        self._for_a_while(lambda: self._w.sync_up(True), 40)
