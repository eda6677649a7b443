"""Microseconds to the RFC 3339 text that Kubernetes writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

US_PER_S = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(us: int) -> str:
    """Wall microseconds since 1970 as ``2026-11-23T08:09:10Z``: whole seconds, as metav1.Time is written."""
    return (_EPOCH + timedelta(seconds=us // US_PER_S)).strftime("%Y-%m-%dT%H:%M:%SZ")
