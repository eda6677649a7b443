"""Jobs and cron jobs (pkg/apis/batch): a selector that is made, a template that is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks, job_rules, job_status, pod_defaults, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter, field_of
from bus.kube.storage import Object
from schemas import cron

UID_LABEL, NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
CRON_NAME_CHARS_MAX = 52  # its jobs' names have eleven more
BACKOFF_LIMIT = 6
POLICIES = ("Allow", "Forbid", "Replace")


class Jobs(Strategy):
    generation = True
    fields = ("status.successful",)
    special: ClassVar[Mapping[str, FieldGetter]] = {"status.successful": lambda o: field_of(o, "status.succeeded") or "0"}

    def defaults(self, obj: Object, ctx: Context) -> None:
        workloads.template_defaults(obj)
        spec = obj["spec"]
        if "parallelism" not in spec and "completions" not in spec:
            spec["completions"] = 1
        _conditions(spec)
        spec.setdefault("parallelism", 1)
        spec.setdefault("backoffLimit", (1 << 31) - 1 if "backoffLimitPerIndex" in spec else BACKOFF_LIMIT)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("manualSelector", False)
        spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
        labels = at(spec, "template", "metadata", "labels")
        if labels and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = labels  # the very same: what is added to the template's is its own

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {}
        spec, meta = obj["spec"], obj["metadata"]
        if spec.get("manualSelector"):
            return
        template = spec["template"]["metadata"]
        labels = template.setdefault("labels", {})
        for key, value in own_labels(obj).items():
            labels.setdefault(key, value)
        if not meta.get("labels"):
            meta["labels"] = labels
        meta["labels"] = dict(meta["labels"])
        spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(UID_LABEL, meta["uid"])

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, meta = obj["spec"], obj["metadata"]
        out = _generated(obj) + _rules(spec)
        name, completions = meta.get("name") or "", spec.get("completions") or 0
        if spec.get("completionMode") == "Indexed" and completions > 0:
            last = f"{name}-{completions - 1}"
            if names.dns_label(last):
                why = f"will not able to create pod with invalid DNS label: {last}"
                out.append(errors.bad_value("metadata.name", name, why))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        spec, before = obj["spec"], old["spec"]
        out = self.validate(obj, ctx) + _rules(spec) + _completions(spec, before)
        if spec.get("selector") != before.get("selector"):
            out.append(errors.bad_value("spec.selector", workloads.shown_selector(spec.get("selector")), checks.IMMUTABLE))
        if not _same_template(obj, old):
            out.append(errors.bad_value("spec.template", spec["template"], checks.IMMUTABLE))
        for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
            if spec.get(field) != before.get(field):
                out.append(errors.bad_value(f"spec.{field}", _shown(spec.get(field)), checks.IMMUTABLE))
        return out

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        workloads.status_update(obj, old, ("lastProbeTime", "lastTransitionTime"))

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return job_status.update(obj, old)


def _shown(value: Any) -> Any:
    """With the real server's own names."""
    if not isinstance(value, dict):
        return value
    return errors.Shown(Rules=value.get("rules"))


def _rules(spec: Object) -> list[Cause]:
    selector, out = spec.get("selector"), job_rules.spec(spec, "spec")
    if selector is None:
        out.append(errors.required("spec.selector"))
    else:
        out += checks.label_selector("spec.selector", selector)
    if workloads.match(selector, at(spec, "template", "metadata", "labels") or {}) is False:
        out += workloads.unmatched(spec, "spec.template")
    return out


def _generated(obj: Object) -> list[Cause]:
    """A selector and labels that the API made: nobody may have made them otherwise."""
    spec = obj["spec"]
    if spec.get("manualSelector"):
        return []
    own, labels = own_labels(obj), at(spec, "template", "metadata", "labels") or {}
    out: list[Cause] = []
    for key in ("controller-uid", "job-name", UID_LABEL, NAME_LABEL):
        path = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            out.append(errors.required(path, f"must be '{own[key]}'"))
        elif labels[key] != own[key]:
            out.append(errors.bad_value(path, labels, f"must be '{own[key]}'"))
    if workloads.match(spec.get("selector"), own) is False:
        shown = workloads.shown_selector(spec.get("selector"))
        out.append(errors.bad_value("spec.selector", shown, "`selector` not auto-generated"))
    return out


def own_labels(obj: Object) -> dict[str, str]:
    uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
    return {UID_LABEL: uid, NAME_LABEL: name, "controller-uid": uid, "job-name": name}


def _completions(spec: Object, before: Object) -> list[Cause]:
    now, had = spec.get("completions"), before.get("completions")
    if spec.get("completionMode") != "Indexed":
        return checks.immutable("spec.completions", now, had)
    if now in (had, None) or now == spec.get("parallelism"):
        return []
    return [errors.bad_value("spec.completions", now, "can only be modified in tandem with spec.parallelism")]


_DIRECTIVES = ("nodeSelector", "tolerations", "schedulingGates")


def _same_template(obj: Object, old: Object) -> bool:
    """But for what a job that is suspended may still change: where its pods go, what they ask for."""
    new, before = obj["spec"]["template"], old["spec"]["template"]
    if new == before:
        return True
    if not old["spec"].get("suspend"):
        return False
    if at(old, "status", "startTime") is None:
        before = {**before, "metadata": _with(before["metadata"], new["metadata"], ("labels", "annotations"))}
        pod = _with(before["spec"], new["spec"], _DIRECTIVES)
        affinity = _with(pod.get("affinity") or {}, new["spec"].get("affinity") or {}, ("nodeAffinity",))
        pod = _with(pod, {"affinity": affinity} if affinity else {}, ("affinity",))
        before = {**before, "spec": pod}
        new = {
            **new,
            "spec": _with(
                new["spec"], {"affinity": new["spec"]["affinity"]} if new["spec"].get("affinity") else {}, ("affinity",)
            ),
        }
    return _unasked(new) == _unasked(before)


def _with(obj: Object, other: Object, fields: tuple[str, ...]) -> Object:
    """``obj`` with those fields as ``other`` has them."""
    out = {k: v for k, v in obj.items() if k not in fields}
    return {**out, **{f: other[f] for f in fields if f in other}}


def _unasked(template: Object) -> Object:
    """Without what the containers ask for."""
    pod = template["spec"]
    lists = {f: [{**c, "resources": None} for c in pod[f]] for f in ("containers", "initContainers") if f in pod}
    return {**template, "spec": {**pod, **lists}}


def _conditions(spec: Object) -> None:
    """Of pods, on which a failure policy looks: they are true."""
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for condition in rule.get("onPodConditions") or []:
            if not condition.get("status"):
                condition["status"] = "True"


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
        _conditions(job.setdefault("spec", {}))
        template = job["spec"].setdefault("template", {})
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
        out += workloads.not_negative(spec, ("startingDeadlineSeconds",))
        zone = spec.get("timeZone")
        if zone is not None:
            try:
                cron.check_zone(zone)
            except cron.BadSchedule as e:
                out.append(errors.bad_value("spec.timeZone", zone, str(e)))
        if spec["concurrencyPolicy"] not in POLICIES:
            out.append(errors.not_supported("spec.concurrencyPolicy", spec["concurrencyPolicy"], POLICIES))
        inner, path = spec["jobTemplate"]["spec"], "spec.jobTemplate.spec"
        out += job_rules.spec(inner, path)
        if inner.get("selector") is not None:
            shown = workloads.shown_selector(inner["selector"])
            out.append(errors.bad_value(f"{path}.selector", shown, "`selector` will be auto-generated"))
        if inner.get("manualSelector"):
            out.append(errors.not_supported(f"{path}.manualSelector", True, ("nil", "false")))
        return out + workloads.not_negative(spec, ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"))

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        workloads.status_update(obj, old, ())
