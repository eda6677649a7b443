"""Rows of jobs and cron jobs (kubernetes pkg/printers/internalversion, printJob and printCronJob)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube import times
from bus.kube.kinds.base import at
from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object


def _true(job: Object, kind: str) -> Object | None:
    conditions = at(job, "status", "conditions") or []
    return next((c for c in conditions if c.get("type") == kind and c.get("status") == "True"), None)


def _status(job: Object, _: Look) -> str:
    for kind in ("Complete", "Failed"):
        if _true(job, kind):
            return kind
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if _true(job, kind):
            return kind
    return "Running"


def _completions(job: Object, _: Look) -> str:
    done = at(job, "status", "succeeded") or 0
    wanted = at(job, "spec", "completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = at(job, "spec", "parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _duration(job: Object, look: Look) -> str:
    start = at(job, "status", "startTime")
    if not start:
        return ""
    end = at(job, "status", "completionTime") or (_true(job, "Failed") or {}).get("lastTransitionTime")
    end_us = times.micros(end) if end else look.now_us
    return text.duration((end_us - times.micros(start)) // 1_000_000)


def _last(cron: Object, look: Look) -> str:
    last = at(cron, "status", "lastScheduleTime")
    return text.age(last, look.now_us) if last else text.NONE


def _containers(field: str, *path: str) -> Any:
    return lambda o, _: text.joined(c.get(field, "") for c in at(o, "spec", *path, "template", "spec", "containers") or [])


def _template(*path: str) -> tuple[Cell, ...]:
    return (
        Cell("Containers", _containers("name", *path), priority=1),
        Cell("Images", _containers("image", *path), priority=1),
        Cell("Selector", lambda o, _: text.selector(at(o, "spec", *path, "selector")), priority=1),
    )


COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("batch", "jobs"): (
        NAME,
        Cell("Status", _status),
        Cell("Completions", _completions),
        Cell("Duration", _duration),
        AGE,
        *_template(),
    ),
    ("batch", "cronjobs"): (
        NAME,
        Cell("Schedule", lambda o, _: at(o, "spec", "schedule") or ""),
        Cell("Timezone", lambda o, _: at(o, "spec", "timeZone") or text.NONE),
        Cell("Suspend", lambda o, _: str(bool(at(o, "spec", "suspend")))),
        Cell("Active", lambda o, _: len(at(o, "status", "active") or []), "integer"),
        Cell("Last Schedule", _last),
        AGE,
        *_template("jobTemplate", "spec"),
    ),
}
