"""Pod disruption budgets (pkg/apis/policy): how many of some pods must stay when others are taken away on purpose."""

from __future__ import annotations

import re

from bus.kube import errors, selectors
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy
from bus.kube.storage import Object

POLICIES = ("AlwaysAllow", "IfHealthyBudget")


class Budgets(Strategy):
    unconditional_update = False
    generation = True

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        counts = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
        obj["status"] = dict.fromkeys(counts, 0)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj.get("spec") or {}
        out = []
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            out.append(errors.bad_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
        for field in ("minAvailable", "maxUnavailable"):
            out += _amount(spec.get(field), f"spec.{field}")
        try:
            selectors.of_label_selector(spec.get("selector") or {})
        except selectors.SelectorError as e:
            out.append(errors.bad_value("spec.selector", spec.get("selector"), str(e)))
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in POLICIES:
            out.append(errors.not_supported("spec.unhealthyPodEvictionPolicy", policy, POLICIES))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _amount(value: object, path: str) -> list[Cause]:
    if isinstance(value, int) and value < 0:
        return [errors.bad_value(path, value, "must be greater than or equal to 0")]
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,9}%", value):
            why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%')"
            return [errors.bad_value(path, value, why)]
        if int(value[:-1]) > 100:
            return [errors.bad_value(path, value, "must not be greater than 100%")]
    return []
