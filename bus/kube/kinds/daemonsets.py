"""Daemon sets, and the revisions that they and stateful sets keep of their templates (pkg/apis/apps)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import pod_rules, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"  # counts changes of the template; pods carry it too


class DaemonSets(workloads.ReplicaSets):
    fields: tuple[str, ...] = ()
    special: ClassVar[Mapping[str, FieldGetter]] = {}

    def defaults(self, obj: Object, ctx: Context) -> None:
        workloads.template_defaults(obj)
        spec = obj["spec"]
        strategy = spec.setdefault("updateStrategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        obj["status"] = dict.fromkeys(counts, 0)
        _count(obj, 1)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_update(obj, old, ctx)
        counted = at(old, "metadata", "annotations", TEMPLATE_GENERATION) or ""
        before = int(counted) if counted.isdecimal() else 1
        same = at(obj, "spec", "template") == at(old, "spec", "template")
        _count(obj, before if same else before + 1)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = workloads.selector_rules(spec.get("selector"), at(spec, "template", "metadata", "labels") or {}, "daemonset")
        pod = spec["template"]["spec"]
        out += pod_rules.template(spec["template"], "spec.template")
        if pod["restartPolicy"] != "Always":
            out.append(errors.not_supported("spec.template.spec.restartPolicy", pod["restartPolicy"], ("Always",)))
        if pod.get("activeDeadlineSeconds") is not None:
            why = "activeDeadlineSeconds in DaemonSet is not Supported"
            out.append(errors.not_permitted("spec.template.spec.activeDeadlineSeconds", why))
        out += workloads.not_negative(spec, ("minReadySeconds",))
        strategy = spec["updateStrategy"]
        if strategy["type"] == "RollingUpdate":
            out += _rolling(strategy["rollingUpdate"])
        elif strategy["type"] != "OnDelete":
            known = ("OnDelete", "RollingUpdate")
            out.append(errors.not_supported("spec.updateStrategy.type", strategy["type"], known))
        return out + workloads.not_negative(spec, ("revisionHistoryLimit",))


def _count(obj: Object, generation: int) -> None:
    obj["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(generation)


def _rolling(rolling: Object) -> list[Cause]:
    path = "spec.updateStrategy.rollingUpdate"
    amounts, out = workloads.amounts(rolling, ("maxUnavailable", "maxSurge"), path)
    if out:
        return out
    if not amounts["maxUnavailable"] and not amounts["maxSurge"]:
        why = "cannot be 0 when maxSurge is 0"
        return [errors.bad_value(f"{path}.maxUnavailable", rolling["maxUnavailable"], why)]
    if amounts["maxUnavailable"] and amounts["maxSurge"]:
        why = "may not be set when maxUnavailable is non-zero"
        return [errors.bad_value(f"{path}.maxSurge", rolling["maxSurge"], why)]
    return []


class Revisions(Strategy):
    """A template as it once was: it never changes, only its number does when it is used again."""

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = [errors.required("data", "data is mandatory")] if obj.get("data") is None else []
        return out + _number(obj)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        if obj.get("data") != old.get("data"):
            return [*_number(obj), errors.bad_value("data", obj.get("data"), "field is immutable")]
        return _number(obj)


def _number(obj: Object) -> list[Cause]:
    if obj.get("revision", 0) < 0:
        return [errors.bad_value("revision", obj["revision"], "must be greater than or equal to 0")]
    return []
