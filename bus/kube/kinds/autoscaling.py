"""Horizontal pod autoscalers (pkg/apis/autoscaling), in the form of v2, which is the one that is stored."""

from __future__ import annotations

from typing import Any

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_resources, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object

CPU_PERCENT_DEFAULT = 80
WINDOW_S_MAX, PERIOD_S_MAX = 3600, 1800
SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_FIELD_OF = {"ContainerResource": "containerResource", "External": "external", "Object": "object", "Pods": "pods"}
_FIELD_OF |= {"Resource": "resource"}
_TARGETS = ("AverageValue", "Utilization", "Value")
_SELECT = ("Disabled", "Max", "Min")
_PERCENT_UP: Object = {"type": "Percent", "value": 100, "periodSeconds": 15}
_POSITIVE = "must be greater than 0"


class Autoscalers(Strategy):
    unconditional_update = False

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": CPU_PERCENT_DEFAULT}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        behavior = spec.get("behavior")
        if behavior is None:
            return
        up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
        up.setdefault("stabilizationWindowSeconds", 0)
        for rules, policies in (
            (up, [{"type": "Pods", "value": 4, "periodSeconds": 15}, _PERCENT_UP]),
            (down, [_PERCENT_UP]),
        ):
            rules.setdefault("selectPolicy", "Max")
            if not rules.get("policies"):
                rules["policies"] = [dict(p) for p in policies]

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
        if least is not None and least < 1:
            out.append(errors.bad_value("spec.minReplicas", least, "must be greater than or equal to 1"))
        if not most:
            out.append(errors.required("spec.maxReplicas", "must be set and greater than 0"))
        elif most < 0:
            out.append(errors.bad_value("spec.maxReplicas", most, "must be greater than or equal to 1"))
        if least is not None and most < least:
            out.append(errors.bad_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
        out += _reference(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef", grouped=True)
        metrics = spec.get("metrics") or []
        for i, metric in enumerate(metrics):
            out += _metric(metric, f"spec.metrics[{i}]")
        if least == 0 and not any(m.get("type") in ("Object", "External") for m in metrics):
            why = "must specify at least one Object or External metric to support scaling to zero replicas"
            out.append(errors.not_permitted("spec.metrics", why))
        for word in ("scaleUp", "scaleDown"):
            rules = at(spec, "behavior", word)
            out += _rules(rules, f"spec.behavior.{word}") if rules is not None else []
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        workloads.status_update(obj, old, ("lastTransitionTime",))
        status = obj.setdefault("status", {})
        status.setdefault("currentMetrics", None)
        status.setdefault("desiredReplicas", 0)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return workloads.counts(obj.get("status") or {}, ("currentReplicas", "desiredReplicas"))


def _reference(ref: Object, path: str, *, grouped: bool = False) -> list[Cause]:
    """``grouped``: of a kind that belongs to a group."""
    out: list[Cause] = []
    for field in ("kind", "name"):
        value = ref.get(field) or ""
        out += checks.text(f"{path}.{field}", value, names.path_segment) if value else [errors.required(f"{path}.{field}")]
    version, kind = ref.get("apiVersion") or "", ref.get("kind") or ""
    why = f"unexpected GroupVersion string: {version}" if version.count("/") > 1 else ""
    if grouped and not why and "/" not in version and not (version == "v1" and kind == "ReplicationController"):
        why = "apiVersion must specify API group"
    return [*out, errors.bad_value(f"{path}.apiVersion", version, why)] if why else out


_ORDER = ("object", "external", "pods", "resource", "containerResource")


def _metric(metric: Object, path: str) -> list[Cause]:
    kind = metric.get("type") or ""
    unknown = checks.listed(f"{path}.type", kind, SOURCES)
    out = [] if kind else [errors.required(f"{path}.type", "must specify a metric source type")]
    out += unknown
    given = [f for f in _ORDER if metric.get(f) is not None]
    if given:
        out += _source(given[0], metric[given[0]], f"{path}.{given[0]}")
    field = _FIELD_OF.get(kind, "")
    if field and field not in given:
        out.append(errors.required(f"{path}.{field}", "must populate information for the given metric source"))
    out += unknown
    if len(given) != 1:
        why = "must populate the given metric source only"
        out += [errors.not_permitted(f"{path}.{other}", why) for other in given if other != field]
    return out


def _source(field: str, source: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    target, at_target = source.get("target") or {}, f"{path}.target"
    if field in ("resource", "containerResource"):
        name = source.get("name") or ""
        if not name:
            out.append(errors.required(f"{path}.name", "must specify a resource name"))
        elif field == "containerResource":
            out += pod_resources.container_name(name, f"{path}.name")
        container = source.get("container") or ""
        if field == "containerResource" and not container:
            out.append(errors.required(f"{path}.container", "must specify a container"))
        elif field == "containerResource":
            out += checks.text(f"{path}.container", container, names.dns_label)
        out += _target(target, at_target)
        both = [target.get(f) is not None for f in ("averageUtilization", "averageValue")]
        if not any(both):
            why = "must set either a target raw value or a target utilization"
            out.append(errors.required(f"{at_target}.averageUtilization", why))
        elif all(both):
            why = "may not set both a target raw value and a target utilization"
            out.append(errors.not_permitted(f"{at_target}.averageValue", why))
        return out
    if field == "object":
        out += _reference(source.get("describedObject") or {}, f"{path}.describedObject")
    name = at(source, "metric", "name") or ""
    if not name:
        out.append(errors.required(f"{path}.metric.name", "must specify a metric name"))
    else:
        out += checks.text(f"{path}.metric.name", name, names.path_segment)
    out += checks.label_selector(f"{path}.metric.selector", at(source, "metric", "selector"))
    out += _target(target, at_target)
    value, average = target.get("value"), target.get("averageValue")
    if field == "pods":
        if average is None:
            out.append(errors.required(f"{at_target}.averageValue", "must specify a positive target averageValue"))
    elif value is None and average is None:
        external = "must set either a target value for metric or a per-pod target"
        why = external if field == "external" else "must set either a target value or averageValue"
        out.append(errors.required(f"{at_target}.averageValue", why))
    elif field == "external" and value is not None and average is not None:
        why = "may not set both a target value for metric and a per-pod target"
        out.append(errors.not_permitted(f"{at_target}.value", why))
    return out


def _target(target: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    kind = target.get("type") or ""
    if not kind:
        out.append(errors.required(f"{path}.type", "must specify a metric target type"))
    if kind not in _TARGETS:
        out.append(errors.bad_value(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue"))
    for field in ("value", "averageValue"):
        if target.get(field) is not None and quantity.parse(target[field]) <= 0:
            out.append(errors.bad_value(f"{path}.{field}", target[field], "must be positive"))
    percent = target.get("averageUtilization")
    if percent is not None and percent < 1:
        out.append(errors.bad_value(f"{path}.averageUtilization", percent, _POSITIVE))
    return out


def _rules(rules: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        out.append(errors.bad_value(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero"))
    if window is not None and window > WINDOW_S_MAX:
        why = f"must be less than or equal to {WINDOW_S_MAX}"
        out.append(errors.bad_value(f"{path}.stabilizationWindowSeconds", window, why))
    select = rules.get("selectPolicy")
    if select is not None and select not in _SELECT:
        out.append(errors.not_supported(f"{path}.selectPolicy", select, _SELECT))
    policies = rules.get("policies") or []
    if not policies:
        out.append(errors.required(f"{path}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(policies):
        out += _policy(policy, f"{path}.policies[{i}]")
    if rules.get("tolerance") is not None:
        out += checks.amount_not_negative(f"{path}.tolerance", rules["tolerance"])
    return out


def _policy(policy: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    kind: Any = policy.get("type") or ""
    if kind not in ("Percent", "Pods"):
        out.append(errors.not_supported(f"{path}.type", kind, ("Percent", "Pods")))
    if (policy.get("value") or 0) <= 0:
        out.append(errors.bad_value(f"{path}.value", policy.get("value") or 0, "must be greater than zero"))
    period = policy.get("periodSeconds") or 0
    if period <= 0:
        out.append(errors.bad_value(f"{path}.periodSeconds", period, "must be greater than zero"))
    if period > PERIOD_S_MAX:
        out.append(errors.bad_value(f"{path}.periodSeconds", period, f"must be less than or equal to {PERIOD_S_MAX}"))
    return out
