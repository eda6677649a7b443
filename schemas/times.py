"""Times on the wire: microseconds since 1970 (UTC) inside, RFC 3339 in Kubernetes objects.  Arithmetic, no clock."""

from __future__ import annotations

from datetime import UTC, datetime

US_PER_S = 1_000_000


def rfc3339(us: int) -> str:
    """``2026-11-23T08:09:10Z``: whole seconds, as metav1.Time is written."""
    return datetime.fromtimestamp(us // US_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micros(text: object) -> int | None:
    """Microseconds since 1970 of an RFC 3339 text; None for anything else (objects come from users)."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
        return round(at.timestamp() * US_PER_S) if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
