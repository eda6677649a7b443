"""Deployments and replica sets, and what kinds with a template share: a selector that never changes and matches it
(pkg/apis/apps/validation)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from bus.kube import errors, selectors
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_defaults, pod_rules
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.selectors import FieldGetter, field_of
from bus.kube.storage import Object

UNMATCHED = "`selector` does not match template `labels`"
TOO_MANY = "cannot be greater than status.replicas"
COUNTS = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")


class ReplicaSets(Strategy):
    generation = True
    times: tuple[str, ...] = ("lastTransitionTime",)  # of its conditions
    fields: tuple[str, ...] = ("status.replicas",)
    special: ClassVar[Mapping[str, FieldGetter]] = {"status.replicas": lambda o: field_of(o, "status.replicas") or "0"}

    def defaults(self, obj: Object, ctx: Context) -> None:
        template_defaults(obj)
        obj["spec"].setdefault("replicas", 1)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = not_negative(spec, ("replicas", "minReadySeconds"))
        return out + selected(spec, "deployment") + _template(spec, "ReplicaSet")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx) + same_selector(obj, old)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        status_update(obj, old, self.times)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = obj.get("status") or {}
        out = counts(status, (*COUNTS, "terminatingReplicas"))
        return out + replicas(status, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"))


class Deployments(ReplicaSets):
    times = ("lastTransitionTime", "lastUpdateTime")
    fields = ()
    special: ClassVar[Mapping[str, FieldGetter]] = {}

    def defaults(self, obj: Object, ctx: Context) -> None:
        super().defaults(obj, ctx)
        spec = obj["spec"]
        strategy = spec.setdefault("strategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = not_negative(spec, ("replicas",)) + selected(spec, "deployment") + _template(spec, "ReplicaSet")
        out += _strategy(spec["strategy"], "spec.strategy")
        out += not_negative(spec, ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"))
        if spec["progressDeadlineSeconds"] <= (spec.get("minReadySeconds") or 0):
            why = "must be greater than minReadySeconds"
            out.append(errors.bad_value("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], why))
        return out

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_status(obj, old, ctx)
        keep(obj["metadata"], old["metadata"], "labels")

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = obj.get("status") or {}
        fields = ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        out = counts(status, (*fields, "unavailableReplicas", "terminatingReplicas", "collisionCount"))
        out += replicas(status, ("updatedReplicas", "readyReplicas", "availableReplicas"))
        return out + collisions(status, old)


def status_update(obj: Object, old: Object, times: tuple[str, ...], *kept: str) -> None:
    """What the status of most kinds may change: itself and, as users rarely know, the metadata but for ``kept``.

    ``times`` are those of its conditions, which are told even when nobody gave them."""
    for field in [f for f in {*obj, *old} if f not in ("status", "metadata")]:
        keep(obj, old, field)
    for field in kept:
        keep(obj["metadata"], old["metadata"], field)
    for condition in at(obj, "status", "conditions") or []:
        for field in times:
            condition.setdefault(field, None)


def template_defaults(obj: Object) -> None:
    template = obj.setdefault("spec", {}).setdefault("template", {})
    pod_defaults.pod_spec(template.setdefault("spec", {}))
    template.setdefault("metadata", {})


def not_negative(spec: Object, fields: tuple[str, ...], path: str = "spec") -> list[Cause]:
    return [c for f in fields for c in checks.not_negative(f"{path}.{f}", spec.get(f))]


def counts(status: Object, fields: tuple[str, ...]) -> list[Cause]:
    return not_negative(status, fields, "status")


def replicas(status: Object, fields: tuple[str, ...], above: str = "cannot be greater than readyReplicas") -> list[Cause]:
    """Counts of pods that are among all of them, and those available among those ready."""
    total, out = status.get("replicas") or 0, []
    for field in fields:
        if (status.get(field) or 0) > total:
            out.append(errors.bad_value(f"status.{field}", status.get(field) or 0, TOO_MANY))
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        out.append(errors.bad_value("status.availableReplicas", available, above))
    return out


def collisions(status: Object, old: Object) -> list[Cause]:
    """The count of names that were taken only grows."""
    before, now = at(old, "status", "collisionCount"), status.get("collisionCount")
    if before is None or (now is not None and now >= before):
        return []
    return [errors.bad_value("status.collisionCount", now or 0, "cannot be decremented")]


def shown_selector(selector: Object | None) -> errors.Shown | None:
    """A selector as messages show it."""
    if selector is None:
        return None
    out = errors.Shown()
    if selector.get("matchLabels"):
        out["matchLabels"] = dict(sorted(selector["matchLabels"].items()))
    if selector.get("matchExpressions"):
        fields = ("key", "operator", "values")
        out["matchExpressions"] = [
            {f: item.get(f) or "" for f in fields if f in item or f != "values"} for item in selector["matchExpressions"]
        ]
    return out


def empty_selector(selector: Object | None) -> bool:
    return selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions")


def selected(spec: Object, kind: str) -> list[Cause]:
    """The selector, and whether it is the template's; ``kind`` as messages name it."""
    selector = spec.get("selector")
    if selector is None:
        out = [errors.required("spec.selector")]
    else:
        out = checks.label_selector("spec.selector", selector)
        if empty_selector(selector):
            out.append(errors.bad_value("spec.selector", errors.Shown(), f"empty selector is invalid for {kind}"))
    return out


def match(selector: Object | None, labels: Mapping[str, str]) -> bool | None:
    """Whether a template's labels are selected: what has no selector selects nothing; None for a bad selector."""
    if selector is None:
        return False
    if checks.label_selector("", selector):
        return None
    return selectors.of_label_selector(selector).matches(labels)


def unmatched(spec: Object, path: str) -> list[Cause]:
    labels = at(spec, "template", "metadata", "labels")
    return [errors.bad_value(f"{path}.metadata.labels", labels, UNMATCHED)]


def _template(spec: Object, kind: str) -> list[Cause]:
    selector, template, path = spec.get("selector"), spec["template"], "spec.template"
    matched = match(selector, at(template, "metadata", "labels") or {})
    if matched is None:
        return [errors.bad_value("spec.selector", shown_selector(selector), "invalid label selector")]
    out = [] if matched or empty_selector(selector) else unmatched(spec, path)
    out += pod_rules.template(template, path)
    return out + lasting(template["spec"], f"{path}.spec", kind)


def lasting(pod: Object, path: str, kind: str) -> list[Cause]:
    """Pods that are always there."""
    out = []
    if pod["restartPolicy"] != "Always":
        out.append(errors.not_supported(f"{path}.restartPolicy", pod["restartPolicy"], ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        why = f"activeDeadlineSeconds in {kind} is not Supported"
        out.append(errors.not_permitted(f"{path}.activeDeadlineSeconds", why))
    return out


def same_selector(obj: Object, old: Object) -> list[Cause]:
    new, before = obj["spec"].get("selector"), at(old, "spec", "selector")
    if new == before:
        return []
    return [errors.bad_value("spec.selector", shown_selector(new), checks.IMMUTABLE)]


def amount(value: Any, path: str) -> list[Cause]:
    """A count or a percentage."""
    if isinstance(value, int):
        return checks.not_negative(path, value)
    if re.fullmatch("[0-9]+%", value):
        return []
    why = (
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
        "validation is '[0-9]+%')"
    )
    return [errors.bad_value(path, value, why)]


def number(value: Any) -> int:
    """Of a count or a percentage; 0 for what is neither."""
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"([+-]?[0-9]{1,18})%?", str(value))
    return int(found[1]) if found else 0


def at_most_all(value: Any, path: str) -> list[Cause]:
    if isinstance(value, str) and re.fullmatch("[0-9]+%", value) and number(value) > 100:
        return [errors.bad_value(path, value, "must not be greater than 100%")]
    return []


def _strategy(strategy: Object, path: str) -> list[Cause]:
    kind, rolling = strategy["type"], strategy.get("rollingUpdate")
    if kind == "Recreate":
        why = "may not be specified when strategy `type` is 'Recreate'"
        return [] if rolling is None else [errors.not_permitted(f"{path}.rollingUpdate", why)]
    if kind != "RollingUpdate":
        shown = errors.Shown(Type=kind, RollingUpdate=_internal(rolling))
        return [errors.not_supported(path, shown, ("Recreate", "RollingUpdate"))]
    rolling, path = rolling or {}, f"{path}.rollingUpdate"
    away, more = rolling["maxUnavailable"], rolling["maxSurge"]
    out = amount(away, f"{path}.maxUnavailable") + amount(more, f"{path}.maxSurge")
    if not number(away) and not number(more):
        out.append(errors.bad_value(f"{path}.maxUnavailable", away, "may not be 0 when `maxSurge` is 0"))
    return out + at_most_all(away, f"{path}.maxUnavailable")


def _internal(rolling: Object | None) -> Object | None:
    """With the real server's own names."""
    if rolling is None:
        return None
    return {"MaxUnavailable": rolling.get("maxUnavailable", 0), "MaxSurge": rolling.get("maxSurge", 0)}
