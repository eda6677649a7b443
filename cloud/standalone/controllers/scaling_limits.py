"""How fast a horizontal autoscaler may go, and how long it waits: stabilisation windows and policies.  Pure, but for its
memory of what was recommended and done, which a restart loses, as kube-controller-manager's is lost.

Source: Kubernetes documentation, "Horizontal Pod Autoscaling", "Configurable scaling behavior"; kube-controller-manager's
pkg/controller/podautoscaler/horizontal.go.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Object, at
from schemas import times

DOWN_WINDOW_S = 300  # --horizontal-pod-autoscaler-downscale-stabilization
REMEMBERED_MAX = 500  # of each kind: an hour of looks, the longest window there is
_PERCENT = {"type": "Percent", "value": 100, "periodSeconds": 15}
_UP: Object = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, _PERCENT]}
_DOWN: Object = {"policies": [_PERCENT]}


@dataclass(slots=True)
class Memory:
    """(time in microseconds, replicas)."""

    recommended: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    added: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    removed: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))

    pending: tuple[int, int, int] | None = None  # what was asked for last: from, to, when

    def confirm(self, current: int) -> None:
        """Counts the last change, if it was made."""
        pending, self.pending = self.pending, None
        if pending is not None and pending[1] == current:
            before, now, at_us = pending
            (self.added if now > before else self.removed).append((at_us, abs(now - before)))


@dataclass(frozen=True, slots=True)
class Limited:
    """``able`` and ``limited`` are reason and message of the conditions AbleToScale and ScalingLimited."""

    replicas: int
    able: tuple[str, str]
    limited: tuple[bool, str, str]


def limit(spec: Object, current: int, wanted: int, memory: Memory, now_us: int) -> Limited:
    """What becomes of ``wanted`` replicas.  Remembers it."""
    up, down = ({**d, **(at(spec, "behavior", f) or {})} for d, f in ((_UP, "scaleUp"), (_DOWN, "scaleDown")))
    calm, able = _stabilized(current, wanted, memory, up, down, now_us)
    least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    within = (False, "DesiredWithinRange", "the desired count is within the acceptable range")
    if calm > current:
        bound = max(current, _bound(up, current, memory, now_us, sign=1))
        if calm > min(most, bound):
            if most > bound:
                return Limited(
                    bound,
                    able,
                    (True, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"),
                )
            return Limited(
                most, able, (True, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
            )
    elif calm < current:
        bound = min(current, _bound(down, current, memory, now_us, sign=-1))
        if calm < max(least, bound):
            if least < bound:
                return Limited(
                    bound,
                    able,
                    (True, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"),
                )
            return Limited(
                least, able, (True, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
            )
    if calm > most:
        return Limited(
            most, able, (True, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
        )
    if calm < least:
        return Limited(
            least, able, (True, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
        )
    return Limited(calm, able, within)


def _stabilized(
    current: int, wanted: int, memory: Memory, up: Object, down: Object, now_us: int
) -> tuple[int, tuple[str, str]]:
    """Up: the lowest of its window; down: the highest."""

    def recent(rules: Object, default_s: int, pick: Callable[[Iterable[int]], int]) -> int:
        window = rules.get("stabilizationWindowSeconds")
        since = now_us - int(default_s if window is None else window) * times.US_PER_S
        return pick([wanted, *(n for at_us, n in memory.recommended if at_us > since)])

    lowest, highest = recent(up, 0, min), recent(down, DOWN_WINDOW_S, max)
    calm = current
    calm = max(calm, lowest)
    calm = min(calm, highest)
    memory.recommended.append((now_us, wanted))
    if calm == wanted:
        return calm, ("ReadyForNewScale", "recommended size matches current size")
    if calm > wanted:
        why = "recent recommendations were higher than current one, applying the highest recent recommendation"
        return calm, ("ScaleDownStabilized", why)
    why = "recent recommendations were lower than current one, applying the lowest recent recommendation"
    return calm, ("ScaleUpStabilized", why)


def _bound(rules: Object, current: int, memory: Memory, now_us: int, *, sign: int) -> int:
    """How far its policies let it go now."""
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    proposed = []
    for policy in base.maps(rules.get("policies")):
        since = now_us - int(policy.get("periodSeconds") or 0) * times.US_PER_S
        added, removed = (sum(n for at_us, n in of if at_us > since) for of in (memory.added, memory.removed))
        start, value = current - added + removed, int(policy.get("value") or 0)
        if policy.get("type") == "Pods":
            proposed.append(start + sign * value)
        else:
            part = start * (1 + sign * Fraction(value, 100))
            proposed.append(math.ceil(part) if sign > 0 else int(part))
    furthest = (max if sign > 0 else min) if select == "Max" else (min if sign > 0 else max)
    return furthest(proposed, default=current)
