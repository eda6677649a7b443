"""Job: pods that run to their end, as many times as wanted, and not for ever when they fail.

No end is counted twice or forgotten, whenever this stops or a pod is deleted: a pod keeps a finalizer until its uid was
written to the status, and its uid stays there until the finalizer is seen gone; only then it becomes a number.
Not looked at: successPolicy, backoffLimitPerIndex, managedBy.
Source: Kubernetes documentation, "Jobs", "Job termination and cleanup"; KEP "Job tracking with finalizers".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloud.core.writes import Write
from cloud.standalone.controllers import amounts, base, claims, failure_policy, indexes
from cloud.standalone.controllers.base import JOBS, PODS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

FINALIZER = "batch.kubernetes.io/job-tracking"
BURST_PODS = 500  # made or deleted in one go; the rest follows with the next look
BACKOFF_US = 10 * times.US_PER_S  # doubles with each failure
BACKOFF_US_MAX = 600 * times.US_PER_S
BACKOFF_LIMIT = 6  # backoffLimit's default (API reference)


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    for s in (seen, old):
        if s is None or ((s.key.group, s.key.resource) == PODS and claims.unmoved(seen, old)):
            continue
        if (s.key.group, s.key.resource) == JOBS:
            yield s.key
        else:
            yield from claims.concerned(view, s, JOBS, "Job", adopts=False)


def ended(job: Object) -> str:
    """``Complete``, ``Failed`` or nothing."""
    for kind in ("Complete", "Failed"):
        if (base.condition(job, kind) or {}).get("status") == "True":
            return kind
    return ""


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    job = view.get(key)
    if job is None or base.deleting(job.object):
        return Plan()
    if ended(job.object):
        return _expire(job, now_us)
    writes: list[Write] = []
    pods = claims.claim(view, job, PODS, writes)
    if writes:
        return Plan(writes)
    active = claims.running(pods)
    status, freed = _counted(job, pods)
    _obey(job.object, status, pods, now_us)
    waits = _judge(job.object, status, active, now_us)
    pod_writes: list[Write] = []
    if _true(status, "FailureTarget") or _true(status, "SuccessCriteriaMet") or at(job.object, "spec", "suspend"):
        pod_writes = [base.delete(p, job) for p in active]
    else:
        pod_writes, later = _scale(job, status, active, pods, now_us)
        waits += later
    _say_active(status, pods, active)
    _finish(job.object, status, active, now_us)
    if status != (job.object.get("status") or {}):
        writes.append(base.status(job, {**job.object, "status": status}))
    return Plan([*writes, *freed, *pod_writes[:BURST_PODS]], min(waits, default=None))


CONTROLLER = Controller("job", (JOBS, PODS), concerns, reconcile)


# --- counting --------------------------------------------------------------------------------------------------------


def _counted(job: Seen, pods: Sequence[Seen]) -> tuple[Object, list[Write]]:
    """The status with every end in it, and the pods to let go once it is stored."""
    status = dict(job.object.get("status") or {})
    held = {base.uid(p.object): p for p in pods if FINALIZER in (base.meta(p.object).get("finalizers") or [])}
    pending = at(status, "uncountedTerminatedPods") or {}
    left: dict[str, list[str]] = {}
    for field in ("succeeded", "failed"):
        known = list(pending.get(field) or [])
        left[field] = [uid for uid in known if uid in held]
        status[field] = int(status.get(field) or 0) + len(known) - len(left[field])
    writes = []
    uncounted = bool(at(job.object, "spec", "suspend")) or _true(status, "SuccessCriteriaMet")
    done = [str(n) for n in indexes.parse(str(status.get("completedIndexes") or ""))]
    for uid, p in held.items():
        state = _end(p.object)
        if not state:
            continue
        stopped = state == "failed" and not base.finished(p.object) and uncounted  # by us, not by itself
        if uid not in left["succeeded"] and uid not in left["failed"] and not stopped:
            index = indexes.of(p.object)
            if state == "succeeded" and index is not None and str(index) in done:
                state = "failed"  # a second one of an index that is done: it counts for nothing
            if state == "failed" and failure_policy.action(job.object, p.object)[0] == "Ignore":
                state = "ignored"
            left.setdefault(state, []).append(uid)
            if state == "succeeded" and index is not None:
                done.append(str(index))
        kept = [f for f in base.meta(p.object).get("finalizers") or [] if f != FINALIZER]
        writes.append(base.update(p, base.with_meta(p.object, finalizers=kept or None), job))
    if at(job.object, "spec", "completionMode") == "Indexed":
        status["completedIndexes"] = indexes.text(int(n) for n in done)
    left.pop("ignored", None)
    status["uncountedTerminatedPods"] = {f: v for f, v in left.items() if v}
    return {k: v for k, v in status.items() if v or k == "uncountedTerminatedPods"}, writes


def _end(pod: Object) -> str:
    """A pod that is deleted before its end has failed (podReplacementPolicy TerminatingOrFailed)."""
    if at(pod, "status", "phase") == "Succeeded":
        return "succeeded"
    return "failed" if base.finished(pod) or base.deleting(pod) else ""


def _total(status: Object, field: str) -> int:
    return int(status.get(field) or 0) + len(at(status, "uncountedTerminatedPods", field) or [])


# --- judging ---------------------------------------------------------------------------------------------------------


def _judge(job: Object, status: Object, active: Sequence[Seen], now_us: int) -> list[int]:
    """Adds the conditions that decide, in place; after how long the deadline would pass."""
    spec, now = job["spec"], times.rfc3339(now_us)
    suspended = bool(spec.get("suspend"))
    _suspension(status, suspended, now)
    if not suspended and not status.get("startTime"):
        status["startTime"] = now
    wanted, limit = spec.get("completions"), spec.get("backoffLimit", BACKOFF_LIMIT)
    restarts = _restarts(active) if at(spec, "template", "spec", "restartPolicy") == "OnFailure" else 0
    succeeded = _total(status, "succeeded")
    if _true(status, "FailureTarget") or _true(status, "SuccessCriteriaMet"):
        return []
    if (succeeded >= wanted) if wanted is not None else (succeeded > 0 and not active):
        message = "Reached expected number of succeeded pods"
        _add(status, "SuccessCriteriaMet", "CompletionsReached", message, now)
        return []
    if _total(status, "failed") > limit or (restarts >= limit if limit else restarts > 0):
        _add(status, "FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit", now)
        return []
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is None or suspended:
        return []
    rest = (times.micros(status["startTime"]) or now_us) + int(deadline) * times.US_PER_S - now_us
    if rest > 0:
        return [rest]
    _add(status, "FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline", now)
    return []


def _obey(job: Object, status: Object, pods: Sequence[Seen], now_us: int) -> None:
    """A pod that failed in a way for which the job shall fail, as long as its end isn't counted."""
    if _true(status, "FailureTarget") or _true(status, "SuccessCriteriaMet"):
        return
    for p in pods:
        if _end(p.object) == "failed" and FINALIZER in (base.meta(p.object).get("finalizers") or []):
            action, why = failure_policy.action(job, p.object)
            if action == "FailJob":
                _add(status, "FailureTarget", "PodFailurePolicy", why, times.rfc3339(now_us))
                return


def _suspension(status: Object, suspended: bool, now: str) -> None:
    before = _find(status, "Suspended")
    if suspended == ((before or {}).get("status") == "True"):
        return
    if suspended:
        _add(status, "Suspended", "JobSuspended", "Job suspended", now)
        status.pop("startTime", None)
    else:
        _add(status, "Suspended", "JobResumed", "Job resumed", now, value="False")
        status["startTime"] = now


def _restarts(active: Sequence[Seen]) -> int:
    counts = [c.get("restartCount") or 0 for p in active for c in base.maps(at(p.object, "status", "containerStatuses"))]
    return sum(counts)


def _finish(job: Object, status: Object, active: Sequence[Seen], now_us: int) -> None:
    """The last word, when everything is counted and nothing runs."""
    if active or at(status, "uncountedTerminatedPods"):
        return
    now = times.rfc3339(now_us)
    for first, last in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
        decided = _find(status, first)
        if decided is not None:
            _add(status, last, decided["reason"], decided["message"], now)
            if last == "Complete":
                status["completionTime"] = now


def _find(status: Object, kind: str) -> Object | None:
    return next((c for c in base.maps(status.get("conditions")) if c.get("type") == kind), None)


def _true(status: Object, kind: str) -> bool:
    return (_find(status, kind) or {}).get("status") == "True"


def _add(status: Object, kind: str, reason: str, message: str, now: str, value: str = "True") -> None:
    others = [c for c in base.maps(status.get("conditions")) if c.get("type") != kind]
    new = {"type": kind, "status": value, "reason": reason, "message": message}
    status["conditions"] = [*others, {**new, "lastProbeTime": now, "lastTransitionTime": now}]


# --- pods ------------------------------------------------------------------------------------------------------------


def _scale(
    job: Seen, status: Object, active: Sequence[Seen], pods: Sequence[Seen], now_us: int
) -> tuple[list[Write], list[int]]:
    """Creations and deletions; after how long to look again, when a failure is still to be waited off."""
    spec = job.object["spec"]
    parallel, completions = int(spec.get("parallelism", 1)), spec.get("completions")
    done = _total(status, "succeeded")
    wanted = min(parallel, int(completions) - done) if completions is not None else (len(active) if done else parallel)
    missing = min(max(0, wanted) - len(active), BURST_PODS)
    if missing <= 0:
        ready_last = sorted(active, key=lambda p: (amounts.ready(p.object), p.key.name))
        return [base.delete(p, job) for p in ready_last[: len(active) - min(max(0, wanted), parallel)]], []
    wait = _backoff_us(status, pods, now_us)
    if wait > 0:
        return [], [wait]
    if spec.get("completionMode") == "Indexed":
        taken = [n for p in active if (n := indexes.of(p.object)) is not None]
        free = indexes.free(int(completions or 0), str(status.get("completedIndexes") or ""), taken, missing)
        return [base.create(PODS, job.key.namespace, _pod(job.object, n), job) for n in free], []
    pod = _pod(job.object, None)
    return [base.create(PODS, job.key.namespace, pod, job) for _ in range(missing)], []


def _pod(job: Object, index: int | None) -> Object:
    template = at(job, "spec", "template") or {}
    pod = claims.new_pod(job, template)
    pod["metadata"]["finalizers"] = [*(base.meta(template).get("finalizers") or []), FINALIZER]
    return indexes.mark(pod, str(base.meta(job)["name"]), index) if index is not None else pod


def _backoff_us(status: Object, pods: Sequence[Seen], now_us: int) -> int:
    """How long the last failure keeps the next pod waiting."""
    failures = _total(status, "failed")
    last = max((_ended_us(p.object) for p in pods if _end(p.object) == "failed" and not base.deleting(p.object)), default=0)
    if not failures or not last:
        return 0
    return last + min(BACKOFF_US_MAX, BACKOFF_US << min(failures - 1, 10)) - now_us


def _ended_us(pod: Object) -> int:
    ends = [
        times.micros(at(c, "state", "terminated", "finishedAt")) for c in base.maps(at(pod, "status", "containerStatuses"))
    ]
    ends.append(times.micros((base.condition(pod, "Ready") or {}).get("lastTransitionTime")))
    return max((e for e in ends if e is not None), default=0)


def _say_active(status: Object, pods: Sequence[Seen], active: Sequence[Seen]) -> None:
    status.pop("active", None)
    if active:
        status["active"] = len(active)
    status["ready"] = sum(amounts.ready(p.object) for p in active)
    status["terminating"] = sum(base.deleting(p.object) and not base.finished(p.object) for p in pods)


# --- after the end ---------------------------------------------------------------------------------------------------


def _expire(job: Seen, now_us: int) -> Plan:
    ttl = at(job.object, "spec", "ttlSecondsAfterFinished")
    last = base.condition(job.object, ended(job.object)) or {}
    if ttl is None:
        return Plan()
    rest = (times.micros(last.get("lastTransitionTime")) or now_us) + int(ttl) * times.US_PER_S - now_us
    return Plan([], rest) if rest > 0 else Plan([base.delete(job, propagation="Background")])


# --- pods whose job is gone ------------------------------------------------------------------------------------------


def orphan_concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if (s.key.group, s.key.resource) == JOBS:
        if seen is None or base.deleting(seen.object) or ended(seen.object):
            yield from (p.key for p in view.owned(base.uid(s.object)) if (p.key.group, p.key.resource) == PODS)
    elif seen is not None and FINALIZER in (base.meta(seen.object).get("finalizers") or []):
        yield seen.key


def orphan_reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    """Nobody will count this pod any more: its finalizer must not hold it."""
    pod = view.get(key)
    held = base.meta(pod.object).get("finalizers") or [] if pod is not None else []
    if pod is None or FINALIZER not in held:
        return Plan()
    owner = base.controller_of(pod.object) or {}
    job = view.get(ObjectKey(*JOBS, key.namespace, str(owner.get("name"))))
    counts = job is not None and not base.deleting(job.object) and not ended(job.object)
    if job is not None and counts and base.uid(job.object) == owner.get("uid"):
        return Plan()
    left = [f for f in held if f != FINALIZER]
    return Plan([base.update(pod, base.with_meta(pod.object, finalizers=left or None))])


ORPHANS = Controller("job-pods", (JOBS, PODS), orphan_concerns, orphan_reconcile)
