"""Times as the API writes them: RFC 3339 in UTC, to the second (``Time``) or the microsecond (``MicroTime``)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)


def parse(text: str) -> datetime:
    """Raises ValueError for anything that is not RFC 3339."""
    m = _RFC3339.match(text)
    if m is None:
        raise ValueError(f"parsing time {text[:60]!r}: not an RFC 3339 time")
    fraction = (m[7] or "")[:6].ljust(6, "0")
    zone = "+00:00" if m[8] in "Zz" else m[8]
    base = f"{m[1]}-{m[2]}-{m[3]}T{m[4]}:{m[5]}:{m[6]}.{fraction}{zone}"
    try:
        return datetime.fromisoformat(base).astimezone(UTC)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"parsing time {text[:60]!r}: {e}") from e


def of_micros(time_us: int) -> str:
    """``Time`` of microseconds since 1970."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def plain(text: str) -> str:
    return parse(text).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro(text: str) -> str:
    return parse(text).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def micros(text: str) -> int:
    """Microseconds since 1970 of a time text; raises ValueError."""
    return round(parse(text).timestamp() * 1_000_000)
