"""The pods core against a simulated engine with every fault at once, by seed: rules hold at every instant, and it heals.

The rules (world.Engine raises when one is broken): never two of one container, never two pods of one name, no healthy
container stopped unless a user gave a reason.  After the faults end, what is wanted runs, and nothing else is there.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edge.core.settings import PodSettings
from tests.unit.edge_core.world import Obj, S, World, config_map, pod

QUICK = PodSettings(crash_base_ms=1_000, crash_max_ms=4_000, orphan_grace_ms=20_000, resync_ms=60_000)
NAMES = ("a", "b", "c")
STEPS = 120


class Cluster:
    """What the API holds, and what of it the node's replica has got."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pods: dict[str, Obj] = {}
        self.maps: dict[str, Obj] = {}
        self.uids = 0
        self.synced = True
        self.withdrawn: set[str] = set()  # names that ended without the API waiting for the node

    def tell(self, resource: str, name: str, obj: Obj | None) -> None:
        if self.synced:
            self.world.apply(resource, name, copy.deepcopy(obj))

    def create(self, name: str) -> None:
        self.uids += 1
        main: Obj = {"name": "main", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
        self.pods[name] = pod(
            name,
            f"{name}{self.uids}",
            main,
            {"name": "side"},
            initContainers=[{"name": "init", "image": "app:1"}],
            volumes=[{"name": "v", "configMap": {"name": "m"}}],
            terminationGracePeriodSeconds=1,
        )
        self.tell("pods", name, self.pods[name])

    def delete(self, name: str) -> None:
        one = self.pods.get(name)
        if one is not None:
            one["metadata"] |= {"deletionTimestamp": "2026-11-23T00:00:00Z", "deletionGracePeriodSeconds": 1}
            self.tell("pods", name, one)

    def withdraw(self, name: str) -> None:
        one = self.pods.pop(name, None)
        if one is not None:
            self.withdrawn.add(name)
            self.tell("pods", name, None)

    def image(self, name: str, image: str) -> None:
        one = self.pods.get(name)
        if one is not None:
            one["spec"]["containers"][0]["image"] = image
            self.tell("pods", name, one)

    def map(self, value: str | None) -> None:
        if value is None:
            self.maps.pop("m", None)
        else:
            self.maps["m"] = config_map("m", value=value)
        self.tell("configmaps", "m", self.maps.get("m"))

    def load(self) -> None:
        """A restarted daemon reads its replica."""
        for name, one in self.maps.items():
            self.world.apply("configmaps", name, copy.deepcopy(one), loaded=True)
        for name, one in self.pods.items():
            self.world.apply("pods", name, copy.deepcopy(one), loaded=True)

    def finish_deletions(self) -> None:
        """As the API does when a node reports that a deleted pod is gone."""
        for name, one in list(self.pods.items()):
            uid = one["metadata"]["uid"]
            gone = any(r.report.uid == uid and r.report.status is None for r in self.world.report_log)
            if gone and "deletionTimestamp" in one["metadata"]:
                del self.pods[name]
                self.tell("pods", name, None)


def one_fault(world: World, cluster: Cluster) -> None:
    r, e = world.random, world.engine
    running = [c.id for c in e.containers.values() if c.state == "running"]
    match r.randrange(20):
        case 0 | 1 | 2:
            cluster.create(r.choice(NAMES))
        case 3:
            cluster.delete(r.choice(NAMES))
        case 4:
            cluster.withdraw(r.choice(NAMES))
        case 5:
            cluster.image(r.choice(NAMES), r.choice(("app:1", "app:2")))
        case 6:
            cluster.map(r.choice((None, "x", "y", "z")))
        case 7 | 8 if running:
            world.exit(r.choice(running), r.choice((0, 1, 137)))
        case 9 if running:
            world.remove(r.choice(running))
        case 10 | 11:
            restart(world, cluster, lost=r.random() < 0.3)
        case 12:
            world.down()
        case 13 | 14:
            world.up()
        case 15:
            kind = r.choice(
                ("RunContainer", "EnsureSandbox", "StopContainer", "RemoveContainer", "TakeSnapshot", "WriteVolumes")
            )
            world.fail[kind] += r.randrange(1, 3)
        case 16:
            world.now_us += r.choice((-3600, 86_400)) * S  # the wall clock jumps
        case _:
            pass
    world.run(r.choice((0.0, 0.001, 0.01, 0.3, 2.0, 15.0)))
    cluster.finish_deletions()


def restart(world: World, cluster: Cluster, lost: bool) -> None:
    """The daemon dies and starts again, with its replica or with an empty one that fills up later."""
    world.crash()
    cluster.synced = False
    if not lost:
        cluster.load()
    world.up()
    world.run(world.random.choice((0.0, 0.5, 30.0)))
    cluster.load()
    cluster.synced = True
    world.complete()


def heal(world: World, cluster: Cluster) -> None:
    world.fail.clear()
    world.lose_events = 0.0
    cluster.map("final")
    world.up()
    world.complete()
    for _ in range(6):
        world.run(120)
        cluster.finish_deletions()


def check_converged(world: World, cluster: Cluster) -> None:
    wanted = {p["metadata"]["uid"]: p for p in cluster.pods.values()}
    for c in world.engine.containers.values():
        assert c.pod_uid in wanted, f"left over: {c}"
    assert set(world.engine.volumes) == set(wanted)
    for uid, one in wanted.items():
        name = one["metadata"]["name"]
        assert len(world.engine.running("", uid)) == 1, f"{name}: one sandbox"
        for spec in one["spec"]["containers"]:
            running = world.engine.running(spec["name"], uid)
            assert len(running) == 1, f"{name}/{spec['name']}: {running}"
            assert running[0].image == spec["image"]
            assert running[0].sandbox == world.engine.running("", uid)[0].id
        assert world.engine.volumes[uid] == {"v/value": b"final"}
        assert world.ready(name), world.reports[("default", name)]
        told = {c["name"]: c.get("containerID") for c in world.status(name)["containerStatuses"]}
        for spec in one["spec"]["containers"]:
            assert told[spec["name"]] == f"docker://{world.engine.running(spec['name'], uid)[0].id}"
    for (_, name), status in world.reports.items():
        # A daemon that dies with a withdrawal in its hands forgets to say so; nobody waits for it, the API has no such pod
        assert status is None or name in cluster.pods or name in cluster.withdrawn


@pytest.mark.parametrize("seed", range(60))
def test_rules_hold_and_it_heals(seed: int) -> None:
    world = World(QUICK, seed)
    world.latency_us = lambda: world.random.choice((100, 1000, 50_000, 2 * S))
    world.lose_events = 0.3
    world.exit_codes["init"] = 0
    cluster = Cluster(world)
    world.up()
    cluster.map("x")
    world.complete()
    for _ in range(STEPS):
        one_fault(world, cluster)
    heal(world, cluster)
    check_converged(world, cluster)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_healthy_is_stopped_by_restarts_losses_and_cuts(seed: int) -> None:
    """No user action and no crash at all: whatever else goes wrong, every container of the beginning is there at the end."""
    world = World(QUICK, seed)
    world.exit_codes["init"] = 0
    cluster = Cluster(world)
    world.up()
    cluster.map("x")
    for name in NAMES:
        cluster.create(name)
    world.complete()
    world.run(60)
    assert all(world.ready(n) for n in NAMES)
    before = {c.id for c in world.engine.containers.values() if c.state == "running"}
    world.latency_us = lambda: world.random.choice((100, 1000, 50_000, 2 * S))
    world.lose_events = 0.5
    r = world.random
    for _ in range(60):
        match r.randrange(6):
            case 0:
                restart(world, cluster, lost=False)
            case 1:
                restart(world, cluster, lost=True)
            case 2:
                world.down()
            case 3:
                world.up()
            case 4:
                world.fail[r.choice(("TakeSnapshot", "WriteVolumes", "Inspect"))] += 1
            case 5:
                cluster.map(r.choice(("x", "y", None)))
        world.run(r.choice((0.0, 0.01, 1.0, 30.0)))
    heal(world, cluster)
    assert {c.id for c in world.engine.containers.values() if c.state == "running"} == before
    assert world.stopped == []
    check_converged(world, cluster)


def test_the_judge_is_awake() -> None:
    """A core that forgets what it asked for makes two of one: the engine of this test must object."""
    world = World()
    world.up()
    world.apply_pod(pod("p", "u1"))
    world.run(5)
    [running] = world.engine.running("main")
    identity: Any = copy.copy(running)
    second = world.engine.create(
        type("I", (), {**{f: getattr(identity, f) for f in identity.__slots__}, "attempt": 1})(), "app:1", world.now_us
    )
    with pytest.raises(AssertionError, match="two of one container"):
        world.engine.start(second.id, world.now_us)
