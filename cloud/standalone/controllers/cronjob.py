"""CronJob: a Job at each time of a schedule.  What was missed while nothing ran here is made up for once, not for each time.

A Job is named for its minute, so no time is served twice, however often this stops between two writes.
Source: Kubernetes documentation, "CronJob" (concurrency policy, starting deadline, history limits, time zones).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloud.core.writes import Write
from cloud.standalone.controllers import base
from cloud.standalone.controllers import job as jobs
from cloud.standalone.controllers.base import CRONJOBS, JOBS, Controller, Object, Plan, Seen, View, at
from schemas import cron, times
from schemas.subjects import ObjectKey

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
HISTORY = {"Complete": ("successfulJobsHistoryLimit", 3), "Failed": ("failedJobsHistoryLimit", 1)}
MINUTE_US = 60 * times.US_PER_S
# The last missed time is looked for in ever longer times past: of a schedule with many, only those of the first are walked.
WINDOWS_US = tuple(n * MINUTE_US for n in (10, 120, 2 * 24 * 60, 63 * 24 * 60, 5 * 366 * 24 * 60))


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if (s.key.group, s.key.resource) == CRONJOBS:
        yield s.key
    else:
        owner = base.controller_of(s.object) or {}
        if owner.get("kind") == "CronJob":
            yield ObjectKey(*CRONJOBS, s.key.namespace, str(owner.get("name")))


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    cj = view.get(key)
    if cj is None or base.deleting(cj.object):
        return Plan()
    mine = [j for j in view.owned(base.uid(cj.object)) if (j.key.group, j.key.resource) == JOBS]
    active = [j for j in mine if not jobs.ended(j.object)]
    writes = _forget(cj, mine)
    status = _status(cj.object, active, mine)
    again_us = None
    if not at(cj.object, "spec", "suspend"):
        try:
            due, again_us = _due(cj.object, now_us)
        except cron.BadSchedule:
            due = None  # valid when it was stored: the time zone is unknown here
        if due is not None:
            writes += _start(view, cj, active, due, status)
    if status != (cj.object.get("status") or {}):
        writes.append(base.status(cj, {**cj.object, "status": status}))
    return Plan(writes, again_us)


CONTROLLER = Controller("cronjob", (CRONJOBS, JOBS), concerns, reconcile)


def _due(cj: Object, now_us: int) -> tuple[int | None, int | None]:
    """The last time that came and was not served; how long until the next one."""
    spec = cj["spec"]
    schedule, zone = cron.parse(spec["schedule"]), str(spec.get("timeZone") or "")
    since = times.micros(at(cj, "status", "lastScheduleTime")) or times.micros(base.meta(cj).get("creationTimestamp")) or 0
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now_us - int(deadline) * times.US_PER_S - 1)
    coming = schedule.after(now_us, zone)
    rest = coming - now_us if coming is not None else None
    if schedule.every_s:
        passed = (now_us - since) // (schedule.every_s * times.US_PER_S)
        return (since + passed * schedule.every_s * times.US_PER_S if passed > 0 else None), rest
    for window in WINDOWS_US:
        last, at_us = None, schedule.after(max(since, now_us - window), zone)
        while at_us is not None and at_us <= now_us:
            last, at_us = at_us, schedule.after(at_us, zone)
        if last is not None or now_us - window <= since:
            return last, rest
    return None, rest


def _start(view: View, cj: Seen, active: Sequence[Seen], due_us: int, status: Object) -> list[Write]:
    """The Job of a time; its time is noted in ``status``, in place, unless it has to wait for another one."""
    policy = at(cj.object, "spec", "concurrencyPolicy") or "Allow"
    key = ObjectKey(*JOBS, cj.key.namespace, f"{cj.key.name}-{due_us // MINUTE_US}")
    there = view.get(key) is not None
    if active and policy == "Forbid" and not there:
        return []
    status["lastScheduleTime"] = times.rfc3339(due_us)
    if there:
        return []
    ends = [base.delete(j, cj, propagation="Background") for j in active] if policy == "Replace" else []
    return [*ends, base.create(JOBS, key.namespace, _job(cj.object, key.name, due_us), cj)]


def _job(cj: Object, name: str, due_us: int) -> Object:
    template = at(cj, "spec", "jobTemplate") or {}
    meta = base.meta(template)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": meta.get("labels") or {},
            "annotations": {**(meta.get("annotations") or {}), SCHEDULED: times.rfc3339(due_us)},
            "ownerReferences": [base.owner_reference(cj)],
        },
        "spec": template.get("spec") or {},
    }


def _status(cj: Object, active: Sequence[Seen], mine: Sequence[Seen]) -> Object:
    status = {k: v for k, v in (cj.get("status") or {}).items() if k != "active"}
    if active:
        known = {r.get("uid"): r for r in base.maps(at(cj, "status", "active"))}
        status["active"] = [known.get(base.uid(j.object)) or _reference(j) for j in active]
    ends = [at(j.object, "status", "completionTime") for j in mine if jobs.ended(j.object) == "Complete"]
    last = max([e for e in [*ends, status.get("lastSuccessfulTime")] if e], default=None)
    return status | ({"lastSuccessfulTime": last} if last else {})


def _reference(job: Seen) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job.key.name,
        "namespace": job.key.namespace,
        "resourceVersion": str(job.rev),
        "uid": base.uid(job.object),
    }


def _forget(cj: Seen, mine: Sequence[Seen]) -> list[Write]:
    """Deletes the oldest ended Jobs beyond the limits."""
    out: list[Write] = []
    for kind, (field, default) in HISTORY.items():
        limit = at(cj.object, "spec", field)
        over = [j for j in mine if jobs.ended(j.object) == kind and not base.deleting(j.object)]
        over.sort(key=lambda j: (times.micros(at(j.object, "status", "startTime")) or 0, j.key.name))
        extra = len(over) - (default if limit is None else int(limit))
        out += [base.delete(j, cj, propagation="Background") for j in over[: max(0, extra)]]
    return out
