"""Cron schedules: five fields or a word like ``@daily``, and the next time that one names.

Both the API (what is valid) and the controller (when) ask here.  Source: Kubernetes API reference, CronJobSpec; crontab(5);
where they differ the parser that Kubernetes uses decides: Sunday is 0 only, and a step over everything counts as restricted.
Time zones come from the system's database (IANA); a wall-clock time that a change of clocks leaves out is left out.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

US_PER_S = 1_000_000
YEARS_MAX = 5  # a schedule like 30 February never comes: no longer search
CHARS_MAX = 500

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {m: i for i, m in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 6, {d: i for i, d in enumerate(_DAYS)}),
)
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"h": 3600, "m": 60, "s": 1}


class BadSchedule(ValueError):
    """Not a schedule, or not a time zone."""


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()  # 0 is Sunday
    any_day: bool = True  # one of the two day fields is free: then both must hold, else either
    every_s: int = 0  # ``@every``: this alone

    def after(self, us: int, zone: str = "") -> int | None:
        """The first time after ``us`` (microseconds since 1970); None when there is none in years."""
        if self.every_s:
            return (us // US_PER_S + self.every_s) * US_PER_S
        tz = _zone(zone)
        start = datetime.fromtimestamp(us // US_PER_S, UTC).astimezone(tz)
        for day in self._days(start.date()):
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=tz)
                    utc = local.astimezone(UTC)
                    found = round(utc.timestamp()) * US_PER_S
                    if found > us and utc.astimezone(tz).replace(tzinfo=None) == local.replace(tzinfo=None):
                        return found
        return None

    def _days(self, first: date) -> Iterator[date]:
        day = first
        while day.year <= first.year + YEARS_MAX:
            if day.month in self.months and self._fits(day):
                yield day
            day += timedelta(days=1)

    def _fits(self, day: date) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (of_month and of_week) if self.any_day else (of_month or of_week)


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Raises BadSchedule."""
    if len(text) > CHARS_MAX:
        raise BadSchedule(f"a schedule has at most {CHARS_MAX} characters")
    if text.startswith(("TZ=", "CRON_TZ=")):
        raise BadSchedule("cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
    if text.startswith("@every "):
        return Schedule(every_s=_duration(text.removeprefix("@every ")))
    if text.startswith("@"):
        if text not in _WORDS:
            raise BadSchedule(f"unrecognized descriptor: {text}")
        text = _WORDS[text]
    words = text.split()
    if not words:
        raise BadSchedule("empty spec string")
    if len(words) != len(_FIELDS):
        raise BadSchedule(f"expected exactly 5 fields, found {len(words)}: [{' '.join(words)}]")
    sets: list[frozenset[int]] = []
    stars: list[bool] = []
    for word, (_, low, high, names) in zip(words, _FIELDS, strict=True):
        parts = [_range(p, low, high, names) for p in word.split(",")]
        sets.append(frozenset(n for found, _ in parts for n in found))
        stars.append(any(star for _, star in parts))
    minutes, hours, days, months, weekdays = sets
    return Schedule(minutes, hours, days, months, weekdays, any_day=stars[2] or stars[4])


def check_zone(name: str) -> None:
    """Raises BadSchedule for a time zone that nobody knows."""
    if not name:
        raise BadSchedule("timeZone must be nil or non-empty string")
    if name.lower() == "local":
        raise BadSchedule("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    _zone(name)


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name or "UTC")
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as e:
        raise BadSchedule(f"unknown time zone {name}") from e


def _range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[range, bool]:
    """``*``, ``7``, ``1-5``, ``*/10``, ``2/3``, ``mon-fri``: the numbers, and whether it is simply all."""
    spans, *steps = text.split("/")
    if len(steps) > 1:
        raise BadSchedule(f"too many slashes: {text}")
    step = _number(steps[0], {}) if steps else 1
    if step < 1:
        raise BadSchedule(f"step of range should be a positive number: {text}")
    first, *last = spans.split("-")
    if len(last) > 1:
        raise BadSchedule(f"too many hyphens: {text}")
    if first in ("*", "?") and not last:
        return range(low, high + 1, step), step == 1
    start = _number(first, names)
    end = _number(last[0], names) if last else high if steps else start
    if start < low:
        raise BadSchedule(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise BadSchedule(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise BadSchedule(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    return range(start, end + 1, step), False


def _number(text: str, names: dict[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadSchedule(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _duration(text: str) -> int:
    if not re.fullmatch(r"([0-9]{1,9}[hms])+", text):
        raise BadSchedule(f"failed to parse duration @every {text}")
    return max(1, sum(int(n) * _UNITS[u] for n, u in re.findall(r"([0-9]+)([hms])", text)))
