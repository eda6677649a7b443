"""Cells as people read them (apimachinery's util/duration, cli-runtime's printers)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bus.kube import times

NONE, UNKNOWN, UNSET = "<none>", "<unknown>", "<unset>"


def age(since: Any, now_us: int) -> str:
    """``5m30s`` since an RFC 3339 time."""
    try:
        return duration((now_us - times.micros(since)) // 1_000_000)
    except (ValueError, TypeError):
        return UNKNOWN


def duration(seconds: int) -> str:
    """Two units while the second one matters, one later."""
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def labels(pairs: Mapping[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((pairs or {}).items())) or NONE


def selector(value: Mapping[str, Any] | None) -> str:
    """A LabelSelector in the words of ``-l``."""
    if value is None:
        return NONE
    parts = [f"{k}={v}" for k, v in sorted((value.get("matchLabels") or {}).items())]
    words = {"In": "in", "NotIn": "notin"}
    for e in value.get("matchExpressions") or []:
        values = ",".join(sorted(e.get("values") or []))
        if e.get("operator") in words:
            parts.append(f"{e.get('key')} {words[e['operator']]} ({values})")
        else:
            parts.append(("!" if e.get("operator") == "DoesNotExist" else "") + str(e.get("key")))
    return ",".join(parts) or NONE


def joined(values: Iterable[Any]) -> str:
    return ",".join(str(v) for v in values)
