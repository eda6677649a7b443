"""How many replicas a metric asks for: the arithmetic of the horizontal autoscaler, pure.

Source: Kubernetes documentation, "Horizontal Pod Autoscaling" (algorithm details), and for what it leaves open
kube-controller-manager's pkg/controller/podautoscaler/replica_calculator.go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cloud.standalone.controllers import base, resources
from cloud.standalone.controllers.base import Object, at
from schemas import times

TOLERANCE = Fraction(1, 10)  # --horizontal-pod-autoscaler-tolerance
INITIALIZATION_US = 300 * times.US_PER_S  # --horizontal-pod-autoscaler-cpu-initialization-period
INITIAL_READINESS_US = 30 * times.US_PER_S  # --horizontal-pod-autoscaler-initial-readiness-delay


class NoMetric(Exception):
    """Why a metric has no answer now."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a pod used at a time, over a window before it: thousandths of a core, bytes, by container."""

    time_us: int
    window_us: int
    containers: Mapping[str, tuple[Fraction, int]]

    def of(self, resource: str, container: str) -> Fraction | None:
        """``container`` "" is the whole pod.  None: not measured."""
        found = [v for name, v in self.containers.items() if container in ("", name)]
        if not found or resource not in ("cpu", "memory"):
            return None
        return sum((v[0] if resource == "cpu" else Fraction(v[1]) for v in found), Fraction(0))


@dataclass(frozen=True, slots=True)
class Asked:
    """``replicas`` by one metric, and what it is now."""

    replicas: int
    average: Fraction  # thousandths of a core, or bytes, a pod
    utilization: int | None = None  # percent of what the pods request


def count(
    current: int,
    pods: Sequence[Object],
    used: Mapping[str, Used],
    now_us: int,
    *,
    resource: str,
    container: str = "",
    utilization: int | None = None,
    average: Fraction | None = None,
    tolerance: Mapping[bool, Fraction] | None = None,
) -> Asked:
    """``used`` by uid.  One of ``utilization`` (percent of the requests) and ``average`` (a pod) is the target;
    ``tolerance`` of scaling up (True) and down.  Raises NoMetric."""
    if not pods:
        raise NoMetric("no pods returned by selector while calculating replica count")
    ready, unready, missing, figures = _grouped(pods, used, now_us, resource, container)
    if not figures:
        raise NoMetric("did not receive metrics for targeted pods (pods might be unready)")
    requests = {base.uid(p): _request(p, resource, container) for p in pods} if utilization is not None else {}
    target = _Target(requests, utilization, average)
    ratio = target.ratio(figures)
    is_now = sum(figures.values(), Fraction(0)) / len(figures)
    percent = target.percent(figures) if utilization is not None else None

    def answer(replicas: int) -> Asked:
        return Asked(replicas, is_now, percent)

    def within(r: Fraction) -> bool:
        return abs(r - 1) <= (tolerance or {}).get(r > 1, TOLERANCE)

    up_with_unready = bool(unready) and ratio > 1
    if not up_with_unready and not missing:
        return answer(current if within(ratio) else math.ceil(ratio * ready))
    figures = dict(figures)
    if missing and ratio < 1:  # as if they used what they may
        figures |= {uid: target.full(uid) for uid in missing}
    elif missing and ratio > 1:
        figures |= dict.fromkeys(missing, Fraction(0))
    if up_with_unready:
        figures |= dict.fromkeys(unready, Fraction(0))
    new = target.ratio(figures)
    if within(new) or (ratio < 1 < new) or (new < 1 < ratio):
        return answer(current)
    replicas = math.ceil(new * len(figures))
    turned = (new < 1 and replicas > current) or (new > 1 and replicas < current)
    return answer(current if turned else replicas)


@dataclass(frozen=True, slots=True)
class _Target:
    requests: Mapping[str, Fraction]
    utilization: int | None
    average: Fraction | None

    def percent(self, figures: Mapping[str, Fraction]) -> int:
        """Raises NoMetric."""
        wanted = sum((self.requests[uid] for uid in figures), Fraction(0))
        if not wanted:
            raise NoMetric("no metrics returned matched known pods")
        return int(sum(figures.values(), Fraction(0)) * 100 / wanted)

    def ratio(self, figures: Mapping[str, Fraction]) -> Fraction:
        if self.utilization is not None:
            return Fraction(self.percent(figures), self.utilization)
        assert self.average
        return sum(figures.values(), Fraction(0)) / len(figures) / self.average

    def full(self, uid: str) -> Fraction:
        if self.utilization is not None:
            return self.requests[uid] * max(100, self.utilization) / 100
        assert self.average
        return self.average


def _grouped(
    pods: Sequence[Object], used: Mapping[str, Used], now_us: int, resource: str, container: str
) -> tuple[int, list[str], list[str], dict[str, Fraction]]:
    """How many are ready and measured, who is not ready yet, of whom nothing is known, and the figures of the ready."""
    unready, missing, figures = [], [], dict[str, Fraction]()
    for pod in pods:
        uid, phase = base.uid(pod), at(pod, "status", "phase")
        if base.deleting(pod) or phase == "Failed":
            continue
        told = used.get(uid)
        figure = told.of(resource, container) if told is not None else None
        if phase == "Pending":
            unready.append(uid)
        elif told is None or figure is None:
            missing.append(uid)
        elif resource == "cpu" and _starting(pod, told, now_us):
            unready.append(uid)
        else:
            figures[uid] = figure
    return len(figures), unready, missing, figures


def _starting(pod: Object, told: Used, now_us: int) -> bool:
    """What a pod burns while it starts says nothing of its load."""
    ready, started = base.condition(pod, "Ready"), times.micros(at(pod, "status", "startTime"))
    if ready is None or started is None:
        return True
    no, since = ready.get("status") == "False", times.micros(ready.get("lastTransitionTime")) or 0
    if started + INITIALIZATION_US > now_us:
        return no or told.time_us < since + told.window_us
    return no and started + INITIAL_READINESS_US > since


def _request(pod: Object, resource: str, container: str) -> Fraction:
    """Raises NoMetric for a container without one."""
    whole = at(pod, "spec", "resources", "requests", resource)
    if whole is not None and not container:
        return _amount(whole, resource)
    found = [c for c in base.maps(at(pod, "spec", "containers")) if container in ("", c.get("name"))]
    sidecars = base.maps(at(pod, "spec", "initContainers"))
    found += [c for c in sidecars if c.get("restartPolicy") == "Always" and container in ("", c.get("name"))]
    total = Fraction(0)
    for c in found:
        asked = at(c, "resources", "requests", resource)
        if asked is None:
            raise NoMetric(
                f"missing request for {resource} in container {c.get('name')} of Pod {base.meta(pod).get('name')}"
            )
        total += _amount(asked, resource)
    return total


def _amount(text: object, resource: str) -> Fraction:
    return Fraction(resources.quantity(text), 1 if resource == "cpu" else 1000)
