"""Deployments and replica sets: a selector that never changes, a template that it matches."""

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
        spec = obj.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        template = spec.setdefault("template", {})
        pod_defaults.pod_spec(template.setdefault("spec", {}))
        template.setdefault("metadata", {})

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = _selector(spec.get("selector"), at(spec, "template", "metadata", "labels") or {})
        for field in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
            if spec.get(field, 0) < 0:
                out.append(errors.bad_value(f"spec.{field}", spec[field], "must be greater than or equal to 0"))
        pod = spec["template"]["spec"]
        out += pod_rules.pod_spec(pod, "spec.template.spec")
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


def _rolling(rolling: Object) -> list[Cause]:
    out = []
    path = "spec.strategy.rollingUpdate"
    amounts = {}
    for field in ("maxUnavailable", "maxSurge"):
        value: Any = rolling[field]
        text = str(value).removesuffix("%")
        if (isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}%", value)) or (isinstance(value, int) and value < 0):
            why = 'must be a non-negative integer or a percentage (e.g. 5 or "10%")'
            out.append(errors.bad_value(f"{path}.{field}", value, why))
            continue
        amounts[field] = int(text)
    if amounts == {"maxUnavailable": 0, "maxSurge": 0}:
        why = "may not be 0 when `maxSurge` is 0"
        out.append(errors.bad_value(f"{path}.maxUnavailable", rolling["maxUnavailable"], why))
    return out


def _selector(selector: Any, labels: dict[str, str]) -> list[Cause]:
    if selector is None:
        return [
            errors.required("spec.selector"),
            errors.bad_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"),
        ]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return [errors.bad_value("spec.selector", {}, "empty selector is invalid for deployment")]
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
