"""Microseconds to the RFC 3339 text that Kubernetes writes, without a clock.

The core may not import ``datetime`` (its ``now`` is one call away), and this is all it needs of it.
"""

from __future__ import annotations

US_PER_S = 1_000_000
_DAYS_TO_ERA = 719_468  # days from 0000-03-01 to 1970-01-01
_DAYS_PER_ERA = 146_097  # 400 years of the Gregorian calendar


def rfc3339(us: int) -> str:
    """Wall microseconds since 1970 (UTC) as ``2026-11-23T08:09:10Z``: whole seconds, as metav1.Time is written."""
    days, second = divmod(us // US_PER_S, 86_400)
    era, day_of_era = divmod(days + _DAYS_TO_ERA, _DAYS_PER_ERA)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153  # March is 0: the leap day is the last of a shifted year
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    year = year_of_era + era * 400 + (month <= 2)
    return f"{year:04d}-{month:02d}-{day:02d}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
