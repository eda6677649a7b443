"""Jobs and cron jobs (pkg/apis/batch): a selector that is made, a template that is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import pod_defaults, pod_rules, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter, field_of
from bus.kube.storage import Object
from schemas import cron

UID_LABEL, NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
CRON_NAME_CHARS_MAX = 52  # its jobs' names have eleven more
BACKOFF_LIMIT = 6
POLICIES = ("Allow", "Forbid", "Replace")
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


class Jobs(Strategy):
    generation = True
    fields = ("status.successful",)
    special: ClassVar[Mapping[str, FieldGetter]] = {"status.successful": lambda o: field_of(o, "status.succeeded") or "0"}

    def defaults(self, obj: Object, ctx: Context) -> None:
        workloads.template_defaults(obj)
        spec = obj["spec"]
        if "parallelism" not in spec and "completions" not in spec:
            spec["completions"] = 1
        spec.setdefault("parallelism", 1)
        spec.setdefault("backoffLimit", (1 << 31) - 1 if "backoffLimitPerIndex" in spec else BACKOFF_LIMIT)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("manualSelector", False)
        spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
        labels = at(spec, "template", "metadata", "labels")
        if labels and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {}
        spec, meta = obj["spec"], obj["metadata"]
        if spec.get("manualSelector"):
            return
        own = {UID_LABEL: meta["uid"], NAME_LABEL: meta["name"], "controller-uid": meta["uid"], "job-name": meta["name"]}
        template = spec["template"]["metadata"]
        template["labels"] = {**(template.get("labels") or {}), **own}
        if not meta.get("labels"):
            meta["labels"] = dict(template["labels"])
        spec.setdefault("selector", {}).setdefault("matchLabels", {})[UID_LABEL] = meta["uid"]

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        labels = at(spec, "template", "metadata", "labels") or {}
        return workloads.selector_rules(spec.get("selector"), labels, "job") + job_spec(spec, "spec")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        spec, before = obj["spec"], old["spec"]
        for field in ("completions", "selector", "template", "completionMode", "podFailurePolicy"):
            if spec.get(field) != before.get(field):
                out.append(errors.bad_value(f"spec.{field}", spec.get(field), "field is immutable"))
        return out


def job_spec(spec: Object, path: str) -> list[Cause]:
    """What is wrong with it, without its selector."""
    why = "must be greater than or equal to 0"
    out = [errors.bad_value(f"{path}.{f}", spec[f], why) for f in _COUNTS if (spec.get(f) or 0) < 0]
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        out.append(errors.not_supported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed" and spec.get("completions") is None:
        out.append(errors.required(f"{path}.completions", "when completion mode is Indexed"))
    pod = spec["template"]["spec"]
    if pod["restartPolicy"] == "Always":
        out.append(errors.required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    return out + pod_rules.template(spec["template"], f"{path}.template")


class CronJobs(Strategy):
    generation = True

    def name_problem(self, name: str) -> str:
        if len(name) > CRON_NAME_CHARS_MAX:
            return f"must be no more than {CRON_NAME_CHARS_MAX} characters"
        return names.dns_subdomain(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)
        job = spec.setdefault("jobTemplate", {})
        job.setdefault("metadata", {})
        template = job.setdefault("spec", {}).setdefault("template", {})
        template.setdefault("metadata", {})
        pod_defaults.pod_spec(template.setdefault("spec", {}))

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        if not spec.get("schedule"):
            out.append(errors.required("spec.schedule"))
        else:
            try:
                cron.parse(spec["schedule"])
            except cron.BadSchedule as e:
                out.append(errors.bad_value("spec.schedule", spec["schedule"], str(e)))
        zone = spec.get("timeZone")
        if zone is not None:
            try:
                cron.check_zone(zone)
            except cron.BadSchedule as e:
                out.append(errors.bad_value("spec.timeZone", zone, str(e)))
        out += workloads.not_negative(
            spec, ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
        )
        if spec["concurrencyPolicy"] not in POLICIES:
            out.append(errors.not_supported("spec.concurrencyPolicy", spec["concurrencyPolicy"], POLICIES))
        return out + job_spec(spec["jobTemplate"]["spec"], "spec.jobTemplate.spec")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)
