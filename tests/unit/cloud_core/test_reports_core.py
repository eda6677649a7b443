"""The reports core by stimuli and instructions, against a small API that keeps revisions and refuses stale writes."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloud.core import report_words as words
from cloud.core.reports import EVENT_EVERY_US, EVENT_TTL_US, EVENTS_AT_ONCE, GRACE_US, Reports
from cloud.core.writes import Write
from schemas import event as events
from schemas import times
from schemas.event import Event
from schemas.subjects import ObjectKey

S = 1_000_000
T0 = 1_800_000_000 * S
DEVICES = "devices.kubeedge.io"
NODE = ObjectKey("", "nodes", "", "edge-1")
POD = ObjectKey("", "pods", "default", "p")
DEVICE = ObjectKey(DEVICES, "devices", "default", "d")
TWIN = ObjectKey(DEVICES, "devicestatuses", "default", "d")


@dataclass
class World:
    """API and REPORT in memory, with the core between them."""

    seq: int = 0
    now: int = T0
    objects: dict[ObjectKey, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    api: dict[ObjectKey, words.ApiEvent] = field(default_factory=dict)
    reports: dict[tuple[str, ...], words.Reported] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    complaints: list[words.Complain] = field(default_factory=list)
    core: Reports = field(default_factory=Reports)
    lag: bool = False  # the API's changes are told only by ``catch_up``
    untold: list[words.ApiEvent] = field(default_factory=list)
    told_first: bool = False  # the change is told before the answer to the write

    def start(self) -> World:
        self.core, self.untold = Reports(), []
        for s in [*sorted(self.api.values(), key=lambda a: a.rev), *self.reports.values()]:
            self.run(s)
        self.run(words.Loaded(self.now))
        return self

    def run(self, stimulus: words.Stimulus) -> None:
        work = self.core.handle(stimulus)
        while work:
            todo = work.pop(0)
            if isinstance(todo, words.Complain):
                self.complaints.append(todo)
            else:
                self.writes.append(todo)
                work += self.answer(todo)

    def answer(self, w: Write) -> list[words.Instruction]:
        rev, _ = self.objects.get(w.key, (0, None))
        if rev != w.rev:
            return self.core.handle(words.WriteConflict(w.key))
        told = self.change(w.key, None if w.verb == "delete" else w.object)
        if self.told_first:
            return self.core.handle(told) + self.core.handle(words.Written(w.key, told.rev))
        out = self.core.handle(words.Written(w.key, told.rev))
        if self.lag:
            self.untold.append(told)
            return out
        return out + self.core.handle(told)

    def catch_up(self) -> None:
        while self.untold:
            self.run(self.untold.pop(0))

    def change(self, key: ObjectKey, obj: dict[str, Any] | None) -> words.ApiEvent:
        """As a user's write does; the answer must be told to the core."""
        self.seq += 1
        if obj is None:
            self.objects.pop(key, None)
        else:
            obj = copy.deepcopy(obj)
            obj["metadata"].setdefault("uid", f"u{self.seq}")
            self.objects[key] = (self.seq, obj)
        self.api[key] = words.ApiEvent(self.seq, key, obj, self.now)
        return self.api[key]

    def user(self, key: ObjectKey, obj: dict[str, Any] | None) -> None:
        self.run(self.change(key, obj))

    def event(self, node: str, kind: str, namespace: str, name: str, data: dict[str, Any]) -> Event:
        self.seq += 1
        ident = events.uuid7(self.seq * 1000, self.seq.to_bytes(10, "big"))
        return Event(
            id=ident,
            type=events.REPORT,
            scope=node,
            resource=kind,
            namespace=namespace,
            name=name,
            time=self.now,
            source="test",
            trace=ident,
            data=data,
        )

    def report(
        self, node: str, kind: str, data: dict[str, Any], name: str = "", namespace: str = "default"
    ) -> words.Reported:
        ev = self.event(node, kind, "default" if name else "", name or node, data)
        r = words.Reported(self.seq, ev, self.now)
        self.reports[node, kind, name] = r
        self.run(r)
        return r

    def unanswered(self, data: dict[str, Any]) -> Write:
        """The one write that a pod report leads to, not done."""
        ev = self.event("edge-1", "pod", "default", "p", data)
        (write,) = self.core.handle(words.Reported(self.seq, ev, self.now))
        assert isinstance(write, Write)
        return write

    def at(self, key: ObjectKey) -> dict[str, Any]:
        return self.objects[key][1]

    def condition(self, key: ObjectKey, kind: str = "Ready") -> dict[str, Any]:
        return next(c for c in self.at(key)["status"]["conditions"] if c["type"] == kind)

    def wait(self, us: int, *, beats: str = "") -> None:
        for _ in range(us // S):
            self.now += S
            if beats:
                self.run(words.BeatSeen(beats, self.now))
            self.run(words.Tick(self.now))


def node_data(*, ready: bool = True, **extra: Any) -> dict[str, Any]:
    status = {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "nodeInfo": {"operatingSystem": "linux", "architecture": "arm64"},
        "conditions": [{"type": "MemoryPressure", "status": "False", "reason": "EnoughMemory"}],
    }
    return {"status": status, "labels": {"site": "north"}, "ready": ready, "boot": "b1", **extra}


def pod_data(uid: str, phase: str = "Running", ready: str = "True", **extra: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": times.rfc3339(T0)}]
    return {"uid": uid, "status": {"phase": phase, "conditions": conditions, "podIP": "10.0.0.2", **extra}}


def pod(node: str = "edge-1", uid: str = "u-p", **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": uid, **meta},
        "spec": {"nodeName": node},
        "status": {"phase": "Pending", "qosClass": "BestEffort", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    }


@pytest.fixture
def world() -> World:
    return World().start()


@pytest.fixture
def joined(world: World) -> World:
    world.report("edge-1", "node", node_data())
    world.run(words.BeatSeen("edge-1", world.now))
    world.user(POD, pod())
    world.report("edge-1", "pod", pod_data("u-p"), "p")
    world.writes.clear()
    return world


def test_the_first_report_registers_the_node(world: World) -> None:
    r = world.report("edge-1", "node", node_data())
    node = world.at(NODE)
    assert node["metadata"]["labels"] == {
        "site": "north",
        "kubernetes.io/hostname": "edge-1",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        "node-role.kubernetes.io/edge": "",
    }
    assert node["status"]["capacity"]["pods"] == "110"
    assert world.condition(NODE) == {
        "type": "Ready",
        "status": "True",
        "reason": "EdgeReady",
        "message": "the edge daemon is ready",
        "lastTransitionTime": times.rfc3339(T0),
    }
    assert [(w.verb, w.cause, w.trace) for w in world.writes] == [("create", r.event.id, r.event.trace)]
    assert world.core.idle


def test_a_registry_that_drops_status_on_create_gets_it_next(world: World) -> None:
    world.lag = True
    world.report("edge-1", "node", node_data())
    stripped = {k: v for k, v in world.at(NODE).items() if k != "status"}
    world.untold.clear()
    world.objects[NODE] = (world.objects[NODE][0], stripped)
    world.untold.append(words.ApiEvent(world.objects[NODE][0], NODE, stripped, world.now))
    world.catch_up()
    assert world.condition(NODE)["status"] == "True"
    assert [w.verb for w in world.writes] == ["create", "status"]


def test_a_node_that_is_not_ready_says_why_and_takes_no_new_pods(joined: World) -> None:
    joined.report("edge-1", "node", node_data(ready=False, reason="ContainerRuntimeDown", message="no Docker"))
    assert joined.condition(NODE)["reason"] == "ContainerRuntimeDown"
    assert joined.at(NODE)["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    joined.report("edge-1", "node", node_data())
    assert joined.condition(NODE)["status"] == "True" and "taints" not in joined.at(NODE)["spec"]


@pytest.mark.parametrize("ready", [False, True])
def test_a_nodes_status_is_told_before_the_taint_that_follows_from_it(joined: World, ready: bool) -> None:
    """Lifecycle controllers take a not-ready taint off a node that says that it is ready: first it must say otherwise."""
    joined.report("edge-1", "node", node_data(ready=not ready))
    joined.writes.clear()
    joined.report("edge-1", "node", node_data(ready=ready))
    assert [w.verb for w in joined.writes] == ["status", "update"]


def test_a_silent_link_makes_everything_unknown_and_evicts_nothing(joined: World) -> None:
    joined.wait(10 * S, beats="edge-1")
    since = f"unknown since {times.rfc3339(joined.now)}"
    joined.wait(GRACE_US)
    assert joined.condition(NODE)["status"] == "True", "the grace is not over yet"
    joined.wait(2 * S)
    ready = joined.condition(NODE)
    assert (ready["status"], ready["reason"], ready["message"]) == ("Unknown", "LinkLost", since)
    assert times.micros(ready["lastTransitionTime"]) == joined.now - S
    assert joined.condition(NODE, "MemoryPressure")["status"] == "Unknown"
    assert joined.at(NODE)["spec"]["taints"] == [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]
    assert joined.at(POD)["status"]["phase"] == "Running"
    assert joined.condition(POD)["status"] == "Unknown" and joined.condition(POD)["message"] == since
    assert joined.condition(POD, "PodScheduled")["status"] == "True"
    assert "delete" not in {w.verb for w in joined.writes}


def test_the_hub_may_say_at_once_that_a_link_is_down(joined: World) -> None:
    joined.wait(5 * S, beats="edge-1")
    joined.run(words.LinkDown("edge-1", joined.now + S))
    assert joined.condition(NODE)["message"] == f"unknown since {times.rfc3339(joined.now)}"
    before = len(joined.writes)
    joined.run(words.LinkDown("edge-1", joined.now + 2 * S))
    assert len(joined.writes) == before


def test_a_beat_after_the_cut_brings_all_back_as_reported(joined: World) -> None:
    joined.run(words.LinkDown("edge-1", joined.now))
    joined.now += 100 * S
    joined.run(words.BeatSeen("edge-1", joined.now))
    assert joined.condition(NODE)["status"] == "True" and "taints" not in joined.at(NODE)["spec"]
    assert joined.condition(NODE)["lastTransitionTime"] == times.rfc3339(joined.now)
    assert joined.condition(NODE, "MemoryPressure")["status"] == "False"
    assert joined.condition(POD)["status"] == "True"
    assert times.micros(joined.condition(POD)["lastTransitionTime"]) == joined.now, (
        "not the report's time from before the cut"
    )


def test_a_report_that_waited_does_not_revive_a_lost_link(joined: World) -> None:
    joined.run(words.LinkDown("edge-1", joined.now))
    joined.report("edge-1", "pod", pod_data("u-p", hostIP="192.0.2.1"), "p")
    assert joined.condition(NODE)["status"] == "Unknown"
    assert joined.at(POD)["status"]["hostIP"] == "192.0.2.1" and joined.condition(POD)["status"] == "Unknown"


def test_operators_labels_and_taints_stay(joined: World) -> None:
    node = copy.deepcopy(joined.at(NODE))
    node["metadata"]["labels"]["mine"] = "1"
    node["spec"]["taints"] = [{"key": "gpu", "effect": "NoSchedule"}]
    joined.user(NODE, node)
    joined.run(words.LinkDown("edge-1", joined.now))
    joined.run(words.BeatSeen("edge-1", joined.now))
    assert joined.at(NODE)["metadata"]["labels"]["mine"] == "1"
    assert joined.at(NODE)["spec"]["taints"] == [{"key": "gpu", "effect": "NoSchedule"}]


def test_only_differences_are_written(joined: World) -> None:
    joined.report("edge-1", "node", node_data())
    joined.report("edge-1", "pod", pod_data("u-p"), "p")
    joined.start()
    assert joined.writes == []


def test_a_restart_keeps_since_when_a_node_is_unknown(joined: World) -> None:
    joined.wait(GRACE_US + 2 * S)
    message = joined.condition(NODE)["message"]
    joined.writes.clear()
    joined.now += 500 * S
    joined.start().wait(2 * GRACE_US)
    assert joined.writes == [] and joined.condition(NODE)["message"] == message


def test_a_restart_gives_every_node_its_grace(joined: World) -> None:
    joined.now += 500 * S
    joined.start().wait(GRACE_US)
    assert joined.condition(NODE)["status"] == "True"
    joined.wait(2 * S)
    assert joined.condition(NODE)["status"] == "Unknown"


def test_a_report_of_an_earlier_pod_of_that_name_is_not_for_this_one(joined: World) -> None:
    joined.user(POD, None)
    joined.user(POD, pod(uid="u-new"))
    assert joined.at(POD)["status"]["phase"] == "Pending"
    joined.report("edge-1", "pod", pod_data("u-p", "Failed"), "p")
    assert joined.at(POD)["status"]["phase"] == "Pending"
    joined.report("edge-1", "pod", pod_data("u-new"), "p")
    assert joined.at(POD)["status"]["phase"] == "Running"


def test_a_node_speaks_only_for_its_own_pods_and_devices(joined: World) -> None:
    joined.report("edge-2", "pod", pod_data("u-p", "Failed"), "p")
    joined.user(DEVICE, {"metadata": {"name": "d", "namespace": "default", "uid": "u-d"}, "spec": {"nodeName": "edge-1"}})
    joined.report("edge-2", "twin", {"uid": "u-d", "state": "online", "twins": []}, "d")
    assert joined.at(POD)["status"]["phase"] == "Running" and TWIN not in joined.objects


def test_the_pods_status_is_the_edges_but_for_what_others_wrote(joined: World) -> None:
    status = joined.at(POD)["status"]
    assert status["qosClass"] == "BestEffort" and joined.condition(POD, "PodScheduled")["status"] == "True"
    joined.report("edge-1", "pod", pod_data("u-p", "Failed", "False", reason="Evicted"), "p")
    joined.report("edge-1", "pod", pod_data("u-p"), "p")
    assert "reason" not in joined.at(POD)["status"], "a field that is no longer reported is gone"
    joined.report("edge-1", "pod", pod_data("u-p", startTime="2026-01-01T00:00:00Z"), "p")
    joined.report("edge-1", "pod", pod_data("u-p", startTime="2026-02-02T00:00:00Z", hostIP="192.0.2.1"), "p")
    assert joined.at(POD)["status"]["startTime"] == "2026-01-01T00:00:00Z", "a node that lost its disk began no earlier"


@pytest.mark.parametrize("told_first", [True, False])
def test_a_pod_that_is_gone_from_its_node_is_deleted_once_that_was_asked_for(joined: World, told_first: bool) -> None:
    joined.told_first = told_first
    gone = {"uid": "u-p", "status": None}
    joined.report("edge-1", "pod", gone, "p")
    assert POD in joined.objects
    joined.user(POD, pod(deletionTimestamp=times.rfc3339(T0)))
    assert POD not in joined.objects
    assert (joined.writes[-1].verb, joined.writes[-1].uid) == ("delete", "u-p")
    assert joined.core.idle


def test_a_gone_report_that_comes_before_its_pod_is_remembered(world: World) -> None:
    world.report("edge-1", "pod", {"uid": "u-p", "status": None}, "p")
    world.user(POD, pod(deletionTimestamp=times.rfc3339(T0)))
    assert POD not in world.objects


def test_a_deleted_node_comes_back_with_its_next_report_only(joined: World) -> None:
    joined.now += S
    joined.user(NODE, None)
    joined.start()
    assert NODE not in joined.objects
    joined.now += S
    joined.report("edge-1", "node", node_data())
    assert NODE in joined.objects


def test_the_twin_becomes_a_device_status_owned_by_the_device(joined: World) -> None:
    joined.user(DEVICE, {"metadata": {"name": "d", "namespace": "default", "uid": "u-d"}, "spec": {"nodeName": "edge-1"}})
    values = [
        {"property": "temp", "value": 21.5, "time": T0},
        {"property": "on", "value": True, "desired": "true", "time": T0},
        {"property": "raw", "value": b"\x01", "time": T0},
        {"property": "dead", "value": None, "time": T0, "quality": "bad", "reason": "timeout"},
        {"property": "odd", "value": 3, "time": T0, "quality": "uncertain", "reason": "stale"},
    ]
    joined.report("edge-1", "twin", {"uid": "u-d", "state": "online", "twins": values}, "d")
    status = joined.at(TWIN)
    stamp = str(T0 // 1000)
    assert status["metadata"]["ownerReferences"] == [
        {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "name": "d", "uid": "u-d"}
    ]
    assert status["status"]["state"] == "online" and status["status"]["lastOnlineTime"] == times.rfc3339(T0)
    twins = {t["propertyName"]: t for t in status["status"]["twins"]}
    assert twins["temp"] == {
        "propertyName": "temp",
        "reported": {"value": "21.5", "metadata": {"timestamp": stamp, "type": "double"}},
    }
    assert twins["on"]["observedDesired"] == {"value": "true", "metadata": {"timestamp": stamp, "type": "string"}}
    assert twins["on"]["reported"]["value"] == "true" and twins["raw"]["reported"]["value"] == "AQ=="
    assert "reported" not in twins["dead"] and twins["odd"]["reported"]["metadata"]["reason"] == "stale"
    joined.now += 60 * S
    joined.report("edge-1", "twin", {"uid": "u-d", "state": "offline", "message": "no route", "twins": values}, "d")
    assert joined.at(TWIN)["status"]["lastOnlineTime"] == times.rfc3339(T0)
    joined.writes.clear()
    joined.start()
    assert joined.writes == []


def test_a_node_offers_its_devices_by_their_models(joined: World) -> None:
    w = joined

    def device(name: str, model: str, node: str | None = "edge-1") -> None:
        spec = {"deviceModelRef": {"name": model}} | ({"nodeName": node} if node else {})
        meta = {"name": name, "namespace": "default", "uid": f"u-{name}"}
        w.run(w.change(ObjectKey(DEVICES, "devices", "default", name), {"metadata": meta, "spec": spec}))

    def offered() -> dict[str, str]:
        sizes = w.objects[NODE][1]["status"]["allocatable"]
        assert w.objects[NODE][1]["status"]["capacity"].items() >= sizes.items()
        return {k: v for k, v in sizes.items() if k.startswith("devices.skerry.io/")}

    sizes = {"cpu": "4", "pods": "110"}
    w.report("edge-1", "node", node_data(status={"capacity": sizes, "allocatable": sizes}))
    assert offered() == {}
    for name, model in (("a", "camera"), ("b", "camera"), ("c", "thermo"), ("d", "no name"), ("e", "")):
        device(name, model)
    assert offered() == {"devices.skerry.io/camera": "2", "devices.skerry.io/thermo": "1"}
    device("b", "camera", "edge-2")
    w.run(w.change(ObjectKey(DEVICES, "devices", "default", "c"), None))
    assert offered() == {"devices.skerry.io/camera": "1"}
    assert w.objects[NODE][1]["status"]["allocatable"]["cpu"] == "4"
    written = len(w.writes)
    w.start()
    assert offered() == {"devices.skerry.io/camera": "1"} and len(w.writes) == written, "a restart finds nothing to do"
    device("a", "camera", None)
    assert offered() == {}


def test_an_event_series_is_one_event_object(joined: World) -> None:
    report = {
        "involved": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u-p", "junk": [1]},
        "type": "Warning",
        "reason": "BackOff",
        "message": "x" * 2000,
        "first": T0,
        "last": T0,
    }
    for count in (1, 2, 3):
        joined.report("edge-1", "event", report | {"count": count, "last": T0 + count * S}, "p.backoff")
    ((key, (_, ev)),) = [(k, v) for k, v in joined.objects.items() if k.resource == "events"]
    assert (ev["count"], ev["lastTimestamp"], len(ev["message"])) == (3, times.rfc3339(T0 + 3 * S), 1024)
    assert ev["source"]["host"] == "edge-1" and "junk" not in ev["involvedObject"] and key.name.startswith("p.")
    joined.now += EVENT_TTL_US + S
    joined.user(key, None)  # kept for an hour, then swept
    joined.start()
    assert key not in joined.objects


def test_a_node_that_tells_events_without_end_makes_no_objects_without_end(joined: World) -> None:
    pod = {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u-p"}
    data = {"involved": pod, "type": "Normal", "reason": "R", "message": "", "first": T0, "last": T0}

    def there() -> int:
        return sum(k.resource == "events" for k in joined.objects)

    for n in range(EVENTS_AT_ONCE + 200):
        joined.report("edge-1", "event", data, f"p.{n}")
    assert EVENTS_AT_ONCE <= there() < EVENTS_AT_ONCE + 200
    full = there()
    joined.report("edge-1", "event", {**data, "count": 2}, "p.0")
    assert there() == full, "one that is told again is no new one"
    joined.now += 3 * EVENT_EVERY_US
    for n in range(10):
        joined.report("edge-1", "event", data, f"late.{n}")
    assert full + 2 <= there() <= full + 4


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("pod", {"uid": 7, "status": {}}),
        ("pod", {}),
        ("node", {"status": {}, "ready": "yes", "boot": "b"}),
        ("twin", {"uid": "u", "state": "asleep", "twins": []}),
        ("nonsense", {}),
    ],
)
def test_a_report_that_is_none_is_said_and_survived(joined: World, kind: str, data: dict[str, Any]) -> None:
    joined.report("edge-1", kind, data, "p")
    assert len(joined.complaints) == 1 and joined.writes == []
    joined.report("edge-1", "pod", pod_data("u-p", "Succeeded"), "p")
    assert joined.at(POD)["status"]["phase"] == "Succeeded"


def test_an_object_of_the_wrong_shape_is_said_and_survived(joined: World) -> None:
    joined.user(ObjectKey("", "pods", "default", "q"), {"metadata": {"name": "q"}, "spec": "text"})
    assert len(joined.complaints) == 1


def test_a_write_without_an_answer_is_tried_again_ever_more_slowly(joined: World) -> None:
    joined.unanswered(pod_data("u-p", "Succeeded"))
    waits = []
    for _ in range(4):
        joined.core.handle(words.WriteFailed(POD))
        start = joined.now
        while not joined.core.handle(words.Tick(joined.now)):
            joined.now += S
            joined.core.handle(words.BeatSeen("edge-1", joined.now))
        waits.append((joined.now - start) // S)
    assert waits == [1, 2, 4, 8]


def test_a_refused_write_waits_for_news(joined: World) -> None:
    joined.unanswered(pod_data("u-p", "Bad"))
    assert joined.core.handle(words.WriteRefused(POD)) == []
    assert joined.core.handle(words.Tick(joined.now + S)) == [] and joined.core.idle
    joined.report("edge-1", "pod", pod_data("u-p", "Succeeded"), "p")
    assert joined.at(POD)["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("seed", range(20))
def test_random_walk_with_lag_conflicts_failures_and_restarts(seed: int) -> None:
    """Whatever happened on the way, in the end the API shows what the nodes said last."""
    rng = random.Random(seed)
    world = World().start()
    lives: dict[ObjectKey, int] = {}
    for step in range(150):
        world.lag, world.told_first = rng.random() < 0.5, rng.random() < 0.3
        world.now += rng.randrange(3) * S
        node = f"edge-{rng.randrange(2)}"
        key = ObjectKey("", "pods", "default", f"p{rng.randrange(3)}")
        luck = rng.random()
        if luck < 0.2:
            world.report(node, "node", node_data(ready=rng.random() < 0.7))
        elif luck < 0.5:
            uid = lives.get(key, 0) - rng.randrange(2)
            world.report(node, "pod", pod_data(f"u{uid}", rng.choice(["Pending", "Running"]), x=step), key.name)
        elif luck < 0.6:
            gone = rng.random() < 0.3
            world.untold.append(world.change(key, None if gone else pod(node, f"u{lives.get(key, 0)}", step=step)))
            lives[key] = lives.get(key, 0) + gone  # a uid never comes back
        elif luck < 0.7:
            world.run(rng.choice([words.LinkDown, words.BeatSeen])(node, world.now))
        elif luck < 0.75:
            world.start()
        elif luck < 0.9:
            world.catch_up()
        else:
            world.run(words.Tick(world.now))
    world.lag = False
    world.catch_up()
    for _ in range(40):
        world.wait(S, beats="edge-0")
        world.run(words.BeatSeen("edge-1", world.now))
    assert world.core.idle
    for (node, kind, name), r in world.reports.items():
        data = r.event.data or {}
        if kind == "node":
            ready = world.condition(ObjectKey("", "nodes", "", node))["status"]
            assert ready == str(data["ready"]), f"seed {seed}"
            continue
        known = world.objects.get(ObjectKey("", "pods", "default", name))
        if known and known[1]["spec"]["nodeName"] == node and known[1]["metadata"]["uid"] == data["uid"]:
            assert known[1]["status"]["x"] == data["status"]["x"], f"seed {seed}"
