"""One edge node: disk and engine, which survive, and a daemon, which doesn't: replica, outbox, pods, link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bus import fold, link, log, outbox, replica_core, replica_write
from cloud.core.dispatcher import Dispatcher
from edge.core.pods import PodsCore
from edge.core.settings import NodeFacts, PodSettings
from edge.state import Report
from ops.sim.swarm.catching_up import SyncService
from ops.sim.swarm.disk import Disk
from ops.sim.swarm.engine import Engine
from ops.sim.swarm.hub import Hub
from ops.sim.swarm.replicating import ANSWER_TIMEOUT_US, ReplicaRim, Writer, write_group
from ops.sim.swarm.running_pods import PodsRim
from ops.sim.swarm.saying import OutboxRim, SimNodeState
from ops.sim.swarm.schedule import MS, S, Schedule
from ops.sim.swarm.wire import Link, Wire
from schemas import codec, event, reports, subjects, sync

DEVICES = "devices.kubeedge.io"
OUTBOX_EVENTS_MAX = 60  # far below production's, so that long cuts compact
BEAT_TIMEOUT_US = int(link.ANSWER_TIMEOUT_S * S)


@dataclass(frozen=True)
class Parts:
    """What is simulated; a mutant replaces one of them."""

    dispatcher: Callable[[int], Dispatcher] = Dispatcher
    replica: Callable[[dict[str, fold.Cursor]], replica_core.ReplicaCore] = replica_core.ReplicaCore
    write: Writer = write_group
    outbox: type[outbox.Outbox] = outbox.Outbox
    pods: Callable[[PodSettings, NodeFacts], PodsCore] = PodsCore
    fenced: bool = True


class Edge:
    def __init__(
        self,
        name: str,
        schedule: Schedule,
        hub: Hub,
        wire: Wire,
        service: SyncService,
        parts: Parts,
        beat_seen: Callable[[str], None],
        committed: Callable[[Edge], None],
        refused: Callable[[Edge, str, event.Event], None],
        lost: Callable[[Edge], None],
    ) -> None:
        self.name, self.schedule, self._hub, self._wire, self._service = name, schedule, hub, wire, service
        self._parts, self._beat_seen, self._lost = parts, beat_seen, lost
        self.lots = schedule.lots(name)
        self.shards = hub.shards
        self.link = Link(name)
        self.scopes = [name, "all"]
        self._refused = refused
        self.disk = Disk(self.crashed, lambda: committed(self))
        self.engine = Engine(schedule, schedule.lots(f"{name}/engine"), self._hinted)
        self.alive = False
        self.boots = 0

    # --- life

    def boot(self) -> None:
        self.boots += 1
        self.alive = True
        self._failures = 0
        self._link_state = "unknown"
        self.schedule.note(f"{self.name} boots ({self.boots})")
        box = self._parts.outbox(self.disk, events_max=OUTBOX_EVENTS_MAX)
        self.outbox = OutboxRim(self, box)
        self.state = SimNodeState(self, self.name, self._hub.shards, self.disk, self.outbox, f"boot-{self.boots}")
        self.replica = ReplicaRim(self, self.disk, self.scopes, self._parts.replica, self._parts.write)
        self.pods = PodsRim(self, self.name, self._parts.pods)
        for scope in self.scopes:
            for _, value in self.disk.items("objects", fold.scope_prefix(scope)):
                seq, payload = fold.split_value(value)
                ev = codec.decode_event(payload)
                self.pods.applied(fold.Fact(scope, ev.key, seq, payload, ev), loaded=True)
        if self.replica.complete:
            self.pods.complete()
        if self.engine.up:
            self.pods.runtime(True)
        self._say_node()
        self._say_devices()
        self._beat()

    def refused(self, subject: str, ev: event.Event) -> None:
        """The disk is full as a report is made: it may never be stored."""
        self._refused(self, subject, ev)

    def crashed(self) -> None:
        """kill -9: memory is gone, the disk is as the last commit left it, the engine doesn't care."""
        if not self.alive:
            return
        self.schedule.note(f"{self.name} crashes")
        self.alive = False
        self.boots += 1
        self.outbox.crash()
        self.disk.crash_in = None
        self.schedule.after(self.lots.randrange(100 * MS, 20 * S), self._restart)

    def _restart(self) -> None:
        if not self.alive:
            self.boot()

    def mine(self, run: Callable[[], None]) -> Callable[[], None]:
        """``run`` only in this life of the daemon."""
        boots = self.boots
        return lambda: run() if boots == self.boots and self.alive else None

    def lose_disk(self) -> None:
        """The daemon dies, and comes back with an empty store."""
        self.crashed()
        self.disk.replace()
        self._lost(self)
        self.schedule.note(f"{self.name} lost its store")

    # --- wire

    def live(self, record: log.Recorded) -> None:
        """META republishes; the subscription is the daemon's, so one that is dead gets nothing."""
        if not self.alive:
            return
        _, scope, key = subjects.parse_meta(record.subject)
        if scope in self.scopes:
            stimulus = replica_core.Live(scope, key, record.seq, record.payload)
            self._wire.publish(self.link, self.mine(lambda: self.replica.put(stimulus)))

    def ask_sync(self, request: sync.SyncRequest, done: Callable[[sync.SyncAnswer | log.LogError], None]) -> None:
        guarded = self._guard(done)
        self._wire.request(self.link, lambda: self._service.answer(self.name, request), guarded, ANSWER_TIMEOUT_US)

    def append(self, subject: str, payload: bytes, msg_id: str, done: Callable[[int | log.LogError], None]) -> None:
        self._wire.request(self.link, lambda: self._hub.append(subject, payload, msg_id), self._guard(done))

    def _guard(self, done: Callable[..., None]) -> Callable[..., None]:
        boots = self.boots
        return lambda answer: done(answer) if boots == self.boots and self.alive else None

    # --- link: as bus/link.py

    def _beat(self) -> None:
        def served() -> bool:
            self._beat_seen(self.name)
            return True

        def done(answer: bool | log.LogError) -> None:
            ok = answer is True
            self._failures = 0 if ok else self._failures + 1
            if ok and self._link_state != "up":
                self._link_state = "up"
                self.replica.put(replica_core.Connected())
                self.outbox.link_up()
            lost = self._failures >= link.FAILURES_MAX or (not ok and self._link_state == "unknown")
            if lost and self._link_state != "down":
                self._link_state = "down"
                self.replica.put(replica_core.Disconnected())
            wait_s = link.BEAT_S if ok else link.RETRY_S
            self.schedule.after(int(wait_s * S * self.lots.uniform(0.9, 1.1)), self.mine(self._beat))

        self._wire.request(self.link, served, self._guard(done), BEAT_TIMEOUT_US)

    def reconnected(self) -> None:
        """The hub's server was started anew: every connection was broken, which nobody can miss."""
        if self.alive and self._link_state == "up":
            self.replica.put(replica_core.Disconnected())
            self._link_state = "down"

    # --- what the replica tells

    def changed(self, applied: list[replica_write.Applied]) -> None:
        for a in applied:
            self.pods.applied(a.fact)
        if any(a.fact.key.group == DEVICES for a in applied):
            self._say_devices()

    def synced(self) -> None:
        if self.replica.complete:
            self.pods.complete()

    def was_reset(self, scope: str, before: fold.Cursor, now: fold.Cursor) -> None:
        """A log of another epoch may lack what was said: say it again."""
        self.schedule.note(f"{self.name} reset {scope} from {before} to {now}")
        if before.epoch not in ("", now.epoch):
            self.pods.report_all()
            self._say_node()
            self._say_devices()

    # --- what is said

    def say(self, said: list[Report]) -> None:
        self.state.commit({}, said)

    def _say_node(self) -> None:
        status = {"nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"}, "capacity": {"cpu": "4"}}
        report = reports.NodeReport(
            status=status,
            ready=self.engine.up,
            reason="" if self.engine.up else "ContainerRuntimeDown",
            boot=self.state.boot,
        )
        self.say([Report("node", "", "", report)])

    def _say_devices(self) -> None:
        """A stand-in for the twins core: every device has its desired values a moment later."""
        for _, value in list(self.disk.items("objects", fold.scope_prefix(self.name))):
            ev = codec.decode_event(fold.split_value(value)[1])
            if (ev.group, ev.resource) == (DEVICES, "devices") and ev.data is not None:
                key = f"twin/{ev.namespace}/{ev.name}".encode()
                wanted = str(ev.data["spec"].get("setting"))
                told = f"{ev.uid}={wanted}@{self.boots}/{self._hub.epoch}".encode()
                if self.disk.get("state", key) != told:
                    twin = reports.TwinValue(property="setting", value=wanted, desired=wanted, time=self.schedule.now_us)
                    report = reports.TwinReport(uid=ev.uid, state="online", twins=[twin])
                    self.state.commit({key: told}, [Report("twin", ev.namespace, ev.name, report, ev.id, ev.trace)])

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
