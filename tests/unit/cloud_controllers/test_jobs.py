"""Jobs and CronJobs through the API: done as often as wanted, counted once, given up, suspended, repeated, forgotten."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bus.kube.errors import StatusError
from cloud.standalone.controllers import cronjob, indexes
from cloud.standalone.controllers import job as jobs
from cloud.standalone.controllers.base import Plan
from cloud.standalone.view import IndexedView
from schemas.subjects import ObjectKey
from tests.unit.cloud_controllers.kubelets import HOW, Cluster, Object, condition

S = 1_000_000


def job(name: str = "work", pod: Object | None = None, **spec: Any) -> Object:
    containers = [{"name": "c", "image": "busybox:1"}]
    template = {"spec": {"containers": containers, "restartPolicy": "Never", **(pod or {})}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def cron(name: str = "tick", schedule: str = "* * * * *", **spec: Any) -> Object:
    meta = {"name": name}
    spec = {"schedule": schedule, "jobTemplate": {"spec": job()["spec"]}, **spec}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec}


@pytest.fixture
async def one(cluster: Cluster) -> Cluster:
    await cluster.node("edge-1", cpu="100")
    return cluster


async def status(cluster: Cluster, name: str = "work") -> Object:
    found: Object = (await cluster.get("batch", "jobs", name))["status"]
    return found


async def test_a_job_runs_as_often_as_it_is_wanted(one: Cluster) -> None:
    await one.create("batch", "jobs", job(completions=5, parallelism=2))
    most = 0
    for _ in range(50):
        await one.quiet()
        most = max(most, sum(p["status"].get("phase") == "Running" for p in await one.list("", "pods")))
        if not await one.kubelets(ends=lambda _: "Succeeded"):
            break
    s = await status(one)
    assert (s["succeeded"], s.get("failed"), s.get("active"), most) == (5, None, None, 2)
    assert s["uncountedTerminatedPods"] == {} and s["completionTime"] and s["startTime"]
    assert {c["type"]: c["status"] for c in s["conditions"]} == {"SuccessCriteriaMet": "True", "Complete": "True"}
    pods = await one.list("", "pods")
    assert len(pods) == 5 and not any(p["metadata"].get("finalizers") for p in pods)


async def test_an_end_is_counted_though_its_pod_is_deleted(one: Cluster) -> None:
    await one.create("batch", "jobs", job(completions=2, parallelism=1))
    await one.settle()
    (first,) = await one.list("", "pods")
    await one.kubelets(ends=lambda _: "Succeeded")
    await one.delete("", "pods", first["metadata"]["name"], grace_s=0)
    await one.settle(ends=lambda _: "Succeeded")
    assert (await status(one))["succeeded"] == 2 and len(await one.list("", "pods")) == 1


async def test_a_job_is_given_up_after_its_failures(one: Cluster) -> None:
    await one.create("batch", "jobs", job(backoffLimit=2))
    await one.settle(ends=lambda _: "Failed")
    s = await status(one)
    assert s["failed"] == 3 and len(await one.list("", "pods")) == 3
    assert condition({"status": s}, "Failed")["reason"] == "BackoffLimitExceeded"
    assert condition({"status": s}, "Failed")["message"] == "Job has reached the specified backoff limit"


async def test_a_deadline_ends_what_runs(one: Cluster) -> None:
    await one.create("batch", "jobs", job(activeDeadlineSeconds=1, parallelism=2, completions=4))
    await one.settle()

    def late() -> bool:
        return bool(condition(one.storage.list("batch", "jobs")[0].object, "FailureTarget"))

    await one.until(late)
    await one.settle()
    assert condition({"status": await status(one)}, "Failed")["reason"] == "DeadlineExceeded"
    assert await one.list("", "pods") == []


async def test_a_suspended_job_waits_and_loses_nothing(one: Cluster) -> None:
    await one.create("batch", "jobs", job(suspend=True, completions=3, parallelism=1))
    await one.settle()
    assert await one.list("", "pods") == [] and "startTime" not in await status(one)
    await one.patch("batch", "jobs", "work", {"spec": {"suspend": False}})
    await one.settle()
    assert len(await one.list("", "pods")) == 1
    await one.patch("batch", "jobs", "work", {"spec": {"suspend": True}})
    await one.settle()
    assert await one.list("", "pods") == [] and (await status(one)).get("failed") is None
    await one.patch("batch", "jobs", "work", {"spec": {"suspend": False}})
    await one.settle(ends=lambda _: "Succeeded")
    assert (await status(one))["succeeded"] == 3


async def test_each_index_is_done_once(one: Cluster) -> None:
    await one.create("batch", "jobs", job(completionMode="Indexed", completions=4, parallelism=4, backoffLimit=9))
    await one.settle()
    pods = await one.list("", "pods")
    assert sorted(p["spec"]["hostname"] for p in pods) == [f"work-{i}" for i in range(4)]
    (variable,) = pods[0]["spec"]["containers"][0]["env"]
    assert variable["name"] == "JOB_COMPLETION_INDEX"
    await one.kubelets(ends=lambda p: "Failed" if p["spec"]["hostname"] == "work-2" else "Succeeded")
    await one.quiet()
    assert (await status(one))["completedIndexes"] == "0,1,3"
    await one.settle(ends=lambda _: "Succeeded")
    s = await status(one)
    assert (s["completedIndexes"], s["succeeded"], s["failed"]) == ("0-3", 4, 1)


def test_indexes_are_written_short() -> None:
    assert indexes.text([5, 1, 3, 4, 7, 8]) == "1,3-5,7,8" and indexes.parse("1,3-5,7,8") == [1, 3, 4, 5, 7, 8]


async def test_a_job_that_is_deleted_lets_its_pods_go(one: Cluster) -> None:
    await one.create("batch", "jobs", job())
    await one.settle()
    await one.delete("batch", "jobs", "work", propagation="Background")
    await one.settle()
    assert await one.list("", "pods") == []
    await one.create("batch", "jobs", job("next"))
    await one.settle()
    await one.delete("batch", "jobs", "next", propagation="Foreground")
    await one.settle()
    assert await one.list("", "pods") == [] == await one.list("batch", "jobs")


async def test_a_finished_job_goes_when_its_time_is_over(one: Cluster) -> None:
    await one.create("batch", "jobs", job(ttlSecondsAfterFinished=0))
    await one.settle(ends=lambda _: "Succeeded")
    assert await one.list("batch", "jobs") == [] == await one.list("", "pods")


@pytest.mark.parametrize("pause_s", [0, 30, 90])
async def test_failures_are_waited_off_ever_longer(one: Cluster, pause_s: int) -> None:
    """Three failures: 40 seconds from the last one, which the nodes here say was at the beginning of 2026."""
    await one.create("batch", "jobs", job(backoffLimit=9, completions=4, parallelism=3))
    await one.settle()
    await one.kubelets(ends=lambda _: "Failed")
    pods = list(one.storage.list("", "pods"))
    start_us = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * S
    assert jobs._backoff_us({"failed": 3}, pods, start_us + pause_s * S) == (40 - pause_s) * S
    assert jobs._backoff_us({"failed": 30}, pods, start_us) == jobs.BACKOFF_US_MAX


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (job(pod={"restartPolicy": "Always"}), "spec.template.spec.restartPolicy"),
        (job(parallelism=-1), "spec.parallelism"),
        (job(completionMode="Indexed", parallelism=1), "spec.completions"),
        (cron(schedule="* * *"), "spec.schedule"),
        (cron(timeZone="Mars/Olympus"), "spec.timeZone"),
        (cron(concurrencyPolicy="Maybe"), "spec.concurrencyPolicy"),
        (cron(name="x" * 53), "metadata.name"),
    ],
)
async def test_what_is_invalid(one: Cluster, obj: Object, field: str) -> None:
    with pytest.raises(StatusError) as e:
        await one.create("batch", obj["kind"].lower() + "s", obj)
    assert e.value.code == 422 and [c["field"] for c in e.value.details["causes"]] == [field]


async def test_the_template_of_a_job_is_fixed(one: Cluster) -> None:
    await one.create("batch", "jobs", job(suspend=True))
    with pytest.raises(StatusError, match="immutable"):
        await one.patch("batch", "jobs", "work", {"spec": {"template": {"spec": {"hostNetwork": True}}}})
    await one.patch("batch", "jobs", "work", {"spec": {"parallelism": 3}})


# --- cron jobs: asked with a time of ours ----------------------------------------------------------------------------


def look(cluster: Cluster, now_us: int, name: str = "tick") -> Plan:
    view = IndexedView(cluster.storage, cluster.registry.catalog)
    for kind in (("batch", "jobs"), ("batch", "cronjobs")):
        view.replace(kind, cluster.storage.list(*kind))
    return cronjob.reconcile(view, ObjectKey("batch", "cronjobs", "default", name), now_us)


def creation(cluster: Cluster) -> int:
    meta = cluster.storage.list("batch", "cronjobs")[0].object["metadata"]
    return round(datetime.fromisoformat(meta["creationTimestamp"]).timestamp()) * S


def made(plan: Plan) -> list[str]:
    return [w.object["metadata"]["name"] for w in plan.writes if w.verb == "create" and w.object is not None]


async def test_each_time_has_its_job_and_a_missed_one_is_made_up_for_once(one: Cluster) -> None:
    await one.create("batch", "cronjobs", cron())
    start = creation(one)
    minute = start // (60 * S)
    plan = look(one, start)
    assert made(plan) == [] and plan.again_us is not None and 0 < plan.again_us <= 60 * S
    assert made(look(one, (minute + 1) * 60 * S)) == [f"tick-{minute + 1}"]
    assert made(look(one, (minute + 5000) * 60 * S + 1)) == [f"tick-{minute + 5000}"], "the last one only"


async def test_what_is_too_late_is_left_out(one: Cluster) -> None:
    await one.create("batch", "cronjobs", cron(schedule="@hourly", startingDeadlineSeconds=30))
    hour = creation(one) // (3600 * S) + 1
    assert len(made(look(one, hour * 3600 * S + 10 * S))) == 1
    assert made(look(one, hour * 3600 * S + 40 * S)) == []


@pytest.mark.parametrize(("policy", "created", "deleted"), [("Allow", 1, 0), ("Forbid", 0, 0), ("Replace", 1, 1)])
async def test_a_job_that_still_runs(one: Cluster, policy: str, created: int, deleted: int) -> None:
    await one.create("batch", "cronjobs", cron(concurrencyPolicy=policy))
    owner = (await one.get("batch", "cronjobs", "tick"))["metadata"]["uid"]
    running = job("tick-1", suspend=True)
    ref = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": owner, "controller": True}
    running["metadata"]["ownerReferences"] = [ref]
    await one.create("batch", "jobs", running)
    await one.quiet()
    plan = look(one, creation(one) + 61 * S)
    assert len(made(plan)) == created and sum(w.verb == "delete" for w in plan.writes) == deleted
    active = (await one.get("batch", "cronjobs", "tick"))["status"]["active"]
    assert [a["name"] for a in active] == ["tick-1"]


async def test_suspended_it_starts_nothing_and_old_jobs_are_forgotten(one: Cluster) -> None:
    await one.create("batch", "cronjobs", cron(suspend=True, successfulJobsHistoryLimit=2))
    assert made(look(one, creation(one) + 600 * S)) == []
    owner = (await one.get("batch", "cronjobs", "tick"))["metadata"]["uid"]
    for i in range(4):
        old = job(f"tick-{i}")
        ref = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": owner, "controller": True}
        old["metadata"]["ownerReferences"] = [ref]
        await one.create("batch", "jobs", old)
        await one.settle(ends=lambda _: "Succeeded")
    assert [j["metadata"]["name"] for j in await one.list("batch", "jobs")] == ["tick-2", "tick-3"]
    assert (await one.get("batch", "cronjobs", "tick"))["status"]["lastSuccessfulTime"]


async def fail(cluster: Cluster, code: int, **more: Any) -> None:
    """The pod of the job that runs ends so."""
    await cluster.settle()
    (pod,) = [p for p in await cluster.list("", "pods") if p["status"]["phase"] == "Running"]
    ended = {"name": "c", "restartCount": 0, "ready": False, "image": "i", "imageID": ""}
    pod["status"]["containerStatuses"] = [{**ended, "state": {"terminated": {"exitCode": code}}}]
    pod["status"]["conditions"] += [{"type": k, "status": "True"} for k in more.get("conditions", ())]
    pod["status"]["phase"] = "Failed"
    name = pod["metadata"]["name"]
    await cluster.registry.update("", "pods", "default", name, pod, how=HOW, subresource="status")
    await cluster.quiet()


RULES = [
    {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [7]}},
]


async def test_a_failure_that_no_retry_helps_against_ends_the_job(one: Cluster) -> None:
    await one.create("batch", "jobs", job(podFailurePolicy={"rules": RULES}))
    await fail(one, 42)
    s = await status(one)
    failed = condition({"status": s}, "Failed")
    assert (failed["status"], failed["reason"], s["failed"]) == ("True", "PodFailurePolicy", 1)
    assert "failed with exit code 42 matching FailJob rule at index 0" in failed["message"]


async def test_a_pod_that_was_in_the_way_is_not_the_programs_fault(one: Cluster) -> None:
    await one.create("batch", "jobs", job(backoffLimit=0, podFailurePolicy={"rules": RULES}))
    await fail(one, 137, conditions=["DisruptionTarget"])
    s = await status(one)
    assert s.get("failed") is None and not condition({"status": s}, "FailureTarget")
    await one.settle()
    assert [p["status"]["phase"] for p in await one.list("", "pods")].count("Running") == 1, "another one in its place"
    await fail(one, 1)
    assert condition({"status": await status(one)}, "Failed")["reason"] == "BackoffLimitExceeded"
