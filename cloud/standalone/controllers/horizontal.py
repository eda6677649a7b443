"""Horizontal pod autoscalers: looks at what the pods of a target use, and sets its replicas.

Metrics of type Resource and ContainerResource, of the nodes' own figures; others have no source here and are said to fail.
A pod on a node that is cut off has no figures: it counts as missing, which never makes more of it go than its target.
Source: Kubernetes documentation, "Horizontal Pod Autoscaling"; API reference, HorizontalPodAutoscaler v2;
kube-controller-manager's pkg/controller/podautoscaler/horizontal.go for the order and the words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

from cloud.core.writes import Write
from cloud.standalone.controllers import base, events, replica_counts, resources, scaling_limits, selecting
from cloud.standalone.controllers.base import PODS, Controller, Kind, Object, Plan, Seen, View, at
from cloud.standalone.controllers.replica_counts import Asked, NoMetric, Used
from cloud.standalone.controllers.scaling_limits import Memory
from schemas import times
from schemas.subjects import ObjectKey

NAME = "horizontalpodautoscaling"
AUTOSCALERS: Kind = ("autoscaling", "horizontalpodautoscalers")
LOOK_US = 15 * times.US_PER_S  # --horizontal-pod-autoscaler-sync-period
COMPONENT = "horizontal-pod-autoscaler"
Figures = Callable[[], Mapping[str, Used]]  # by uid of the pod


def controller(figures: Figures = dict) -> Controller:
    memories: dict[str, Memory] = {}

    def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
        if seen is None:
            memories.pop(base.uid(old.object) if old is not None else "", None)
        elif old is None or _spec(old) != _spec(seen):
            yield seen.key

    def look(view: View, key: ObjectKey, now_us: int) -> Plan:
        scaler = view.get(key)
        if scaler is None or base.deleting(scaler.object):
            return Plan()
        return reconcile(view, scaler, now_us, figures(), memories.setdefault(base.uid(scaler.object), Memory()))

    return Controller(NAME, (AUTOSCALERS,), concerns, look)


def _spec(seen: Seen) -> object:
    return base.uid(seen.object), seen.object.get("spec")


class _Status:
    """The next status of an autoscaler."""

    def __init__(self, scaler: Seen, now_us: int) -> None:
        self._scaler, self._now_us = scaler, now_us
        self.old: Object = scaler.object.get("status") or {}
        self._conditions = {c["type"]: c for c in base.maps(self.old.get("conditions"))}
        self.fields: Object = {}

    def say(self, kind: str, is_so: bool, reason: str, message: str) -> None:
        before, status = self._conditions.get(kind) or {}, "True" if is_so else "False"
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        said = {"type": kind, "status": status, "reason": reason, "message": message}
        self._conditions[kind] = {**said, "lastTransitionTime": since or times.rfc3339(self._now_us)}

    def writes(self) -> list[Write]:
        obj = self._scaler.object
        kept = {"currentReplicas": 0, "desiredReplicas": 0, "currentMetrics": None} | self.old
        new = {**kept, **self.fields, "conditions": list(self._conditions.values())}
        generation = base.meta(obj).get("generation")
        if generation:
            new["observedGeneration"] = generation
        return [base.status(self._scaler, {**obj, "status": new})] if new != self.old else []


def reconcile(view: View, scaler: Seen, now_us: int, used: Mapping[str, Used], memory: Memory) -> Plan:
    status, spec = _Status(scaler, now_us), scaler.object["spec"]
    target = _target(view, scaler)
    if target is None:
        ref = spec.get("scaleTargetRef") or {}
        why = f"unable to get the target's current scale: {ref.get('kind')} {ref.get('name')!r} not found"
        why = f"the HPA controller was {why}"
        status.say("AbleToScale", False, "FailedGetScale", why)
        return Plan([*status.writes(), *events.tell(view, scaler, "FailedGetScale", why, now_us, COMPONENT)], LOOK_US)
    status.say("AbleToScale", True, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
    current = int(at(target.object, "spec", "replicas") or 0)
    memory.confirm(current)
    seen_replicas = int(at(target.object, "status", "replicas") or 0)
    status.fields = {"currentReplicas": seen_replicas, "desiredReplicas": current}
    least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    said: list[Write] = []
    wanted, reason = current, ""
    if current == 0 and least != 0:
        why = "scaling is disabled since the replica count of the target is zero"
        status.say("ScalingActive", False, "ScalingDisabled", why)
        status.fields["desiredReplicas"] = 0
        return Plan(status.writes(), LOOK_US)
    if current > most:
        wanted, reason = most, "Current number of replicas above Spec.MaxReplicas"
    elif current < least:
        wanted, reason = least, "Current number of replicas below Spec.MinReplicas"
    else:
        try:
            asked, by = _metrics(view, target, spec, current, now_us, used, status)
        except _Invalid as e:
            status.say("ScalingActive", False, e.reason, str(e))
            said = events.tell(view, scaler, e.reason, str(e), now_us, COMPONENT)
            return Plan([*status.writes(), *said], LOOK_US)
        limited = scaling_limits.limit(spec, current, asked, memory, now_us)
        status.say("AbleToScale", True, *limited.able)
        status.say("ScalingLimited", *limited.limited)
        wanted, reason = limited.replicas, f"{by} above target" if limited.replicas > current else "All metrics below target"
    status.fields["desiredReplicas"] = wanted
    if wanted == current:
        return Plan(status.writes(), LOOK_US)
    why = f"New size: {wanted}; reason: {reason}"
    status.say(
        "AbleToScale", True, "SucceededRescale", f"the HPA controller was able to update the target scale to {wanted}"
    )
    status.fields["lastScaleTime"] = times.rfc3339(now_us)
    memory.pending = (current, wanted, now_us)
    spec_now = {**target.object["spec"], "replicas": wanted}
    said = events.tell(view, scaler, "SuccessfulRescale", why, now_us, COMPONENT, kind="Normal")
    return Plan([base.update(target, {**target.object, "spec": spec_now}, scaler), *status.writes(), *said], LOOK_US)


def nodes(view: View) -> set[str]:
    """Where the pods run whose figures are needed."""
    found = set()
    for scaler in view.list(AUTOSCALERS):
        if (target := _target(view, scaler)) is not None:
            found |= {str(at(p, "spec", "nodeName") or "") for p in _pods(view, target)}
    return found - {""}


def _pods(view: View, target: Seen) -> list[Object]:
    selector = at(target.object, "spec", "selector") or {}
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        selector = {"matchLabels": selector}
    pods = (p.object for p in view.list(PODS, target.key.namespace))
    return [p for p in pods if selecting.selects(selector, base.labels(p))]


def _target(view: View, scaler: Seen) -> Seen | None:
    """What has ``spec.replicas`` and a selector."""
    ref = at(scaler.object, "spec", "scaleTargetRef") or {}
    served = view.kind_of(str(ref.get("apiVersion") or ""), str(ref.get("kind") or ""))
    if served is None or not served[1]:
        return None
    found = view.get(ObjectKey(*served[0], scaler.key.namespace, str(ref.get("name") or "")))
    return found if found is not None and isinstance(at(found.object, "spec", "replicas"), int) else None


# --- metrics -----------------------------------------------------------------------------------------------------------


class _Invalid(Exception):
    """No metric has an answer, or one that has none could have forbidden to go down."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


def _metrics(
    view: View, target: Seen, spec: Object, current: int, now_us: int, used: Mapping[str, Used], status: _Status
) -> tuple[int, str]:
    """The most that any metric asks for, and which.  Raises _Invalid."""
    pods = _pods(view, target)
    most, by, shown, failed = 0, "", [], list[tuple[str, str]]()
    tolerance = {
        up: Fraction(resources.quantity(given), 1000)
        for up, word in ((True, "scaleUp"), (False, "scaleDown"))
        if (given := at(spec, "behavior", word, "tolerance")) is not None
    }
    for metric in base.maps(spec.get("metrics")):
        try:
            asked, what, now = _one(metric, current, pods, used, now_us, tolerance)
        except NoMetric as e:
            failed.append((_REASONS.get(str(metric.get("type")), "InvalidMetricSourceType"), str(e)))
            continue
        shown.append(now)
        if not by or asked.replicas > most:
            most, by = asked.replicas, what
    status.fields["currentMetrics"] = shown or None
    if failed and (not shown or most < current):
        reason, why = failed[0]
        many = f"invalid metrics ({len(failed)} invalid out of {len(failed) + len(shown)}), first error is: "
        raise _Invalid(
            reason, f"the HPA was unable to compute the replica count: {many if shown or len(failed) > 1 else ''}{why}"
        )
    why = f"the HPA was able to successfully calculate a replica count from {by}"
    status.say("ScalingActive", True, "ValidMetricFound", why)
    return most, by


_REASONS = {
    "Resource": "FailedGetResourceMetric",
    "ContainerResource": "FailedGetContainerResourceMetric",
    "Pods": "FailedGetPodsMetric",
    "Object": "FailedGetObjectMetric",
    "External": "FailedGetExternalMetric",
}


def _one(
    metric: Object,
    current: int,
    pods: list[Object],
    used: Mapping[str, Used],
    now_us: int,
    tolerance: Mapping[bool, Fraction],
) -> tuple[Asked, str, Object]:
    """What it asks for, its name, and how it is shown.  Raises NoMetric."""
    field = {"Resource": "resource", "ContainerResource": "containerResource"}.get(str(metric.get("type")))
    if field is None:
        raise NoMetric(f"there is no source of metrics of type {metric.get('type')}")
    source = metric.get(field) or {}
    name, target, container = str(source.get("name")), source.get("target") or {}, str(source.get("container") or "")
    percent, average = target.get("averageUtilization"), target.get("averageValue")
    aim = None if average is None else Fraction(resources.quantity(average), 1 if name == "cpu" else 1000)
    asked = replica_counts.count(
        current,
        pods,
        used,
        now_us,
        resource=name,
        container=container,
        utilization=int(percent) if percent is not None else None,
        average=aim,
        tolerance=tolerance,
    )
    value = f"{int(asked.average)}m" if name == "cpu" else str(int(asked.average))
    now: Object = {"averageValue": value}
    if asked.utilization is not None:
        now["averageUtilization"] = asked.utilization
    where = f"{name} container resource" if container else f"{name} resource"
    what = f"{where} utilization (percentage of request)" if percent is not None else where
    shown = {"name": name, **({"container": container} if container else {}), "current": now}
    return asked, what, {"type": metric["type"], field: shown}
