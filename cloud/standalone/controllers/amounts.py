"""Fields that are a number or a percentage of something (API reference: IntOrString), and readiness over time."""

from __future__ import annotations

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Object
from schemas import times


def share(value: object, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return max(0, value)
    percent = str(value).removesuffix("%")
    part = of * (int(percent) if percent.isdecimal() else 0)
    return -(-part // 100) if up else part // 100


def ready(pod: Object) -> bool:
    return (base.condition(pod, "Ready") or {}).get("status") == "True"


def ready_since_us(pod: Object) -> int | None:
    return times.micros((base.condition(pod, "Ready") or {}).get("lastTransitionTime")) if ready(pod) else None


def available_in_us(pod: Object, min_ready_s: int, now_us: int) -> int | None:
    """0: it is available; more: it will be after this time, if it stays ready; None: it isn't ready."""
    if not ready(pod):
        return None
    return max(0, (ready_since_us(pod) or 0) + min_ready_s * times.US_PER_S - now_us)
