"""What a pod goes through, one story a test: stimuli in, what is asked for and told out."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core import instructions as do
from edge.core import stimuli as saw
from edge.core.backoff import NEVER_CRASHED, next_crash_delay_ms
from edge.core.container_config import Identity
from edge.core.settings import PodSettings
from edge.core.spec_hash import spec_hash
from tests.unit.edge_core.world import Obj, S, World, config_map, pod


def running(seed: int = 0, settings: PodSettings | None = None) -> World:
    world = World(settings, seed)
    world.up()
    world.complete()
    return world


def with_volume(name: str, uid: str) -> Obj:
    mounts = [{"name": "v", "mountPath": "/v"}]
    volumes = [{"name": "v", "configMap": {"name": "m"}}]
    return pod(name, uid, {"name": "main", "volumeMounts": mounts}, volumes=volumes)


def of(world: World, kind: type[Any]) -> list[Any]:
    return [i for i in world.asked if isinstance(i, kind)]


# --- starting -------------------------------------------------------------------------------------------------------


def test_a_pod_starts_step_by_step_and_tells_its_story() -> None:
    w = running()
    cause = w.apply_pod(pod("p", "u1"))
    w.run(0.0025)
    assert w.status("p")["phase"] == "Pending"
    assert w.container_status("p")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    w.run(1)
    kinds = [type(i).__name__ for i in w.asked if isinstance(i, do.Effect) and not isinstance(i, do.Inspect)]
    assert kinds == ["TakeSnapshot", "WriteVolumes", "EnsureSandbox", "PullImage", "RunContainer"]
    status = w.status("p")
    assert status["phase"] == "Running" and w.ready("p")
    assert status["podIP"] == w.engine.running("")[0].ip and status["hostIP"] == "10.0.0.7"
    last = w.report_log[-1]
    assert [h.what for h in last.report.hops] == [
        "edge.applied",
        "volume.written",
        "sandbox.started",
        "image.pulled",
        "container.started",
    ]
    assert last.cause == last.trace == cause
    assert "Started" in w.reasons() and "Pulled" in w.reasons()


def test_a_status_is_told_once_however_often_it_is_looked_at() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(1)
    told = len(w.report_log)
    w.run(3600)
    w.apply_pod({**pod("p", "u1"), "status": {"phase": "Running"}})  # its own report comes back from the API
    assert len(w.report_log) == told
    w.feed(saw.ReportAll(w.now_us, w.mono_us))
    assert len(w.report_log) == told + 1 and w.report_log[-1].cause == w.report_log[0].cause


def test_each_kind_of_event_has_a_subject_of_its_own_and_a_repeated_one_keeps_it() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(6)
    names = {e.report.reason: e.name for e in w.events}
    assert {"Pulled", "Started"} <= set(names) and len(set(names.values())) == len(names)
    assert all(n.startswith("p.") for n in names.values())


def test_nothing_is_asked_of_an_engine_that_is_not_there() -> None:
    w = World()
    w.apply_pod(pod("p", "u1"))
    w.run(600)
    assert w.asked == []
    w.up()
    w.run(5)
    assert w.ready("p")
    w.down()
    w.asked.clear()
    w.apply_pod(pod("q", "u2"))
    w.run(600)
    assert of(w, do.Effect) == []


def test_init_containers_run_one_after_the_other_before_the_others() -> None:
    w = running()
    w.exit_codes |= {"one": 0, "two": 0}
    inits: list[Obj] = [{"name": "one", "image": "app:1"}, {"name": "two", "image": "app:1"}]
    w.apply_pod(pod("p", "u1", {"name": "main"}, {"name": "other"}, initContainers=inits))
    w.run(0.003)
    assert w.container_status("p")["state"]["waiting"]["reason"] == "PodInitializing"
    w.run(5)
    assert w.start_order[:2] == ["one", "two"] and sorted(w.start_order[2:]) == ["main", "other"]
    assert w.ready("p")


def test_a_failing_init_container_is_tried_again_or_fails_the_pod() -> None:
    w = running()
    w.exit_codes["init"] = 1
    inits: list[Obj] = [{"name": "init", "image": "app:1"}]
    w.apply_pod(pod("again", "u1", initContainers=inits))
    w.apply_pod(pod("never", "u2", initContainers=inits, restartPolicy="Never"))
    w.run(60)
    assert w.container_status("again", "init")["restartCount"] >= 2
    assert w.status("again")["phase"] == "Pending"
    assert w.status("never")["phase"] == "Failed"
    assert "main" not in w.start_order
    w.exit_codes["init"] = 0
    w.run(120)
    assert w.ready("again")


def test_a_sidecar_starts_before_and_ends_after() -> None:
    w = running()
    side: Obj = {
        "name": "side",
        "image": "app:1",
        "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["ok"]}},
    }
    w.apply_pod(pod("p", "u1", initContainers=[side], restartPolicy="Never"))
    w.run(5)
    assert w.start_order == ["side"]
    [sidecar] = w.engine.running("side")
    w.probe(sidecar.id, "startup", True)
    w.run(5)
    assert w.start_order == ["side", "main"] and w.ready("p")
    w.exit(w.engine.running("main")[0].id, 0)
    w.run(10)
    assert w.status("p")["phase"] == "Succeeded"
    assert w.engine.running("side") == [] and w.engine.running("") == []
    assert w.container_status("p")["state"]["terminated"]["reason"] == "Completed"


# --- configuration --------------------------------------------------------------------------------------------------


def test_a_missing_config_map_for_a_volume_waits_and_for_a_variable_says_so() -> None:
    w = running()
    w.apply_pod(with_volume("volume", "u1"))
    ref = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "x"}}}
    w.apply_pod(pod("variable", "u2", {"name": "main", "env": [ref]}))
    w.run(30)
    assert w.container_status("volume")["state"]["waiting"]["reason"] == "ContainerCreating"
    assert 'configmap "m" not found' in w.container_status("volume")["state"]["waiting"]["message"]
    assert w.container_status("variable")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    assert "FailedMount" in w.reasons() and w.start_order == []
    cause = w.apply("configmaps", "m", config_map("m", x="1"))
    w.run(1)
    assert w.ready("volume") and w.ready("variable")
    assert {r.cause for r in w.report_log[-2:]} == {cause}
    w.apply("configmaps", "m", None)
    w.run(30)
    assert w.ready("volume") and w.ready("variable")  # what runs goes on


def test_a_changed_config_map_is_written_and_told_without_restart() -> None:
    w = running()
    w.apply("configmaps", "m", config_map("m", x="1"))
    w.apply_pod(with_volume("p", "u1"))
    w.run(1)
    told = len(w.report_log)
    cause = w.apply("configmaps", "m", config_map("m", x="2"))
    w.run(1)
    assert w.engine.volumes["u1"] == {"v/x": b"2"} and w.stopped == []
    [report] = w.report_log[told:]
    assert report.cause == cause and [h.what for h in report.report.hops] == ["edge.applied", "volume.written"]


def test_another_image_replaces_the_container_and_nothing_else_does() -> None:
    w = running()
    w.apply_pod(pod("p", "u1", {"name": "main"}, {"name": "other"}))
    w.run(1)
    [other] = w.engine.running("other")
    changed = pod("p", "u1", {"name": "main"}, {"name": "other"}, activeDeadlineSeconds=100_000)
    w.apply_pod(changed)
    w.run(1)
    assert w.stopped == []
    w.apply_pod(pod("p", "u1", {"name": "main", "image": "app:2"}, {"name": "other"}))
    w.run(5)
    [main] = w.engine.running("main")
    assert main.image == "app:2" and main.attempt == 1 and main.spec_hash == spec_hash("main", "app:2")
    assert w.engine.running("other") == [other] and w.ready("p")


# --- crashes and backoff --------------------------------------------------------------------------------------------


def test_crash_delays_are_those_of_kubernetes() -> None:
    settings, delays, previous = PodSettings(), [], NEVER_CRASHED
    for _ in range(8):
        previous = next_crash_delay_ms(previous, 1 * S, settings)
        delays.append(previous // 1000)
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert next_crash_delay_ms(300_000, 600 * S, settings) == 0


def test_a_crash_loop_waits_longer_each_time_even_over_a_restart_of_the_daemon() -> None:
    w = running()
    w.exit_codes["main"] = 3
    w.apply_pod(pod("p", "u1"))
    w.run(25)
    assert w.container_status("p")["restartCount"] == 2  # at once, and after 10 s
    waiting = w.container_status("p")["state"]["waiting"]
    assert waiting["reason"] == "CrashLoopBackOff" and "back-off 20s" in waiting["message"]
    assert w.container_status("p")["lastState"]["terminated"]["exitCode"] == 3
    w.crash()
    w.up()
    w.apply_pod(pod("p", "u1"), loaded=True)
    w.run(3)
    assert w.container_status("p")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert w.container_status("p")["restartCount"] == 2
    w.run(14)
    assert w.container_status("p")["restartCount"] == 3
    assert "back-off 40s" in w.container_status("p")["state"]["waiting"]["message"]


def test_a_wall_clock_that_jumps_back_does_not_stretch_the_wait() -> None:
    w = running()
    w.exit_codes["main"] = 3
    w.apply_pod(pod("p", "u1"))
    w.run(5)
    w.now_us -= 365 * 86_400 * S
    w.run(40)
    assert w.container_status("p")["restartCount"] >= 3


@pytest.mark.parametrize(
    ("policy", "code", "phase", "starts"),
    [
        ("Never", 0, "Succeeded", 1),
        ("Never", 1, "Failed", 1),
        ("OnFailure", 0, "Succeeded", 1),
        ("OnFailure", 1, "Running", 3),
        ("Always", 0, "Running", 3),
    ],
)
def test_restart_policies(policy: str, code: int, phase: str, starts: int) -> None:
    w = running()
    w.exit_codes["main"] = code
    w.apply_pod(pod("p", "u1", restartPolicy=policy))
    w.run(25)
    assert w.status("p")["phase"] == phase
    assert len(w.start_order) == starts
    # A finished pod stays finished, whatever happens to the daemon
    w.crash()
    w.up()
    w.apply_pod(pod("p", "u1", restartPolicy=policy), loaded=True)
    w.run(2)
    assert len(w.start_order) == starts
    assert w.status("p")["phase"] == phase


def test_a_pod_that_the_api_knows_as_finished_is_not_run() -> None:
    w = running()
    w.apply_pod({**pod("p", "u1", restartPolicy="Never"), "status": {"phase": "Succeeded"}})
    w.run(60)
    assert w.start_order == [] and w.reports == {}


def test_an_active_deadline_ends_the_pod() -> None:
    w = running()
    w.apply_pod(pod("p", "u1", activeDeadlineSeconds=60))
    w.run(50)
    assert w.ready("p")
    w.run(60)
    assert w.status("p")["phase"] == "Failed" and w.status("p")["reason"] == "DeadlineExceeded"
    assert w.engine.running("main") == []


def test_a_failed_pull_backs_off_and_heals() -> None:
    w = running()
    w.apply_pod(pod("p", "u1", {"name": "main", "image": "registry/none:1"}))
    w.run(0.5)
    assert w.container_status("p")["state"]["waiting"]["reason"] == "ErrImagePull"
    w.run(5)
    assert w.container_status("p")["state"]["waiting"]["reason"] == "ImagePullBackOff"
    w.images.add("registry/none:1")
    w.run(10)
    assert w.ready("p")


def test_a_restart_does_not_ask_the_registry_again() -> None:
    w = running()
    w.apply_pod(pod("p", "u1", {"name": "main", "imagePullPolicy": "Always"}))
    w.run(1)
    w.exit(w.engine.running("main")[0].id, 1)
    w.run(1)
    assert [p.policy for p in of(w, do.PullImage)] == ["Always", "IfNotPresent"]


# --- probes ---------------------------------------------------------------------------------------------------------


def probed_pod() -> Obj:
    http = {"httpGet": {"port": "web"}, "failureThreshold": 3, "successThreshold": 1}
    main: Obj = {
        "name": "main",
        "ports": [{"name": "web", "containerPort": 8080}],
        "startupProbe": {**http, "failureThreshold": 5},
        "livenessProbe": {**http, "terminationGracePeriodSeconds": 7},
        "readinessProbe": {**http, "successThreshold": 2},
    }
    return pod("p", "u1", main)


def test_the_startup_probe_comes_first_and_thresholds_count() -> None:
    w = running()
    w.apply_pod(probed_pod())
    w.run(1)
    [main] = w.engine.running("main")
    assert [k[1] for k in w.probes] == ["startup"]
    assert w.probes[main.id, "startup"].probe.handler.port == 8080  # type: ignore[union-attr]
    assert w.container_status("p")["started"] is False
    for _ in range(4):
        w.probe(main.id, "startup", False)
    w.probe(main.id, "startup", True)
    assert sorted(k[1] for k in w.probes) == ["liveness", "readiness"]
    assert w.container_status("p")["started"] is True and not w.ready("p")
    w.probe(main.id, "readiness", True)
    assert not w.ready("p")
    w.probe(main.id, "readiness", True)
    assert w.ready("p")
    for ok in (False, False, True, False, False):
        w.probe(main.id, "readiness", ok)
        w.probe(main.id, "liveness", ok)
    assert w.ready("p") and w.stopped == []
    w.probe(main.id, "readiness", False)
    assert not w.ready("p")


def test_a_failed_liveness_probe_restarts_with_its_own_grace() -> None:
    w = running()
    w.apply_pod(probed_pod())
    w.run(1)
    [main] = w.engine.running("main")
    w.probe(main.id, "startup", True)
    for _ in range(3):
        w.probe(main.id, "liveness", False)
    assert w.probes == {}
    w.run(5)
    assert w.stopped == [("u1", "main", 7)]
    [again] = w.engine.running("main")
    assert again.attempt == 1 and [k for k in w.probes] == [(again.id, "startup")]
    # Late answers about the old container mean nothing
    w.feed(saw.ProbeResult(w.now_us, w.mono_us, "u1", "main", main.id, "startup", True))
    assert w.container_status("p")["started"] is False


# --- deletion, orphans, adoption ------------------------------------------------------------------------------------


def deleted(obj: Obj, grace: int) -> Obj:
    return {
        **obj,
        "metadata": {**obj["metadata"], "deletionTimestamp": "2026-11-23T00:00:00Z", "deletionGracePeriodSeconds": grace},
    }


def test_deletion_stops_removes_and_says_gone_once() -> None:
    w = running()
    w.apply_pod(pod("p", "u1", {"name": "main"}, {"name": "other"}))
    w.run(6)
    w.apply_pod(deleted(pod("p", "u1", {"name": "main"}, {"name": "other"}), 9))
    w.run(30)
    assert sorted(w.stopped) == [("u1", "main", 9), ("u1", "other", 9)]
    assert w.engine.containers == {} and w.engine.volumes == {} and w.core.pods == {}
    assert w.reports["default", "p"] is None
    assert [r.report.status for r in w.report_log].count(None) == 1
    # The one before said how the containers ended, not that they are missing
    before = w.report_log[-2].report.status
    assert before is not None and all("terminated" in c["state"] for c in before["containerStatuses"])
    w.apply_pod(deleted(pod("p", "u1"), 9))  # the API has not heard it yet, and the daemon is asked again
    w.run(30)
    assert w.reports["default", "p"] is None and w.start_order.count("main") == 1


def test_gone_is_said_again_to_a_restored_log_for_as_long_as_the_object_is_here() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(6)
    w.apply_pod(deleted(pod("p", "u1"), 1))
    w.run(30)
    said = len(w.report_log)
    w.feed(saw.ReportAll(w.now_us, w.mono_us))
    assert len(w.report_log) == said + 1 and w.report_log[-1] == w.report_log[said - 1]
    w.apply("pods", "p", None)
    w.feed(saw.ReportAll(w.now_us, w.mono_us))
    assert len(w.report_log) == said + 1, "its tombstone is here: everybody knows"


def test_a_shortened_grace_kills() -> None:
    w = running()
    w.latency_us = lambda: 1000
    w.apply_pod(pod("p", "u1"))
    w.run(6)
    w.apply_pod(deleted(pod("p", "u1"), 600))
    w.apply_pod(deleted(pod("p", "u1"), 0))
    w.run(0.5)
    assert len(of(w, do.KillContainer)) == 1
    assert w.engine.running("main") == []


def test_a_start_from_an_earlier_life_is_found_before_a_pod_is_called_gone() -> None:
    """The sandbox is gone, the snapshot showed nothing, and then a start that the dead daemon had asked for happens."""
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(1)
    [main] = w.engine.running("main")
    w.remove(main.id)
    w.crash()
    w.lose_events = 1.0
    w.up()
    w.apply_pod(deleted(pod("p", "u1"), 1), loaded=True)
    w.apply_pod(pod("p", "u2"))
    w.run(1)
    late = Identity("u1", "default", "p", "main", 1, spec_hash("main", "app:1"), main.sandbox)
    w.engine.start(w.engine.create(late, "app:1", w.now_us).id, w.now_us)
    w.run(60)
    assert w.stopped == [("u1", "main", 1)]
    assert [c.pod_uid for c in w.engine.running("main")] == ["u2"]


def test_the_new_pod_of_a_name_waits_for_the_old_one_and_speaks_alone() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(6)
    w.apply_pod(pod("p", "u2"))
    told = len(w.report_log)
    w.run(30)
    assert w.stopped == [("u1", "main", 30)] and w.ready("p")
    assert {r.report.uid for r in w.report_log[told:]} == {"u2"}
    assert {c.pod_uid for c in w.engine.containers.values()} == {"u2"}


def test_a_pod_that_comes_back_while_it_ends_is_started_anew() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(6)
    w.apply("pods", "p", None)
    w.apply_pod(pod("p", "u1"))  # a scope that is reset: withdrawn and given again
    w.run(30)
    assert len(w.start_order) == 2 and w.ready("p")
    assert None not in [r.report.status for r in w.report_log]


def test_orphans_wait_for_the_replica_and_a_grace_period() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(1)
    w.crash()
    w.up()
    w.run(10_000)
    assert len(w.engine.running("main")) == 1
    w.complete()
    w.run(50)
    assert len(w.engine.running("main")) == 1
    w.run(60)
    assert w.engine.containers == {} and w.engine.volumes == {}
    assert w.reports["default", "p"] is None and w.report_log[-1].report.uid == "u1"


def test_an_adopted_pod_is_told_when_its_probes_have_answered() -> None:
    w = running()
    main: Obj = {"name": "main", "readinessProbe": {"tcpSocket": {"port": 1}}}
    w.apply_pod(pod("p", "u1", main))
    w.run(1)
    [one] = w.engine.running("main")
    w.probe(one.id, "readiness", True)
    w.crash()
    told = len(w.report_log)
    w.up()
    w.apply_pod(pod("p", "u1", main), loaded=True)
    w.run(1)
    assert len(w.report_log) == told
    w.probe(one.id, "readiness", True)
    assert len(w.report_log) == told + 1 and w.ready("p")
    assert w.stopped == [] and w.start_order == ["main"]
    assert w.report_log[-1].report.hops[0].what == "edge.loaded"
    # A probe that never answers can't keep it silent for ever
    w.crash()
    told = len(w.report_log)
    w.up()
    w.apply_pod(pod("p", "u1", main), loaded=True)
    w.run(10)
    assert len(w.report_log) == told + 1 and not w.ready("p")


def test_a_lost_sandbox_takes_its_containers_along_without_backoff() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(1)
    w.exit(w.engine.running("main")[0].id, 1)
    w.run(1)
    w.exit(w.engine.running("main")[0].id, 1)
    w.run(11)
    assert w.engine.running("main")[0].attempt == 2
    old = w.engine.running("")[0]
    w.remove(old.id)
    w.run(5)
    [sandbox], [main] = w.engine.running(""), w.engine.running("main")
    assert sandbox.id != old.id and main.sandbox == sandbox.id and main.attempt == 3
    assert w.ready("p")


def test_events_of_a_loop_are_told_at_powers_of_two() -> None:
    w = running(settings=PodSettings(crash_base_ms=1000, crash_max_ms=1000))
    w.exit_codes["main"] = 1
    w.apply_pod(pod("p", "u1"))
    w.run(300)
    started = [e.report.count for e in w.events if e.report.reason == "Started"]
    assert started[:4] == [1, 2, 4, 8] and len(started) < 12


@pytest.mark.parametrize(
    "spec",
    [
        {"dnsConfig": {"nameservers": 5}},
        {"volumes": [{"name": "v", "configMap": {"name": "m", "items": 5}}]},
        {"volumes": [{"name": "v", "projected": {"sources": 5}}]},
        {"containers": [{"name": "main", "image": "app:1", "envFrom": [{"configMapRef": {"name": "m"}, "prefix": 5}]}]},
    ],
)
def test_what_is_malformed_further_inside_keeps_one_pod_waiting(spec: Obj) -> None:
    w = running()
    w.apply("configmaps", "m", config_map("m", x="1"))
    w.apply_pod(pod("good", "u1"))
    bad = pod("bad", "u2")
    bad["spec"] |= spec
    w.apply_pod(bad)
    w.run(60)
    assert w.ready("good")
    assert w.status("bad")["phase"] in ("Pending", "Running")


def test_a_malformed_pod_does_not_stop_the_one_that_runs() -> None:
    w = running()
    w.apply_pod(pod("p", "u1"))
    w.run(1)
    broken = pod("p", "u1")
    broken["spec"]["containers"] = [{"name": 7}]
    w.apply_pod(broken)
    w.run(60)
    assert w.ready("p") and "InvalidPod" in w.reasons()


# --- claims ---------------------------------------------------------------------------------------------------------


def kept_volume(node: str = "edge-1", policy: str = "Delete", **meta: Any) -> Obj:
    csi = {"driver": "skerry.io/local", "volumeHandle": "pvc-1", "volumeAttributes": {"skerry.io/node": node}}
    ref = {"namespace": "default", "name": "c"}
    spec = {"csi": csi, "claimRef": ref, "persistentVolumeReclaimPolicy": policy}
    return {"metadata": {"name": "pvc-1", **meta}, "spec": spec}


def test_a_pod_waits_for_its_claim_to_be_bound() -> None:
    w = running()
    mounts = [{"name": "v", "mountPath": "/v"}]
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    w.apply_pod(pod("p", "u1", {"name": "main", "volumeMounts": mounts}, volumes=volumes))
    w.run(2)
    assert not w.engine.running("main")
    w.apply("persistentvolumeclaims", "c", {"metadata": {"name": "c"}, "spec": {"volumeName": "pvc-1"}})
    w.run(2)
    assert not w.engine.running("main")
    w.apply("persistentvolumes", "pvc-1", kept_volume())
    w.run(2)
    assert w.engine.running("main") and w.ready("p")


@pytest.mark.parametrize(
    ("volume", "removed"),
    [
        (kept_volume(), False),
        (kept_volume(deletionTimestamp="2026-01-01T00:00:00Z"), True),
        (kept_volume(policy="Retain", deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (kept_volume("edge-2", deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (None, False),
    ],
)
def test_a_folder_goes_only_when_its_volume_is_being_deleted_with_its_data(volume: Obj | None, removed: bool) -> None:
    w = running()
    w.apply("persistentvolumes", "pvc-1", kept_volume())
    w.apply("persistentvolumes", "pvc-1", volume)
    assert of(w, do.RemoveKept) == ([do.RemoveKept("pvc-1")] if removed else [])
