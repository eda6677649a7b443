"""Horizontal pod autoscalers (pkg/apis/autoscaling), in the form of v2, which is the one that is stored."""

from __future__ import annotations

from typing import Any

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
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
            if "policies" not in rules:
                rules["policies"] = [dict(p) for p in policies]

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
        if least is not None and least < 1:
            out.append(errors.bad_value("spec.minReplicas", least, "must be greater than or equal to 1"))
        if most < 1:
            out.append(errors.bad_value("spec.maxReplicas", most, _POSITIVE))
        if least is not None and most < least:
            out.append(errors.bad_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
        out += _reference(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
        for i, metric in enumerate(spec.get("metrics") or []):
            out += _metric(metric, f"spec.metrics[{i}]")
        for word in ("scaleUp", "scaleDown"):
            rules = at(spec, "behavior", word)
            out += _rules(rules, f"spec.behavior.{word}") if rules is not None else []
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _reference(ref: Object, path: str) -> list[Cause]:
    out = []
    for field in ("kind", "name"):
        value = ref.get(field) or ""
        if not value:
            out.append(errors.required(f"{path}.{field}"))
        elif problem := names.path_segment(value):
            out.append(errors.bad_value(f"{path}.{field}", value, problem))
    version = ref.get("apiVersion") or ""
    if version.count("/") > 1:
        out.append(errors.bad_value(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    return out


def _metric(metric: Object, path: str) -> list[Cause]:
    kind = metric.get("type") or ""
    if not kind:
        return [errors.required(f"{path}.type", "must specify a metric source type")]
    if kind not in SOURCES:
        return [errors.not_supported(f"{path}.type", kind, SOURCES)]
    out = []
    field = _FIELD_OF[kind]
    given = [f for f in _FIELD_OF.values() if metric.get(f) is not None]
    if field not in given:
        out.append(
            errors.required(f"{path}.{field}", f"must populate information for the given metric source of type {kind}")
        )
        return out
    for other in [f for f in given if f != field]:
        why = "must populate the given metric source only"
        out.append(errors.not_permitted(f"{path}.{other}", why))
    return out + _source(field, metric[field], f"{path}.{field}")


def _source(field: str, source: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    target = source.get("target") or {}
    if field in ("resource", "containerResource"):
        for needed in ("name",) if field == "resource" else ("name", "container"):
            if not source.get(needed):
                out.append(
                    errors.required(f"{path}.{needed}", f"must specify a {'resource ' if needed == 'name' else ''}{needed}")
                )
        both = ("averageUtilization", "averageValue")
        out += _target(target, f"{path}.target")
        if all(target.get(f) is None for f in both):
            why = "must set either a target raw value or a target utilization"
            out.append(errors.required(f"{path}.target.averageUtilization", why))
        elif all(target.get(f) is not None for f in both):
            why = "may not set both a target raw value and a target utilization"
            out.append(errors.not_permitted(f"{path}.target.averageValue", why))
        return out
    if field == "object":
        out += _reference(source.get("describedObject") or {}, f"{path}.describedObject")
    name = at(source, "metric", "name") or ""
    if not name:
        out.append(errors.required(f"{path}.metric.name", "must specify a metric name"))
    elif field != "external" and (problem := names.path_segment(name)):
        out.append(errors.bad_value(f"{path}.metric.name", name, problem))
    out += _target(target, f"{path}.target")
    if field == "pods":
        if target.get("averageValue") is None:
            out.append(errors.required(f"{path}.target.averageValue", "must specify a positive target averageValue"))
    elif target.get("value") is None and target.get("averageValue") is None:
        out.append(errors.required(f"{path}.target.averageValue", "must set either a target value or averageValue"))
    elif field == "external" and target.get("value") is not None and target.get("averageValue") is not None:
        out.append(
            errors.not_permitted(f"{path}.target.value", "may not set both a target value for metric and a per-pod target")
        )
    return out


def _target(target: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    kind = target.get("type") or ""
    if not kind:
        out.append(errors.required(f"{path}.type", "must specify a metric target type"))
    elif kind not in _TARGETS:
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
