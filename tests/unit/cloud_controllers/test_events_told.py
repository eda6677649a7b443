"""What controllers tell of their work as Events: in which words, of what, how often, and never at the cost of the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog

from bus.kube.storage import StorageError, Stored
from cloud.core.writes import Write
from cloud.standalone import recorder
from cloud.standalone.controllers import telling
from cloud.standalone.controllers.correlating import ALIKE_MAX, ALIKE_US, BURST, COMBINED, OBJECTS_MAX, REFILL_US, Correlator
from cloud.standalone.controllers.telling import Done, Said
from cloud.standalone.recorder import QUEUED_MAX, Recorder
from cloud.standalone.view import IndexedView
from schemas.subjects import ObjectKey
from tests.unit.cloud_controllers.kubelets import Cluster, Object, deployment

S = 1_000_000
Line = tuple[str, str, str]  # type, reason, message


async def lines(cluster: Cluster, kind: str, name: str = "") -> list[Line]:
    """What is told of objects of a kind, in order of the words."""
    found = []
    for e in await cluster.list("", "events"):
        about = e["involvedObject"]
        if about["kind"] == kind and about["name"].startswith(name) and e["source"]["component"] != "default-scheduler":
            found += [(e["type"], e["reason"], e["message"])] * e["count"]
    return sorted(found)


async def until(cluster: Cluster, kind: str, wanted: Callable[[list[Line]], bool], name: str = "") -> list[Line]:
    """Events come when they come: behind what they tell of."""
    async with asyncio.timeout(30):
        while not wanted(found := await lines(cluster, kind, name)):
            await cluster.settle(ends=lambda p: "" if p["spec"]["restartPolicy"] == "Always" else "Succeeded")
            await asyncio.sleep(0.01)
    return found


def template(restart: str = "Always") -> Object:
    containers = [{"name": "c", "image": "busybox:1"}]
    return {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": containers, "restartPolicy": restart}}


def load(kind: str, **spec: Any) -> Object:
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template(), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}


# --- all of it together ----------------------------------------------------------------------------------------------


async def test_a_deployment_tells_of_its_sets_and_a_set_of_its_pods(cluster: Cluster) -> None:
    await cluster.node("a")
    await cluster.create("apps", "deployments", deployment(replicas=3))
    await cluster.settle()
    (rs,) = [r["metadata"]["name"] for r in await cluster.list("apps", "replicasets")]
    pods = sorted(p["metadata"]["name"] for p in await cluster.list("", "pods"))
    await cluster.patch("apps", "deployments", "web", {"spec": {"replicas": 1}})
    said = await until(cluster, "Deployment", lambda found: len(found) == 2)
    down, up = f"Scaled down replica set {rs} from 3 to 1", f"Scaled up replica set {rs} from 0 to 3"
    assert said == [("Normal", "ScalingReplicaSet", down), ("Normal", "ScalingReplicaSet", up)]
    told = await until(cluster, "ReplicaSet", lambda found: len(found) == 5)
    await cluster.settle()
    (left,) = [p["metadata"]["name"] for p in await cluster.list("", "pods")]
    assert told[:3] == [("Normal", "SuccessfulCreate", f"Created pod: {p}") for p in pods]
    assert told[3:] == [("Normal", "SuccessfulDelete", f"Deleted pod: {p}") for p in pods if p != left]
    event = next(e for e in await cluster.list("", "events") if e["reason"] == "ScalingReplicaSet")
    assert event["source"] == {"component": "deployment-controller"} and event["firstTimestamp"] and event["lastTimestamp"]
    owner = (await cluster.get("apps", "deployments", "web"))["metadata"]["uid"]
    assert event["involvedObject"]["uid"] == owner and event["involvedObject"]["apiVersion"] == "apps/v1"


async def test_what_is_done_again_is_counted(cluster: Cluster) -> None:
    await cluster.create("apps", "deployments", deployment(replicas=1))
    for n, replicas in enumerate((1, 0, 1, 0), 1):
        await cluster.patch("apps", "deployments", "web", {"spec": {"replicas": replicas}})
        await until(cluster, "Deployment", lambda found: len(found) == n)  # noqa: B023
    events = [e for e in await cluster.list("", "events") if e["reason"] == "ScalingReplicaSet"]
    assert sorted((e["message"].split()[1], e["count"]) for e in events) == [("down", 2), ("up", 2)]


@pytest.mark.parametrize(
    ("resource", "made", "wanted"),
    [
        (
            "statefulsets",
            load(
                "StatefulSet",
                serviceName="x",
                replicas=1,
                volumeClaimTemplates=[
                    {
                        "metadata": {"name": "disk"},
                        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                    }
                ],
            ),
            ["Create Claim disk-x-0 Pod x-0 in StatefulSet x success", "Create Pod x-0 in StatefulSet x successful"],
        ),
        ("daemonsets", load("DaemonSet"), ["Created pod: x-*"]),
    ],
    ids=["statefulset", "daemonset"],
)
async def test_sets_tell_of_what_they_made(cluster: Cluster, resource: str, made: Object, wanted: list[str]) -> None:
    await cluster.node("a")
    await cluster.create("apps", resource, made)
    said = await until(cluster, made["kind"], lambda found: len(found) >= len(wanted))
    for (kind, reason, message), words in zip(said, wanted, strict=True):
        assert (kind, reason) == ("Normal", "SuccessfulCreate")
        assert message == words or (words.endswith("*") and message.startswith(words[:-1]))


async def test_a_job_tells_of_its_pods_and_its_end(cluster: Cluster) -> None:
    await cluster.node("a")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": template("Never")}}
    await cluster.create("batch", "jobs", {**job, "spec": {**job["spec"], "suspend": True}})  # type: ignore[dict-item]
    await until(cluster, "Job", lambda found: len(found) == 1)
    await cluster.patch("batch", "jobs", "x", {"spec": {"suspend": False}})
    said = await until(cluster, "Job", lambda found: len(found) == 4)
    (pod,) = [p["metadata"]["name"] for p in await cluster.list("", "pods")]
    assert said == [
        ("Normal", "Completed", "Job completed"),
        ("Normal", "Resumed", "Job resumed"),
        ("Normal", "SuccessfulCreate", f"Created pod: {pod}"),
        ("Normal", "Suspended", "Job suspended"),
    ]


async def test_a_budget_that_covers_nothing_says_so(cluster: Cluster) -> None:
    spec = {"selector": {"matchLabels": {"app": "x"}}, "minAvailable": 1}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}, "spec": spec}
    await cluster.create("policy", "poddisruptionbudgets", budget)
    said = await until(cluster, "PodDisruptionBudget", bool)
    assert said == [("Normal", "NoPods", "No matching pods found")]


# --- words -----------------------------------------------------------------------------------------------------------


def seen(kind: str, resource: str, group: str = "", name: str = "x", **fields: Any) -> Stored:
    meta = {"name": name, "namespace": "default", "uid": f"u-{name}"}
    obj = {"apiVersion": f"{group}/v1".removeprefix("/"), "kind": kind, "metadata": meta, **fields}
    return Stored(ObjectKey(group, resource, "default", name), 1, obj)


def done(verb: Any, before: Stored | None, now: Stored) -> Done:
    return Done(Write(verb, now.key, now.object), before.object if before else None, now.object)


def ended(kind: str, reason: str = "", message: str = "") -> Object:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def job_seen(status: Object | None = None, **spec: Any) -> Stored:
    return seen("Job", "jobs", "batch", spec=spec, status=status or {})


def pod_seen(phase: str) -> Stored:
    return seen("Pod", "pods", name="p", spec={"nodeName": "a"}, status={"phase": phase})


def rs_seen(replicas: int) -> Stored:
    return seen("ReplicaSet", "replicasets", "apps", name="web-1", spec={"replicas": replicas})


LIMIT = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
ACTIVE = {"active": [{"name": "x", "uid": "u-x"}]}
FAILED_POD = "Found failed daemon pod default/p on node a, will try to kill it"
SUCCEEDED_POD = "Found succeeded daemon pod default/p on node a, will try to delete it"
DELETED = ("Normal", "SuccessfulDelete", "Deleted pod: p")
TOO_MANY = "Too many succeeded pods running after completion count reached"


@pytest.mark.parametrize(
    ("controller", "made", "wanted"),
    [
        ("deployment", done("create", None, rs_seen(0)), []),
        ("deployment", done("update", rs_seen(2), rs_seen(2)), []),
        ("deployment", done("delete", rs_seen(0), rs_seen(0)), []),
        (
            "deployment",
            done("update", rs_seen(2), rs_seen(5)),
            [("Normal", "ScalingReplicaSet", "Scaled up replica set web-1 from 2 to 5")],
        ),
        ("replicationcontroller", done("delete", pod_seen("Running"), pod_seen("Running")), [DELETED]),
        ("replicaset", done("update", pod_seen("Running"), pod_seen("Running")), []),
        (
            "daemonset",
            done("delete", pod_seen("Failed"), pod_seen("Failed")),
            [("Warning", "FailedDaemonPod", FAILED_POD), DELETED],
        ),
        (
            "daemonset",
            done("delete", pod_seen("Succeeded"), pod_seen("Succeeded")),
            [("Normal", "SucceededDaemonPod", SUCCEEDED_POD), DELETED],
        ),
        ("daemonset", done("delete", pod_seen("Running"), pod_seen("Running")), [DELETED]),
        (
            "statefulset",
            done("delete", pod_seen("Running"), pod_seen("Running")),
            [("Normal", "SuccessfulDelete", "Delete Pod p in StatefulSet x successful")],
        ),
        ("job", done("status", job_seen(), job_seen(ended("Failed", *LIMIT))), [("Warning", *LIMIT)]),
        ("job", done("status", job_seen(ended("Failed", *LIMIT)), job_seen(ended("Failed", *LIMIT))), []),
        ("job", done("status", job_seen(), job_seen(ended("SuccessCriteriaMet"))), []),
        (
            "job",
            done("status", job_seen(), job_seen({**ended("Complete"), "succeeded": 3}, completions=2)),
            [("Warning", "TooManySucceededPods", TOO_MANY), ("Normal", "Completed", "Job completed")],
        ),
        ("cronjob", done("create", None, job_seen()), [("Normal", "SuccessfulCreate", "Created job x")]),
        ("cronjob", done("delete", job_seen(), job_seen()), [("Normal", "SuccessfulDelete", "Deleted job x")]),
        (
            "cronjob",
            done("status", seen("CronJob", "cronjobs", "batch", status=ACTIVE), seen("CronJob", "cronjobs", "batch")),
            [("Normal", "SawCompletedJob", "Saw completed job: x, condition: Complete")],
        ),
        (
            "disruption",
            done(
                "status",
                None,
                seen(
                    "PodDisruptionBudget",
                    "poddisruptionbudgets",
                    "policy",
                    status={"conditions": [{"type": "DisruptionAllowed", "reason": "SyncFailed", "message": "no scale"}]},
                ),
            ),
            [
                (
                    "Warning",
                    "CalculateExpectedPodCountFailed",
                    "Failed to calculate the number of expected pods: no scale",
                )
            ],
        ),
        ("scheduler", done("create", None, pod_seen("Running")), []),
    ],
)
def test_words(controller: str, made: Done, wanted: list[Line]) -> None:
    cluster = Cluster()
    view = IndexedView(cluster.registry.reader, cluster.registry.catalog)
    ends = job_seen(ended("Complete"))
    cluster.storage.cache.apply(1, ends.key, ends.object)
    told = telling.of(view, controller, seen("Owner", "owners"), made)
    assert [(s.type, s.reason, s.message) for s in told] == wanted
    assert all(s.component == telling.COMPONENTS[controller] for s in told)


@pytest.mark.parametrize(
    ("controller", "resource", "wanted"),
    [
        ("replicaset", ("", "pods"), ("replicaset-controller", "FailedCreate", "Error creating: no")),
        ("replicationcontroller", ("", "pods"), ("replication-controller", "FailedCreate", "Error creating: no")),
        (
            "statefulset",
            ("", "pods"),
            ("statefulset-controller", "FailedCreate", "Create Pod p in StatefulSet x failed error: no"),
        ),
        ("cronjob", ("batch", "jobs"), ("cronjob-controller", "FailedCreate", "Error creating job: no")),
        (
            "deployment",
            ("apps", "replicasets"),
            ("deployment-controller", "ReplicaSetCreateError", 'Failed to create new replica set "p": no'),
        ),
    ],
)
def test_words_for_what_is_not_let_in(controller: str, resource: tuple[str, str], wanted: Line) -> None:
    write = Write("create", ObjectKey(*resource, "default", "p"), {})
    said = telling.refused(controller, seen("Owner", "owners"), write, "no")
    assert (said.component, said.reason, said.message) == wanted and said.type == "Warning"


# --- how often -------------------------------------------------------------------------------------------------------


def said_of(name: str = "x", message: str = "m", reason: str = "R") -> Said:
    return Said(seen("Owner", "owners", name=name), reason, message, "test-controller")


def test_what_is_alike_is_combined_and_a_budget_ends_the_rest() -> None:
    one = Correlator()
    taken = [one.take(said_of(message=f"m{n}"), S) for n in range(BURST + 5)]
    told = [t for t in taken if t is not None]
    assert len(told) == BURST and taken[BURST:] == [None] * 5
    apart, combined = told[: ALIKE_MAX - 1], told[ALIKE_MAX - 1 :]
    assert [(s.message, series) for s, series in apart] == [(f"m{n}", f"m{n}") for n in range(ALIKE_MAX - 1)]
    assert {series for _, series in combined} == {COMBINED} and combined[0][0].message == f"{COMBINED}m{ALIKE_MAX - 1}"
    # Others are told of all the same, and so is this one when time has passed: one for each REFILL_US.
    assert one.take(said_of("y"), S) is not None
    assert one.take(said_of(reason="Other"), S) is None
    later = S + REFILL_US
    assert one.take(said_of(message="m99"), later) is not None and one.take(said_of(message="m99"), later) is None
    assert one.take(said_of(message="m100"), later + ALIKE_US + 1) == (said_of(message="m100"), "m100")
    # A clock that was set back gives nothing, and takes nothing for ever.
    assert one.take(said_of("y"), 0) is not None


def test_the_same_words_are_never_combined() -> None:
    one = Correlator()
    taken = [one.take(said_of(), S) for _ in range(BURST)]
    assert all(t is not None and t[1] == "m" for t in taken)


def test_no_more_objects_are_remembered_than_agreed() -> None:
    one = Correlator()
    for n in range(OBJECTS_MAX + 100):
        one.take(said_of(f"x{n}"), S)
    assert len(one._budgets) == len(one._alike) == OBJECTS_MAX


# --- beside the work -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def recording(cluster: Cluster, leads: Callable[[], bool] = lambda: True) -> AsyncIterator[Recorder]:
    view = IndexedView(cluster.registry.reader, cluster.registry.catalog)
    one = Recorder(cluster.registry, view, leads=leads, now_us=cluster.registry.now_us)
    task = asyncio.create_task(one.run())
    try:
        yield one
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def messages(cluster: Cluster) -> list[str]:
    return sorted(e["message"] for e in await cluster.list("", "events"))


async def test_the_combined_one_counts_and_shows_the_last_message(cluster: Cluster) -> None:
    async with recording(cluster) as one:
        for n in range(ALIKE_MAX + 4):
            one.add(said_of(message=f"m{n:02}"), "system:controller:test")
        async with asyncio.timeout(30):
            while len(one) or f"{COMBINED}m{ALIKE_MAX + 3}" not in await messages(cluster):
                await asyncio.sleep(0.01)
    (combined,) = [e for e in await cluster.list("", "events") if e["message"].startswith(COMBINED)]
    assert combined["count"] == 5 and len(await messages(cluster)) == ALIKE_MAX


async def test_a_full_queue_and_a_lost_lead_cost_words_only(cluster: Cluster) -> None:
    one = Recorder(cluster.registry, cluster.runner._view, leads=lambda: False, now_us=cluster.registry.now_us)
    with structlog.testing.capture_logs() as logs:
        for n in range(QUEUED_MAX + 3):
            one.add(said_of(f"x{n}"), "system:controller:test")
    assert (len(one), one.untold) == (QUEUED_MAX, 3)
    assert [line["event"] for line in logs] == ["controllers.events_dropped"]
    leads = False
    async with recording(cluster, lambda: leads) as other:
        other.add(said_of(message="before"), "system:controller:test")
        async with asyncio.timeout(30):
            while len(other):
                await asyncio.sleep(0.01)
        leads = True
        other.add(said_of(message="after"), "system:controller:test")
        async with asyncio.timeout(30):
            while await messages(cluster) != ["after"]:
                await asyncio.sleep(0.01)


async def test_a_log_that_is_away_is_asked_again_and_a_namespace_that_is_gone_is_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "RETRY_S", 0.01)
    async with recording(cluster) as one:
        gone = seen("Owner", "owners")
        gone = Stored(gone.key._replace(namespace="gone"), 1, gone.object)
        one.add(Said(gone, "R", "lost", "test-controller"), "system:controller:test")
        async with asyncio.timeout(30):
            while len(one):
                await asyncio.sleep(0.01)
        cluster.storage.fail_next = StorageError("the log is away")
        one.add(said_of(), "system:controller:test")
        async with asyncio.timeout(30):
            while await messages(cluster) != ["m"]:
                await asyncio.sleep(0.01)
        assert cluster.storage.fail_next is None and one.untold == 0


async def test_words_that_fail_do_not_stop_the_work(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[Said]:
        raise ValueError("no words")

    monkeypatch.setattr(telling, "of", fails)
    await cluster.create("apps", "deployments", deployment(replicas=2))
    await cluster.quiet()
    assert len(await cluster.list("", "pods")) == 2 and await lines(cluster, "Deployment") == []
