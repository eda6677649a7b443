"""One run: a small fleet, a user who changes things, faults; then everything heals, and must come to rest as it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus import log
from ops.sim.api import Api
from ops.sim.checkers import Checkers
from ops.sim.cloud import DispatcherProcess, ReportsProcess, SyncModel
from ops.sim.edge import EdgeNode
from ops.sim.hub import Hub
from ops.sim.world import MS, Faults, S, SimulationError, World
from schemas import event

CHAOS_US = 180 * S
HEAL_US_MAX = 1800 * S  # the longest back-off (five minutes of a crash loop) fits several times
CONFIGS = ("c0", "c1", "c2", "s0", "s1")
PODS = 6


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is built of; tests put broken parts in, to see that it is noticed."""

    edge: Callable[..., EdgeNode] = EdgeNode
    dispatcher: Callable[..., DispatcherProcess] = DispatcherProcess
    reports: Callable[..., ReportsProcess] = ReportsProcess


@dataclass(frozen=True, slots=True)
class Summary:
    seed: int
    digest: str
    steps: int
    healed_s: float
    events: dict[str, int]
    commits: int
    reports: int
    crashes: int


class Simulation:
    def __init__(self, seed: int, parts: Parts = Parts(), *, faults: Faults | None = None) -> None:
        self.world = World(seed)
        if faults is not None:
            self.world.faults = faults
        rng = self.world.rng
        self.hub = Hub(self.world, shards=rng.randrange(1, 4))
        self.api = Api(self.hub, self.world)
        self.syncs = SyncModel(self.world, self.hub)
        self.dispatchers = [parts.dispatcher(self.world, f"dispatcher-{i}", self.hub) for i in range(2)]
        self.reports = [parts.reports(self.world, f"reports-{i}", self.hub, self.api) for i in range(rng.randrange(1, 3))]
        names = [f"edge-{i}" for i in range(rng.randrange(2, 6))]
        self.nodes = [parts.edge(self.world, n, self.hub, self.syncs, self.reports) for n in names]
        self.checkers = Checkers(self)
        self.hub.on_stored = self._stored
        for node in self.nodes:
            node.on_commit, node.on_report = self.checkers.replica_committed, self.checkers.report_kept
        self._user_active = True

    def run(self) -> Summary:
        """Raises SimulationError."""
        for p in (*self.dispatchers, *self.reports, *self.nodes):
            self.world.at(self.world.rng.randrange(5 * S), p.start)
        self.world.at(0, self._user)
        self.world.at(5 * S, self._fate)
        self.world.run(CHAOS_US)
        self._heal()
        began = self.world.now_us
        while why := self.checkers.not_yet():
            if self.world.now_us - began > HEAL_US_MAX:
                raise SimulationError(f"{HEAL_US_MAX // S} s after all faults ended: {why}")
            self.world.run(5 * S)
        self.checkers.finally_()
        return Summary(
            seed=self.world.seed,
            digest=self.world.digest,
            steps=self.world.steps,
            healed_s=(self.world.now_us - began) / S,
            events={n: len(s.journal) for n, s in self.hub.streams.items()},
            commits=self.checkers.commits,
            reports=sum(map(len, self.checkers.reported.values())),
            crashes=sum("is killed" in line for line in self.world.told),
        )

    # --- the network -----------------------------------------------------------------------------------------------

    def _stored(self, r: log.Recorded, ev: event.Event) -> None:
        if not r.stream.startswith("META"):
            return
        self.checkers.meta_stored(r, ev)
        w = self.world
        for node in self.nodes:
            if ev.scope in node.scopes and not node.cut and not w.chance(w.faults.lose):
                for _ in range(2 if w.chance(w.faults.double) else 1):
                    w.at(w.latency_us(), node.live, ev.scope, ev.key, r.seq, r.payload)

    # --- fate ------------------------------------------------------------------------------------------------------

    def _fate(self) -> None:
        """Links are cut and mended, containers die, daemons and workers are killed at some moment or other."""
        if not self._user_active:
            return
        rng = self.world.rng
        node = rng.choice(self.nodes)
        luck = rng.random()
        if luck < 0.4:
            node.cut = not node.cut
            self.world.note(node.name, "link is cut" if node.cut else "link is mended")
            if node.cut and rng.random() < 0.5:
                self.world.at(rng.randrange(10 * S), rng.choice(self.reports).link_down, node.name)
        elif luck < 0.7:
            node.container_dies()
        elif luck < 0.8:
            node.kill()
        elif luck < 0.9:
            rng.choice([*self.dispatchers, *self.reports]).kill()
        self.world.at(rng.randrange(1 * S, 10 * S), self._fate)

    def _heal(self) -> None:
        self.world.note("fate", "everything heals")
        self._user_active = False
        self.world.faults = Faults()
        for node in self.nodes:
            node.cut = False
        for name in CONFIGS:  # a pod that names a config map that nobody makes would wait for ever
            self._config(name)

    # --- the user --------------------------------------------------------------------------------------------------

    def _user(self) -> None:
        if not self._user_active:
            return
        rng = self.world.rng
        name = f"p{rng.randrange(PODS)}"
        luck = rng.random()
        if luck < 0.4:
            self._pod(name)
        elif luck < 0.5:
            self.api.delete("", "pods", name)
        elif luck < 0.55:
            self.api.delete("", "pods", name, grace_s=0)
        elif luck < 0.65:
            self.api.patch("", "pods", name, {"metadata": {"labels": {"step": str(self.world.steps)}}})
        elif luck < 0.9:
            self._config(rng.choice(CONFIGS))
        elif luck < 0.95:
            config = rng.choice(CONFIGS)
            self.api.delete("", "configmaps" if config[0] == "c" else "secrets", config)
        else:
            spec = {"ports": [{"port": 80}]}
            service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
            if not self.api.create("", "services", service):
                self.api.delete("", "services", "web")
        self.world.at(rng.randrange(50 * MS, 5 * S), self._user)

    def _pod(self, name: str) -> None:
        rng = self.world.rng
        uses = [f"{kind}{rng.randrange(2)}" for kind in ("c", "s") if rng.random() < 0.5]
        volumes: list[dict[str, Any]] = [
            {"name": u, "configMap": {"name": u}} if u[0] == "c" else {"name": u, "secret": {"secretName": u}} for u in uses
        ]
        mounts = [{"name": u, "mountPath": f"/{u}"} for u in uses]
        env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "v"}}}] if rng.random() < 0.3 else []
        containers = [
            {"name": f"k{i}", "image": "busybox", "volumeMounts": mounts, "env": env} for i in range(rng.randrange(1, 3))
        ]
        spec = {
            "nodeName": rng.choice(self.nodes).name,
            "containers": containers,
            "volumes": volumes,
            "terminationGracePeriodSeconds": 1,
        }
        self.api.create("", "pods", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def _config(self, name: str) -> None:
        value = f"{self.world.steps}"
        if name[0] == "c":
            resource, kind, data = "configmaps", "ConfigMap", {"v": value}
        else:
            resource, kind, data = "secrets", "Secret", {"v": ("QUJD" * 2)[: 4 * (1 + self.world.steps % 2)]}
        obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data}
        if not self.api.create("", resource, obj):
            self.api.patch("", resource, name, {"data": data})
