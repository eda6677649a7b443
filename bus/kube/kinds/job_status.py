"""What a job's status may say (pkg/apis/batch/validation, ValidateJobStatusUpdate): counts only grow, an end is an end.

What was stored before and isn't changed is not judged again."""

from __future__ import annotations

from typing import Any

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import checks, job_rules, workloads
from bus.kube.storage import Object

_COUNTS = ("active", "succeeded", "failed", "ready", "terminating")


def true(status: Object, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status.get("conditions") or [])


def _conditions(why: str) -> Cause:
    return Cause("status.conditions", "FieldValueInvalid", f"Invalid value: {why}")


def update(obj: Object, old: Object) -> list[Cause]:
    now, before, spec = obj.get("status") or {}, old.get("status") or {}, obj["spec"]
    out = workloads.counts(now, _COUNTS) + _uncounted(now.get("uncountedTerminatedPods") or {})
    out += _ends(now, before) + _finished(now, before, spec) + _indexes(now, before, spec) + _met(now, spec)
    return out + _later(now, before, spec)


def _changed(now: Object, before: Object, *fields: str) -> bool:
    return any(now.get(f) != before.get(f) for f in fields)


def _turned(now: Object, before: Object, *kinds: str) -> bool:
    return any(true(now, k) != true(before, k) for k in kinds)


def _uncounted(pods: Object) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for field in ("succeeded", "failed"):
        for i, uid in enumerate(pods.get(field) or []):
            at_uid = f"status.uncountedTerminatedPods.{field}[{i}]"
            if not uid:
                out.append(errors.bad_value(at_uid, uid, "must not be empty"))
            elif uid in seen:
                out.append(errors.duplicate(at_uid, uid))
            seen.add(uid)
    return out


def _ends(now: Object, before: Object) -> list[Cause]:
    complete, failed, ended = true(now, "Complete"), true(now, "Failed"), now.get("completionTime")
    out: list[Cause] = []
    if _turned(now, before, "Complete", "Failed") and complete and failed:
        out.append(_conditions("cannot set Complete=True and Failed=true conditions"))
    if _turned(now, before, "Complete", "FailureTarget") and complete and true(now, "FailureTarget"):
        out.append(_conditions("cannot set Complete=True and FailureTarget=true conditions"))
    if _turned(now, before, "Complete") or _changed(now, before, "completionTime"):
        if ended is not None and not complete:
            why = "cannot set completionTime when there is no Complete=True condition"
            out.append(errors.bad_value("status.completionTime", ended, why))
        if ended is None and complete:
            why = "completionTime is required for Complete jobs"
            out.append(errors.required("status.completionTime", why))
    start = now.get("startTime")
    if _changed(now, before, "startTime", "completionTime") and start and ended and ended < start:
        out.append(errors.bad_value("status.completionTime", ended, "must be equal to or after `startTime`"))
    judged = _turned(now, before, "Failed") or _changed(now, before, "failedIndexes")
    if judged and failed and not true(now, "FailureTarget"):
        out.append(_conditions("cannot set Failed=True condition without the FailureTarget=true condition"))
    if _turned(now, before, "Complete", "SuccessCriteriaMet") and complete and not true(now, "SuccessCriteriaMet"):
        out.append(_conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition"))
    return out


def _is_finished(status: Object) -> bool:
    return true(status, "Complete") or true(status, "Failed")


def _finished(now: Object, before: Object, spec: Object) -> list[Cause]:
    if not _is_finished(now):
        return []
    new, out = not _is_finished(before), []
    if (new or _changed(now, before, "active")) and now.get("active"):
        out.append(errors.bad_value("status.active", now["active"], "active>0 is invalid for finished job"))
    idle = bool(spec.get("suspend")) and spec.get("completions") == 0
    if (new or _changed(now, before, "startTime")) and not idle and now.get("startTime") is None:
        out.append(errors.required("status.startTime", "startTime is required for finished job"))
    pods = now.get("uncountedTerminatedPods") or {}
    if (new or _changed(now, before, "uncountedTerminatedPods")) and (pods.get("failed") or pods.get("succeeded")):
        shown = errors.Shown(Succeeded=pods.get("succeeded"), Failed=pods.get("failed"))
        out.append(errors.bad_value("status.uncountedTerminatedPods", shown, "must be empty for finished job"))
    return out


def _indexes(now: Object, before: Object, spec: Object) -> list[Cause]:
    completions, done, failed = spec.get("completions"), now.get("completedIndexes") or "", now.get("failedIndexes")
    of_done, of_failed = _changed(now, before, "completedIndexes"), _changed(now, before, "failedIndexes")
    limited, out = spec.get("backoffLimitPerIndex") is not None, []
    told: list[tuple[bool, str, Any]] = [
        (of_done, "completedIndexes", done),
        (of_failed and limited, "failedIndexes", failed or ""),
    ]
    for asked, field, text in told:
        why = job_rules.indexes_in(text, completions)[1] if asked and completions is not None else ""
        if why:
            out.append(errors.bad_value(f"status.{field}", text, f"error parsing {field}: {why}"))
    if of_done and done and spec.get("completionMode") != "Indexed":
        why = "cannot set non-empty completedIndexes when non-indexed completion mode"
        out.append(errors.bad_value("status.completedIndexes", done, why))
    if of_failed and failed is not None and not limited:
        why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        out.append(errors.bad_value("status.failedIndexes", failed, why))
    if (of_done or of_failed) and completions is not None and failed:
        both = sorted(_numbers(done) & _numbers(failed))
        if both:
            why = f"failedIndexes and completedIndexes overlap at index: {both[0]}"
            out.append(errors.bad_value("status.failedIndexes", failed, why))
    if _is_finished(now) and (not _is_finished(before) or _changed(now, before, "terminating")) and now.get("terminating"):
        why = "terminating>0 is invalid for finished job"
        out.append(errors.bad_value("status.terminating", now["terminating"], why))
    if _changed(now, before, "ready", "active") and (now.get("ready") or 0) > (now.get("active") or 0):
        out.append(errors.bad_value("status.ready", now["ready"], "cannot set more ready pods than active"))
    return out


def _numbers(text: str) -> set[int]:
    """The indexes that a good text names."""
    out: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()) and len(last) < 8:
            out.update(range(int(first), int(last or first) + 1))
    return out


def _met(now: Object, spec: Object) -> list[Cause]:
    met, out = true(now, "SuccessCriteriaMet"), []
    if met and true(now, "Failed"):
        out.append(_conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions"))
    if met and true(now, "FailureTarget"):
        out.append(_conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"))
    if spec.get("successPolicy") is not None and not met and true(now, "Complete"):
        why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"
        out.append(_conditions(why))
    return out


def _later(now: Object, before: Object, spec: Object) -> list[Cause]:
    """What may not go back."""
    out: list[Cause] = []
    for kind in ("Failed", "Complete", "FailureTarget"):
        if true(before, kind) and not true(now, kind):
            out.append(_conditions(f"cannot disable the terminal {kind}=True condition"))
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    for field in ("failed",) if elastic else ("failed", "succeeded"):
        if (now.get(field) or 0) < (before.get(field) or 0):
            out.append(errors.bad_value(f"status.{field}", now.get(field) or 0, f"cannot decrease the {field} counter"))
    ended = now.get("completionTime")
    if ended is not None and before.get("completionTime") not in (None, ended):
        out.append(errors.bad_value("status.completionTime", ended, checks.IMMUTABLE))
    start, resumed = before.get("startTime"), true(before, "Suspended") and not true(now, "Suspended")
    if start is not None and now.get("startTime") != start and not spec.get("suspend") and not resumed:
        why = "field is immutable for unsuspended job once set"
        out.append(errors.bad_value("status.startTime", now.get("startTime"), why))
    if true(before, "SuccessCriteriaMet") and not true(now, "SuccessCriteriaMet"):
        out.append(_conditions("cannot disable the SuccessCriteriaMet=True condition"))
    if true(before, "Complete") and not true(before, "SuccessCriteriaMet") and true(now, "SuccessCriteriaMet"):
        out.append(_conditions("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"))
    return out
