"""Daemon sets, and the revisions that they and stateful sets keep of their templates (pkg/apis/apps)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_rules, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"  # counts changes of the template; pods carry it too
_COUNTS = (
    *("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "observedGeneration"),
    *("updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount"),
)


class DaemonSets(workloads.ReplicaSets):
    fields: tuple[str, ...] = ()
    special: ClassVar[Mapping[str, FieldGetter]] = {}

    def defaults(self, obj: Object, ctx: Context) -> None:
        workloads.template_defaults(obj)
        obj["metadata"].setdefault("annotations", {}).setdefault(TEMPLATE_GENERATION, "1")
        spec = obj["spec"]
        strategy = spec.setdefault("updateStrategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)
        obj["metadata"].setdefault("annotations", {}).setdefault(TEMPLATE_GENERATION, "0")  # as who says nothing counts

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = dict.fromkeys(_COUNTS[:4], 0)
        _count(obj, 1)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_update(obj, old, ctx)
        counted = at(old, "metadata", "annotations", TEMPLATE_GENERATION) or ""
        before = int(counted) if counted.isdecimal() else 1
        same = at(obj, "spec", "template") == at(old, "spec", "template")
        _count(obj, before if same else before + 1)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, path = obj["spec"], "spec.template"
        selector, template = spec.get("selector"), spec["template"]
        out = checks.label_selector("spec.selector", selector)
        if workloads.match(selector, at(template, "metadata", "labels") or {}) is False:
            out += workloads.unmatched(spec, path)
        if workloads.empty_selector(selector):
            out.append(errors.bad_value("spec.selector", errors.Shown(), "empty selector is invalid for daemonset"))
        out += pod_rules.template(template, path)
        out += workloads.lasting(template["spec"], f"{path}.spec", "DaemonSet")
        out += workloads.not_negative(spec, ("minReadySeconds",))
        out += _strategy(spec["updateStrategy"], "spec.updateStrategy")
        return out + workloads.not_negative(spec, ("revisionHistoryLimit",))

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return workloads.same_selector(obj, old) + self.validate(obj, ctx)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = obj.get("status") or {}
        return workloads.counts(status, _COUNTS) + workloads.collisions(status, old)


def _count(obj: Object, generation: int) -> None:
    obj["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(generation)


def _strategy(strategy: Object, path: str) -> list[Cause]:
    kind = strategy["type"]
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        shown = errors.Shown(Type=kind, RollingUpdate=None)
        return [errors.not_supported(path, shown, ("RollingUpdate", "OnDelete"))]
    rolling, path = strategy["rollingUpdate"], f"{path}.rollingUpdate"
    away, more = rolling["maxUnavailable"], rolling["maxSurge"]
    out = workloads.amount(away, f"{path}.maxUnavailable") + workloads.amount(more, f"{path}.maxSurge")
    out += workloads.at_most_all(away, f"{path}.maxUnavailable") + workloads.at_most_all(more, f"{path}.maxSurge")
    if workloads.number(away) and workloads.number(more):
        out.append(errors.bad_value(f"{path}.maxSurge", more, "may not be set when maxUnavailable is non-zero"))
    elif not workloads.number(away) and not workloads.number(more):
        out.append(errors.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return out


class Revisions(Strategy):
    """A template as it once was: it never changes, only its number does when it is used again."""

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("revision", 0)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = checks.not_negative("revision", obj.get("revision"))
        if obj.get("data") is None:
            out.append(errors.required("data", "data is mandatory"))
        elif not isinstance(obj["data"], dict):
            out.append(errors.required("data", "data must be a valid JSON object"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = checks.not_negative("revision", obj.get("revision"))
        if obj.get("data") != old.get("data"):
            out.append(errors.bad_value("data", obj.get("data"), checks.IMMUTABLE))
        return out
