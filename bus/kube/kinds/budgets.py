"""Pod disruption budgets (pkg/apis/policy): how many of some pods must stay when others are taken away on purpose."""

from __future__ import annotations

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import checks, workloads
from bus.kube.kinds.base import Context, Strategy
from bus.kube.storage import Object

POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


class Budgets(Strategy):
    unconditional_update = False
    generation = True

    def name_problem(self, name: str) -> str:
        return ""  # nobody looks at a budget's metadata

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("spec", {})

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = dict.fromkeys(_COUNTS, 0)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        least, most, policy = spec.get("minAvailable"), spec.get("maxUnavailable"), spec.get("unhealthyPodEvictionPolicy")
        if least is not None and most is not None:
            selector = workloads.shown_selector(spec.get("selector"))
            shown = errors.Shown(
                MinAvailable=least, Selector=selector, MaxUnavailable=most, UnhealthyPodEvictionPolicy=policy
            )
            out.append(errors.bad_value("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
        for field in ("minAvailable", "maxUnavailable"):
            if spec.get(field) is not None:
                out += workloads.amount(spec[field], f"spec.{field}")
                out += workloads.at_most_all(spec[field], f"spec.{field}")
        out += checks.label_selector("spec.selector", spec.get("selector"))
        if policy is not None:
            out += checks.listed("spec.unhealthyPodEvictionPolicy", policy, POLICIES)
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        workloads.status_update(obj, old, ())

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return workloads.counts(obj.get("status") or {}, _COUNTS)
