"""Deployments and replica sets, and what kinds with a template share: a selector that never changes and matches it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from bus.kube import errors, names, selectors
from bus.kube.errors import Cause
from bus.kube.kinds import pod_defaults, pod_rules
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter, field_of
from bus.kube.storage import Object


class ReplicaSets(Strategy):
    generation = True
    fields: tuple[str, ...] = ("status.replicas",)
    special: ClassVar[Mapping[str, FieldGetter]] = {"status.replicas": lambda o: field_of(o, "status.replicas") or "0"}

    def defaults(self, obj: Object, ctx: Context) -> None:
        template_defaults(obj)
        obj["spec"].setdefault("replicas", 1)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = selector_rules(spec.get("selector"), at(spec, "template", "metadata", "labels") or {}, "deployment")
        out += not_negative(spec, ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"))
        pod = spec["template"]["spec"]
        out += pod_rules.template(spec["template"], "spec.template")
        if pod["restartPolicy"] in ("OnFailure", "Never"):
            out.append(errors.not_supported("spec.template.spec.restartPolicy", pod["restartPolicy"], ("Always",)))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if obj["spec"].get("selector") != at(old, "spec", "selector"):
            out.append(errors.bad_value("spec.selector", obj["spec"].get("selector"), "field is immutable"))
        return out


class Deployments(ReplicaSets):
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
        out = super().validate(obj, ctx)
        strategy = obj["spec"]["strategy"]
        if strategy["type"] not in ("Recreate", "RollingUpdate"):
            out.append(errors.not_supported("spec.strategy.type", strategy["type"], ("Recreate", "RollingUpdate")))
        elif strategy["type"] == "Recreate" and strategy.get("rollingUpdate") is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            out.append(errors.not_permitted("spec.strategy.rollingUpdate", why))
        elif strategy["type"] == "RollingUpdate":
            out += _rolling(strategy["rollingUpdate"])
        return out


def template_defaults(obj: Object) -> None:
    template = obj.setdefault("spec", {}).setdefault("template", {})
    pod_defaults.pod_spec(template.setdefault("spec", {}))
    template.setdefault("metadata", {})


def not_negative(spec: Object, fields: tuple[str, ...]) -> list[Cause]:
    why = "must be greater than or equal to 0"
    return [errors.bad_value(f"spec.{f}", spec[f], why) for f in fields if (spec.get(f) or 0) < 0]


def amounts(rolling: Object, fields: tuple[str, ...], path: str) -> tuple[dict[str, int], list[Cause]]:
    """Numbers of fields that are a count or a percentage, and what is wrong with the others."""
    found, out = {}, []
    for field in fields:
        value: Any = rolling[field]
        if (isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}%", value)) or (isinstance(value, int) and value < 0):
            why = 'must be a non-negative integer or a percentage (e.g. 5 or "10%")'
            out.append(errors.bad_value(f"{path}.{field}", value, why))
            continue
        found[field] = int(str(value).removesuffix("%"))
    return found, out


def _rolling(rolling: Object) -> list[Cause]:
    path = "spec.strategy.rollingUpdate"
    found, out = amounts(rolling, ("maxUnavailable", "maxSurge"), path)
    if found == {"maxUnavailable": 0, "maxSurge": 0}:
        why = "may not be 0 when `maxSurge` is 0"
        out.append(errors.bad_value(f"{path}.maxUnavailable", rolling["maxUnavailable"], why))
    return out


def selector_rules(selector: Any, labels: dict[str, str], kind: str) -> list[Cause]:
    if selector is None:
        return [
            errors.required("spec.selector"),
            errors.bad_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"),
        ]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return [errors.bad_value("spec.selector", {}, f"empty selector is invalid for {kind}")]
    out = []
    for key, value in (selector.get("matchLabels") or {}).items():
        if problem := names.label_key(key) or names.label_value(value):
            out.append(errors.bad_value("spec.selector.matchLabels", key, problem))
    try:
        matches = selectors.of_label_selector(selector).matches(labels)
    except selectors.SelectorError as e:
        return [*out, errors.bad_value("spec.selector", selector, str(e))]
    if not matches:
        why = "`selector` does not match template `labels`"
        out.append(errors.bad_value("spec.template.metadata.labels", labels, why))
    return out
