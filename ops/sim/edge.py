"""One edge node: disk and engine, which survive, and a daemon, which doesn't: replica, outbox, pods, twins, link.

Two of them may have one name: then one is a clone (``ident`` tells them apart here, nobody else can).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bus import fold, link, log, outbox, replica_core, replica_write
from bus.stores import base
from cloud.core.dispatcher import Dispatcher
from cloud.core.reports import Reports
from edge import daemon, told
from edge.core.pods import PodsCore
from edge.core.settings import NodeFacts, PodSettings
from edge.state import Report
from ops.sim import controlling, gate, leading
from ops.sim.api import WorkersStorage
from ops.sim.catching_up import SyncService
from ops.sim.devices import Mapper, SimTwins
from ops.sim.disk import Disk
from ops.sim.engine import Engine
from ops.sim.hub import Hub
from ops.sim.replicating import ANSWER_TIMEOUT_US, ReplicaRim, Writer, write_group
from ops.sim.running_pods import PodsRim
from ops.sim.saying import OutboxRim, SimNodeState
from ops.sim.schedule import MS, Clock, S, Schedule, Timer
from ops.sim.wire import Link, Wire
from schemas import codec, event, reports, subjects, sync

DEVICES = "devices.kubeedge.io"
OUTBOX_EVENTS_MAX = 60  # far below production's, so that long cuts compact
BEAT_TIMEOUT_US = int(link.ANSWER_TIMEOUT_S * S)


@dataclass(frozen=True)
class Parts:
    """What is simulated; a mutant replaces one of them."""

    dispatcher: Callable[[int, frozenset[int]], Dispatcher] = Dispatcher
    replica: Callable[[dict[str, fold.Cursor]], replica_core.ReplicaCore] = replica_core.ReplicaCore
    write: Writer = write_group
    outbox: type[outbox.Outbox] = outbox.Outbox
    state: type[SimNodeState] = SimNodeState
    pods: Callable[[PodSettings, NodeFacts], PodsCore] = PodsCore
    twins: type[SimTwins] = SimTwins
    reports: Callable[[], Reports] = Reports
    storage: type[WorkersStorage] = WorkersStorage
    hub: type[Hub] = Hub
    lease: leading.MakeLease = leading.make_lease
    controllers: controlling.Made = field(default_factory=controlling.Made)
    gated: gate.Gated = field(default_factory=gate.Gated)
    fenced: bool = True
    plain: bool = False  # neither controllers nor a gate in any world


@dataclass(frozen=True)
class Watching:
    """Who is told what an edge does: the checkers, and the cloud's half of a beat."""

    beat: Callable[[Edge], bytes | None]
    committed: Callable[[Edge], None]
    refused: Callable[[Edge, str, event.Event], None]
    crashed: Callable[[Edge], None]
    disk_lost: Callable[[Edge], None]
    told: Callable[[Edge, fold.Fact], None]


class Edge:
    def __init__(
        self,
        name: str,
        schedule: Schedule,
        hub: Hub,
        wire: Wire,
        service: SyncService,
        parts: Parts,
        watching: Watching,
        *,
        ident: str = "",
    ) -> None:
        self.name, self.schedule, self._hub, self._wire, self._service = name, schedule, hub, wire, service
        self.ident = ident or name
        self.machine = f"boot of {self.ident}!"  # the kernel's boot id: of the machine, whichever daemon runs on it
        self._parts, self._watching = parts, watching
        self.lots = schedule.lots(self.ident)
        self.shards = hub.shards
        self.link = Link(self.ident)
        self.scopes = [name, "all"]
        self.clock = Clock(schedule)
        self.disk = Disk(self.crashed, lambda: watching.committed(self))
        self.engine = Engine(schedule, schedule.lots(f"{self.ident}/engine"), self._hinted)
        self.engine.clock = self.clock
        self.mapper = Mapper(schedule, schedule.lots(f"{self.ident}/mapper"), self.clock)
        self.alive = False
        self.gone = False  # switched off for good
        self.boots = 0

    # --- life

    def boot(self) -> None:
        if self.gone:
            return
        self.boots += 1
        self.alive = True
        self._failures = 0
        self._link_state = "unknown"
        self._renewed = self._asking = self._nudged = False
        self._beat_timer: Timer | None = None
        self.fenced = False
        self.run = f"{self.ident}/{self.boots}"
        self.schedule.note(f"{self.ident} boots ({self.boots})")
        self._open()
        box = self._parts.outbox(self.disk, events_max=OUTBOX_EVENTS_MAX)
        self.outbox = OutboxRim(self, box)
        self.state = self._parts.state(self, self.name, self._hub.shards, self.disk, self.outbox, self.machine)
        self.replica = ReplicaRim(self, self.disk, self.scopes, self._parts.replica, self._parts.write)
        self.pods = PodsRim(self, self.name, self._parts.pods)
        self.twins = self._parts.twins(self, self.name)
        for scope in self.scopes:
            for _, value in list(self.disk.items("objects", fold.scope_prefix(scope))):
                seq, payload = fold.split_value(value)
                ev = codec.decode_event(payload)
                self._give(fold.Fact(scope, ev.key, seq, payload, ev), loaded=True)
        self.twins.objects_loaded()
        self.mapper.daemon = self.twins
        if self.replica.complete:
            self.pods.complete()
        if self.engine.up:
            self.pods.runtime(True)
        self._say_node()
        self._beat()

    def _open(self) -> None:
        """As the daemon's open_store: what can't be read is set aside."""
        if self.disk.torn:
            self.disk.tear(self.lots)
        try:
            daemon.read_all(self.disk)
        except base.StoreCorrupt as e:
            self.schedule.note(f"{self.ident} sets its store aside: {e}")
            self.disk.replace()
            self._watching.disk_lost(self)

    def step(self) -> None:
        self.disk.step()

    def refused(self, subject: str, ev: event.Event) -> None:
        """The disk is full as a report is made: it is held in memory until it can be stored or was sent."""
        self._watching.refused(self, subject, ev)

    def crashed(self) -> None:
        """kill -9: memory is gone, the disk is as the last commit left it, the engine doesn't care."""
        if not self.alive:
            return
        self._end("crashes")
        self.schedule.after(self.lots.randrange(100 * MS, 20 * S), self._restart)

    def _end(self, how: str) -> None:
        self.schedule.note(f"{self.ident} {how}")
        self.alive = False
        self.boots += 1
        self.mapper.daemon = None
        self.outbox.crash()
        self.disk.crash_in = None
        self._watching.crashed(self)

    def _restart(self) -> None:
        if not self.alive:
            self.boot()

    def switch_off(self) -> None:
        """For good: what it had to say is never said."""
        self.gone = True
        if self.alive:
            self._end("is switched off")
        self.disk.replace()
        self._watching.disk_lost(self)

    def mine(self, run: Callable[[], None]) -> Callable[[], None]:
        """``run`` only in this life of the daemon."""
        boots = self.boots
        return lambda: run() if boots == self.boots and self.alive else None

    def lose_disk(self) -> None:
        """The daemon dies, and comes back with an empty store."""
        self.crashed()
        self.disk.replace()
        self._watching.disk_lost(self)
        self.schedule.note(f"{self.ident} lost its store")

    # --- wire

    def live(self, record: log.Recorded) -> None:
        """META republishes; the subscription is the daemon's, so one that is dead gets nothing."""
        if not self.alive:
            return
        _, scope, key = subjects.parse_meta(record.subject)
        if scope in self.scopes:
            epoch = (record.headers or {}).get(log.EPOCH_HEADER, "")
            stimulus = replica_core.Live(scope, key, record.seq, record.payload, epoch)
            self._wire.publish(self.link, self.mine(lambda: self.replica.put(stimulus)))

    def ask_sync(self, request: sync.SyncRequest, done: Callable[[sync.SyncAnswer | log.LogError], None]) -> None:
        guarded = self._guard(done)
        self._wire.request(self.link, lambda: self._service.answer(self.name, request), guarded, ANSWER_TIMEOUT_US)

    def append(self, subject: str, payload: bytes, msg_id: str, done: Callable[[int | log.LogError], None]) -> None:
        self._wire.request(self.link, lambda: self._hub.append(subject, payload, msg_id), self._guard(done))

    def append_run(
        self, subject: str, run: Sequence[tuple[bytes, str]], done: Callable[[log.LogError | None], None]
    ) -> None:
        serve, timeout_us = partial(self._hub.append_run, subject, run), int(log.RUN_TIMEOUT_S * S)
        self._wire.request(self.link, serve, self._guard(done), timeout_us)

    def _guard(self, done: Callable[..., None]) -> Callable[..., None]:
        boots = self.boots
        return lambda answer: done(answer) if boots == self.boots and self.alive else None

    # --- link: as bus/link.py

    def nudge(self, renewed: bool = False) -> None:
        """The cloud asks for a beat, or the connection was made anew (``renewed``)."""
        if not self.alive:
            return
        self._renewed = self._renewed or renewed
        self._nudged = True
        if not self._asking:
            self._beat()

    def asked(self, renewed: bool) -> None:
        """The cloud's question for a beat, if it arrives."""
        self._wire.publish(self.link, self.mine(lambda: self.nudge(renewed)))

    def _beat(self) -> None:
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._asking, self._nudged = True, False

        def served() -> bytes:
            answer = self._watching.beat(self)
            if answer is None:
                raise log.LogUnavailable("nobody is loaded")
            return answer

        def done(answer: bytes | log.LogError) -> None:
            self._asking = False
            self._answered(answer)
            wait_s = link.BEAT_S if self._failures == 0 or self.fenced else link.RETRY_S_MAX
            if self._nudged:
                wait_s = 0.01
            self._beat_timer = self.schedule.after(int(wait_s * S * self.lots.uniform(0.9, 1.1)), self.mine(self._beat))

        self._wire.request(self.link, served, self._guard(done), BEAT_TIMEOUT_US)

    def _answered(self, answer: bytes | log.LogError) -> None:
        if not isinstance(answer, log.LogError):
            self.fenced = answer == reports.FENCED
            if not self.fenced:
                self._failures = 0
                if self._link_state != "up" or self._renewed:
                    self._link_state, self._renewed = "up", False
                    self.replica.put(replica_core.Connected())
                    self.outbox.link_up()
                self._marked(answer)
                return
        self._failures += 1
        if self._link_state != "down" and (self._failures >= link.FAILURES_MAX or self._link_state == "unknown"):
            self._link_state = "down"
            self.replica.put(replica_core.Disconnected())

    # --- what the replica tells: as edge/daemon.py

    def _give(self, fact: fold.Fact, *, loaded: bool) -> None:
        self._watching.told(self, fact)
        if fact.event is None:
            return
        if fact.key.group == DEVICES:
            self.twins.object_applied(fact.event, fact.seq)
        else:
            self.pods.applied(fact, loaded=loaded)

    def changed(self, applied: list[replica_write.Applied]) -> None:
        for a in applied:
            self._give(a.fact, loaded=False)

    def devices_changed(self) -> None:
        self.mapper.changed()

    def synced(self) -> None:
        if self.replica.complete:
            self.pods.complete()
        self._told_to()

    def _mark(self) -> bytes:
        return sync.epochs_mark([self.replica.core.cursor(s).epoch for s in self.scopes])

    def _marked(self, mark: bytes) -> None:
        if mark.startswith(reports.AGAIN):
            mark = mark.removeprefix(reports.AGAIN)
            self._say_all()
        if self.replica.core.synced and mark and mark != self._mark():
            self.replica.put(replica_core.Connected())
        else:
            self._told_to()

    def _told_to(self) -> None:
        if self.replica.core.synced:
            told.told_to(self.state, self._mark(), lambda _: self._say_all())

    def _say_all(self) -> None:
        self.schedule.note(f"{self.ident} says everything again")
        self.pods.report_all()
        self.twins.report_all()
        self._say_node()

    # --- what is said

    def say(self, said: list[Report]) -> None:
        self.state.commit({}, said)

    def _say_node(self) -> None:
        status = {"nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"}, "capacity": {"cpu": "4", "pods": "110"}}
        report = reports.NodeReport(
            status=status,
            ready=self.engine.up,
            reason="" if self.engine.up else "ContainerRuntimeDown",
            boot=self.state.boot,
        )
        self.say([Report("node", "", "", report)])

    # --- engine

    def _hinted(self, pod_uid: str, container: str, container_id: str, action: str) -> None:
        if self.alive and self.lots.random() < 0.9:
            run = self.mine(lambda: self.pods.hint(pod_uid, container, container_id, action))
            self.schedule.after(self.lots.randrange(1, 50 * MS), run)

    def engine_up(self, up: bool) -> None:
        self.engine.up = up
        if self.alive:
            self.pods.runtime(up)
            self._say_node()
