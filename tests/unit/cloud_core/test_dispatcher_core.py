"""The dispatcher's core, by stimuli and instructions alone; and a random walk against a world that computes it anew."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cloud.core import stimuli
from cloud.core.dispatcher import APPENDS_IN_FLIGHT_MAX, RETRY_DELAY_MS, RETRY_DELAY_MS_MAX, Dispatcher
from tests.unit.cloud_core.worlds import Cluster, Meta, key, pod, settle, start, thing


@pytest.fixture
def world() -> tuple[Cluster, Meta]:
    return Cluster(), Meta()


def run(core: Dispatcher, cluster: Cluster, meta: Meta, obj: dict[str, Any], **how: Any) -> list[tuple[str, str, bool]]:
    landed = settle(core, core.handle(cluster.apply(obj, **how)), cluster, meta)
    return [(a.scope, a.key.name, a.data is not None) for a in landed]


def test_a_bound_pod_brings_what_it_names_and_before_itself(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    assert run(core, cluster, meta, thing("ConfigMap", "c1")) == []
    assert run(core, cluster, meta, thing("Secret", "s1")) == []
    assert run(core, cluster, meta, pod("p", None, uses=("c1", "s1"))) == []  # not bound: nobody's
    landed = run(core, cluster, meta, pod("p", "edge-1", uses=("c1", "s1")))
    assert landed == [("edge-1", "c1", True), ("edge-1", "s1", True), ("edge-1", "p", True)]


def test_what_nobody_names_any_more_is_withdrawn_after_the_pod(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    for obj in (thing("ConfigMap", "c1"), pod("p", "edge-1", uses=("c1",)), pod("q", "edge-1", uses=("c1",))):
        run(core, cluster, meta, obj)
    assert run(core, cluster, meta, pod("p", "edge-1"), deleted=True) == [("edge-1", "p", False)]  # q still needs c1
    gone = run(core, cluster, meta, pod("q", "edge-1"), deleted=True)
    assert gone == [("edge-1", "q", False), ("edge-1", "c1", False)]
    assert run(core, cluster, meta, thing("ConfigMap", "c1", data={"a": "1"})) == []
    tomb = meta.log[-1][1]
    assert (tomb.uid, tomb.rev, tomb.cause) == ("u-c1", cluster.seq - 1, cluster.log[-2].event.id)


def test_a_changed_config_goes_to_every_node_that_uses_it_and_no_other(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    for i in range(4):
        run(core, cluster, meta, pod(f"p{i}", f"edge-{i}", uses=("c1",) if i < 2 else ("c2",)))
    landed = run(core, cluster, meta, thing("ConfigMap", "c1", data={"a": "1"}))
    assert sorted(landed) == [("edge-0", "c1", True), ("edge-1", "c1", True)]
    assert core.scopes_of(key("ConfigMap", "c2")) == ["edge-2", "edge-3"]


def claim(name: str, volume: str, **more: Any) -> dict[str, Any]:
    return thing("PersistentVolumeClaim", name, spec={"volumeName": volume} if volume else {}, **more)


def kept(name: str, node: str, **more: Any) -> dict[str, Any]:
    """A folder on a node's own disk."""
    csi = {"driver": "skerry.io/local", "volumeHandle": name, "volumeAttributes": {"skerry.io/node": node}}
    return thing("PersistentVolume", name, spec={"csi": csi}, **more)


def test_a_claim_brings_its_volume_when_it_is_bound_and_takes_it_along(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    run(core, cluster, meta, thing("PersistentVolume", "v1", spec={"hostPath": {"path": "/a"}}))
    run(core, cluster, meta, thing("PersistentVolume", "v2", spec={"hostPath": {"path": "/b"}}))
    assert run(core, cluster, meta, claim("k1", "")) == []
    assert run(core, cluster, meta, pod("p", "edge-1", uses=("k1",))) == [("edge-1", "k1", True), ("edge-1", "p", True)]
    assert run(core, cluster, meta, claim("k1", "v1")) == [("edge-1", "v1", True), ("edge-1", "k1", True)]
    assert run(core, cluster, meta, claim("k1", "v1", status={"phase": "Bound"})) == [], "a status tells a node nothing"
    assert sorted(run(core, cluster, meta, pod("q", "edge-2", uses=("k1",)))) == [
        ("edge-2", "k1", True),
        ("edge-2", "q", True),
        ("edge-2", "v1", True),
    ]
    landed = run(core, cluster, meta, claim("k1", "v2"))
    assert sorted(landed) == [(f"edge-{n}", *w) for n in (1, 2) for w in (("k1", True), ("v1", False), ("v2", True))]
    gone = run(core, cluster, meta, pod("p", "edge-1"), deleted=True)
    assert gone[0] == ("edge-1", "p", False) and sorted(gone[1:]) == [("edge-1", "k1", False), ("edge-1", "v2", False)]
    assert sorted(run(core, cluster, meta, claim("k1", ""), deleted=True)) == [
        ("edge-2", "k1", False),
        ("edge-2", "v2", False),
    ]
    assert core.scopes_of(key("PersistentVolume", "v2")) == []


def test_a_folder_of_a_node_is_known_there_with_or_without_a_pod(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    assert run(core, cluster, meta, kept("v1", "edge-1")) == [("edge-1", "v1", True)]
    run(core, cluster, meta, claim("k1", "v1"))
    run(core, cluster, meta, pod("p", "edge-1", uses=("k1",)))
    assert run(core, cluster, meta, pod("p", "edge-1"), deleted=True) == [("edge-1", "p", False), ("edge-1", "k1", False)]
    assert run(core, cluster, meta, kept("v1", "edge-1"), deleted=True) == [("edge-1", "v1", False)]


def test_services_of_the_namespaces_that_have_a_pod_on_the_node(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    assert run(core, cluster, meta, thing("Service", "web")) == []
    assert run(core, cluster, meta, pod("p", "edge-1")) == [("edge-1", "web", True), ("edge-1", "p", True)]
    assert run(core, cluster, meta, thing("Service", "db")) == [("edge-1", "db", True)]
    assert run(core, cluster, meta, thing("Service", "db"), deleted=True) == [("edge-1", "db", False)]
    assert run(core, cluster, meta, pod("p", "edge-1"), deleted=True) == [("edge-1", "p", False), ("edge-1", "web", False)]


def test_devices_models_and_the_node_itself(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    run(core, cluster, meta, thing("DeviceModel", "m"))
    device = thing("Device", "d", spec={"nodeName": "edge-1", "deviceModelRef": {"name": "m"}})
    assert run(core, cluster, meta, device) == [("edge-1", "m", True), ("edge-1", "d", True)]
    assert run(core, cluster, meta, thing("Node", "edge-1")) == [("edge-1", "edge-1", True)]
    moved = thing("Device", "d", spec={"nodeName": "edge-2", "deviceModelRef": {"name": "m"}})
    assert sorted(run(core, cluster, meta, moved)) == [
        ("edge-1", "d", False),
        ("edge-1", "m", False),
        ("edge-2", "d", True),
        ("edge-2", "m", True),
    ]


def test_every_way_to_name_a_config(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    spec = {
        "nodeName": "edge-1",
        "imagePullSecrets": [{"name": "s-pull"}],
        "volumes": [
            {"name": "a", "projected": {"sources": [{"configMap": {"name": "c-proj"}}, {"secret": {"name": "s-proj"}}]}},
            {"name": "b", "emptyDir": {}},
        ],
        "initContainers": [
            {"name": "i", "envFrom": [{"configMapRef": {"name": "c-init"}}, {"secretRef": {"name": "s-init"}}]}
        ],
        "containers": [
            {
                "name": "c",
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c-env", "key": "a"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s-env", "key": "a"}}},
                    {"name": "C", "value": "plain"},
                ],
            }
        ],
    }
    names = ["c-env", "c-init", "c-proj", "s-env", "s-init", "s-proj", "s-pull"]
    for name in names:
        run(core, cluster, meta, thing("ConfigMap" if name[0] == "c" else "Secret", name))
    landed = run(core, cluster, meta, thing("Pod", "p", spec=spec))
    assert sorted(n for _, n, _ in landed) == sorted([*names, "p"])


def test_fields_of_the_wrong_shape_name_nothing(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    bad = [
        {"spec": "text"},
        {"spec": {"nodeName": 7}},
        {"spec": {"nodeName": "e", "volumes": "x", "containers": [3, {"env": {"a": 1}, "envFrom": [None]}]}},
        {
            "spec": {
                "nodeName": "e",
                "volumes": [{"configMap": "x"}, {"secret": {"secretName": ["y"]}}],
                "imagePullSecrets": {},
            }
        },
    ]
    for i, extra in enumerate(bad):
        landed = run(core, cluster, meta, thing("Pod", f"p{i}", **extra))
        assert landed == ([("e", f"p{i}", True)] if i > 1 else [])


def test_status_and_bookkeeping_do_not_travel(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    p = pod("p", "edge-1", status={"phase": "Pending"})
    p["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    p["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{...}", "mine": "1"}
    run(core, cluster, meta, p)
    sent = meta.holds("edge-1")[key("Pod", "p")]
    assert "status" not in sent and "managedFields" not in sent["metadata"]
    assert sent["metadata"]["annotations"] == {"mine": "1"}
    assert run(core, cluster, meta, p | {"status": {"phase": "Running"}}) == []  # the node knows: it said so
    assert run(core, cluster, meta, p | {"status": {"phase": "Succeeded"}}) == [("edge-1", "p", True)]
    assert meta.holds("edge-1")[key("Pod", "p")]["status"] == {"phase": "Succeeded"}
    assert "managedFields" in p["metadata"], "the object in CLUSTER is not ours to change"


def test_one_append_in_flight_and_the_latest_wins(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    (first,) = core.handle(cluster.apply(pod("p", "edge-1")))
    for i in range(5):
        assert core.handle(cluster.apply(pod("p", "edge-1", uid="u", x=i))) == []
    assert isinstance(first, stimuli.Append)
    seq = meta.append(first)
    assert seq is not None
    (second,) = core.handle(stimuli.Appended("edge-1", seq))
    assert isinstance(second, stimuli.Append) and second.data is not None
    assert (second.prev, second.data["x"], second.rev) == (seq, 4, 6)
    assert second.cause == cluster.log[-1].event.id


def test_a_change_taken_back_while_the_scope_was_busy_is_not_sent(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    (first,) = core.handle(cluster.apply(pod("p", "edge-1")))
    core.handle(cluster.apply(pod("p", "edge-1", x=1)))
    core.handle(cluster.apply(pod("p", "edge-1")))
    assert len(settle(core, [first], cluster, meta)) == 1


def test_the_window_bounds_what_is_in_flight(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    for i in range(APPENDS_IN_FLIGHT_MAX + 10):
        cluster.apply(pod(f"p{i}", f"edge-{i}"))
    core, work = start(cluster, meta)
    assert len(work) == APPENDS_IN_FLIGHT_MAX
    assert len(settle(core, work, cluster, meta)) == APPENDS_IN_FLIGHT_MAX + 10
    assert core.idle


def test_a_restart_writes_nothing_that_is_there(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    cluster.apply(thing("ConfigMap", "c1"))
    cluster.apply(pod("p", "edge-1", uses=("c1",), status={"phase": "Pending"}))
    core, work = start(cluster, meta)
    settle(core, work, cluster, meta)
    cluster.apply(pod("p", "edge-1", uses=("c1",), status={"phase": "Running"}))  # a new revision, nothing new for the node
    core, work = start(cluster, meta)
    assert work == [] and core.idle


def test_what_happened_while_no_dispatcher_ran(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    cluster.apply(pod("p", "edge-1"))
    core, work = start(cluster, meta)
    settle(core, work, cluster, meta)
    gone = cluster.apply(pod("p", "edge-1"), deleted=True)
    cluster.apply(pod("q", "edge-1"))
    core, work = start(cluster, meta)
    landed = settle(core, work, cluster, meta)
    assert [(a.key.name, a.data is None, a.cause) for a in landed] == [
        ("p", True, gone.event.id),
        ("q", False, cluster.log[-1].event.id),
    ]


def test_a_lost_answer_is_looked_up_not_repeated(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    (first,) = core.handle(cluster.apply(pod("p", "edge-1")))
    assert isinstance(first, stimuli.Append)
    meta.append(first)  # it was written; only the answer was lost
    assert core.handle(stimuli.AppendFailed("edge-1")) == [stimuli.ReloadScope("edge-1", RETRY_DELAY_MS)]
    delays = [core.handle(stimuli.ReloadFailed("edge-1"))[0] for _ in range(12)]
    assert isinstance(delays[0], stimuli.ReloadScope) and delays[0].delay_ms == 2 * RETRY_DELAY_MS
    assert isinstance(delays[-1], stimuli.ReloadScope) and delays[-1].delay_ms == RETRY_DELAY_MS_MAX
    assert core.handle(stimuli.ScopeReloaded("edge-1", meta.of("edge-1"), cluster.seq)) == []
    assert core.idle


def test_a_worker_that_slept_does_not_bring_old_state_back(world: tuple[Cluster, Meta]) -> None:
    """B took over and wrote version 3; A wakes and has only heard of version 2."""
    cluster, meta = world
    cluster.apply(pod("p", "edge-1", x=1))
    a, work = start(cluster, meta)
    settle(a, work, cluster, meta)
    two, three = cluster.apply(pod("p", "edge-1", x=2)), cluster.apply(pod("p", "edge-1", x=3))
    settle(*start(cluster, meta), cluster, meta)
    before = meta.seq
    (late,) = a.handle(two)
    assert isinstance(late, stimuli.Append) and meta.append(late) is None
    assert a.handle(stimuli.AppendConflict("edge-1")) == [stimuli.ReloadScope("edge-1", 0)]
    assert a.handle(stimuli.ScopeReloaded("edge-1", meta.of("edge-1"), cluster.seq)) == []  # CLUSTER first
    assert not a.idle
    assert a.handle(three) == [] and a.idle
    assert meta.seq == before and meta.holds("edge-1")[key("Pod", "p")]["x"] == 3


def test_what_can_not_be_read_keeps_its_place_and_is_replaced(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    meta.seq = 7
    for name in ("p", "q"):
        meta.seq += 1
        meta.heads["edge-1"] = meta.seq
        meta.last["edge-1", key("Pod", name)] = stimuli.MetaEvent(meta.seq, "edge-1", key("Pod", name), None)
    cluster.apply(pod("p", "edge-1"))
    landed = settle(*start(cluster, meta), cluster, meta)
    assert [(a.key.name, a.data is None) for a in landed] == [("p", False), ("q", True)] and landed[0].prev == 9


def test_two_workers_that_refuse_each_other_give_way(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    core.handle(cluster.apply(pod("p", "edge-1")))
    delays = []
    for _ in range(4):
        (reload,) = core.handle(stimuli.AppendConflict("edge-1"))
        assert isinstance(reload, stimuli.ReloadScope)
        delays.append(reload.delay_ms)
        core.handle(stimuli.ScopeReloaded("edge-1", meta.of("edge-1"), cluster.seq))
    assert delays == [0, RETRY_DELAY_MS, 2 * RETRY_DELAY_MS, 4 * RETRY_DELAY_MS]


def test_an_object_that_can_not_be_written_does_not_stop_its_scope(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    core, _ = start(cluster, meta)
    (huge,) = core.handle(cluster.apply(pod("huge", "edge-1")))
    core.handle(cluster.apply(pod("p", "edge-1")))
    assert isinstance(huge, stimuli.Append)
    landed = settle(core, core.handle(stimuli.AppendRefused("edge-1")), cluster, meta)
    assert [a.key.name for a in landed] == ["p"]
    assert (
        run(core, cluster, meta, pod("huge", "edge-1", status={"phase": "Running"})) == []
    )  # same content: not tried again
    assert run(core, cluster, meta, pod("huge", "edge-1", x=1)) == [("edge-1", "huge", True)]


def test_only_the_owned_shards_are_written(world: tuple[Cluster, Meta]) -> None:
    cluster, meta = world
    for i in range(40):
        cluster.apply(pod(f"p{i}", f"edge-{i}"))
    cores = [start(cluster, meta, owns=frozenset({s})) for s in range(4)]
    scopes = [{w.scope for w in work if isinstance(w, stimuli.Append)} for _, work in cores]
    assert sum(len(s) for s in scopes) == 40 and len(set().union(*scopes)) == 40


def test_cost_of_a_change_does_not_grow_with_the_fleet() -> None:
    """Counted, not timed: the number of scopes that the core looks at for one changed config map."""
    looked: list[int] = []
    for nodes in (10, 1000):
        cluster, meta = Cluster(), Meta()
        for i in range(nodes):
            cluster.apply(pod(f"p{i}", f"edge-{i}", uses=("c1",) if i == 3 else ()))
        core, work = start(cluster, meta)
        settle(core, work, cluster, meta)
        counting = CountingDict(core._scopes)
        core._scopes = counting
        landed = run(core, cluster, meta, thing("ConfigMap", "c1"))
        assert landed == [("edge-3", "c1", True)]
        looked.append(counting.looked)
    assert looked[0] == looked[1]


class CountingDict(dict[str, Any]):
    looked = 0

    def __getitem__(self, name: str) -> Any:
        self.looked += 1
        return super().__getitem__(name)

    def values(self) -> Any:
        self.looked += len(self)
        return super().values()


# --- a random walk ---------------------------------------------------------------------------------------------------


def owed(cluster: Cluster, node: str) -> dict[Any, Any]:
    """What a node should hold, from the objects alone and in the plainest way."""
    objects = {k: e.data for k, (_, e) in cluster.last.items() if e.data is not None}
    out = {}
    for k, o in objects.items():
        if k.resource == "nodes" and k.name == node:
            out[k] = o
        if k.resource in ("pods", "devices") and o.get("spec", {}).get("nodeName") == node:
            out[k] = o
            text = repr(o["spec"])
            for other, data in objects.items():
                kinds = ("configmaps", "secrets", "devicemodels", "persistentvolumeclaims")
                named = other.resource in kinds and f"'{other.name}'" in text
                if named or (other.resource == "services" and k.resource == "pods"):
                    out[other] = data
                    volume = key("PersistentVolume", data.get("spec", {}).get("volumeName", ""))
                    if other.resource == "persistentvolumeclaims" and volume in objects:
                        out[volume] = objects[volume]
        if k.resource == "persistentvolumes" and f"'{node}'" in repr(o["spec"]):
            out[k] = o
    return out


def random_change(rng: random.Random, cluster: Cluster, step: int) -> stimuli.ClusterEvent:
    kind = rng.choice([*["Pod"] * 3, "ConfigMap", "Secret", "Service", "Node", "Device", "DeviceModel", "Claim", "Volume"])
    name = f"{kind[0].lower()}{rng.randrange(4)}"
    node = f"edge-{rng.randrange(3)}"
    uid = f"u{step if rng.random() < 0.2 else 0}"
    if kind == "Pod":
        uses = tuple(rng.sample(["c0", "c1", "c2", "s0", "s1", "k0", "k1"], rng.randrange(3)))
        obj = pod(name, rng.choice([node, node, None]), uses=uses, uid=uid, x=step)
    elif kind == "Device":
        obj = thing("Device", name, uid=uid, spec={"nodeName": node, "deviceModelRef": {"name": f"d{rng.randrange(2)}"}})
    elif kind == "Node":
        obj = thing("Node", node, uid=uid, x=step)
    elif kind == "Claim":
        obj = claim(f"k{rng.randrange(2)}", rng.choice(["", "v0", "v1", "v2"]), uid=uid, x=step)
    elif kind == "Volume":
        volume = f"v{rng.randrange(3)}"
        path = {"hostPath": {"path": "/a"}}
        at_node = rng.random() < 0.5
        obj = kept(volume, node, uid=uid) if at_node else thing("PersistentVolume", volume, uid=uid, spec=path)
    elif kind == "DeviceModel":
        obj = thing("DeviceModel", f"d{rng.randrange(2)}", uid=uid, x=step)
    else:
        obj = thing(kind, name, uid=uid, x=step)
    return cluster.apply(obj, deleted=rng.random() < 0.3)


@pytest.mark.parametrize("seed", range(30))
def test_random_walk_with_crashes_conflicts_and_lost_answers(seed: int) -> None:
    rng = random.Random(seed)
    cluster, meta = Cluster(), Meta()
    workers: list[tuple[Dispatcher, list[stimuli.Instruction], list[stimuli.ClusterEvent]]] = []
    for step in range(250):
        if len(workers) < 2 and rng.random() < 0.2:
            workers.append((*start(cluster, meta), []))
        change = random_change(rng, cluster, step)
        for _, _, inbox in workers:
            inbox.append(change)  # each worker hears of it when it gets to it
        for i, (core, work, inbox) in enumerate(workers):
            for _ in range(rng.randrange(4)):
                if inbox and rng.random() < 0.6:
                    work += core.handle(inbox.pop(0))
                elif work:
                    work += answer(rng, core, work.pop(rng.randrange(len(work))), cluster, meta)
            if rng.random() < 0.03:
                del workers[i]  # killed: nothing of it is left
                break
    for core, work, inbox in workers:
        for change in inbox:
            work += core.handle(change)
        settle(core, work, cluster, meta)
        assert core.idle
    if not workers:
        settle(*start(cluster, meta), cluster, meta)
    for node in ("edge-0", "edge-1", "edge-2"):
        assert meta.holds(node) == owed(cluster, node), f"seed {seed}, {node}"
    assert start(cluster, meta)[1] == [], "a restart finds nothing to do"
    chains: dict[str, int] = {}
    revs: dict[Any, int] = {}
    for seq, a in meta.log:
        assert a.prev == chains.get(a.scope, 0)
        chains[a.scope] = seq
        if a.data is not None:
            assert a.rev >= revs.get((a.scope, a.key), 0), f"seed {seed}: an old version after a new one"
            revs[a.scope, a.key] = a.rev


def answer(
    rng: random.Random, core: Dispatcher, todo: stimuli.Instruction, cluster: Cluster, meta: Meta
) -> list[stimuli.Instruction]:
    if isinstance(todo, stimuli.ReloadScope):
        if rng.random() < 0.2:
            return core.handle(stimuli.ReloadFailed(todo.scope))
        return core.handle(stimuli.ScopeReloaded(todo.scope, meta.of(todo.scope), cluster.seq))
    luck = rng.random()
    if luck < 0.1:
        return core.handle(stimuli.AppendFailed(todo.scope))
    seq = meta.append(todo)
    if luck < 0.2:
        return core.handle(stimuli.AppendFailed(todo.scope))
    return core.handle(stimuli.AppendConflict(todo.scope) if seq is None else stimuli.Appended(todo.scope, seq))
