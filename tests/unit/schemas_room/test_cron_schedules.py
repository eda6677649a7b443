"""When a schedule comes, by the rules of Kubernetes' own parser; and what is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas import cron


def us(text: str) -> int:
    return round(datetime.fromisoformat(text + "+00:00").timestamp()) * cron.US_PER_S


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "wanted"),
    [
        ("*/15 * * * *", "", "2026-11-23T14:44:30", "2026-11-23T14:45:00"),
        ("*/15 * * * *", "", "2026-11-23T14:45:00", "2026-11-23T15:00:00"),
        ("0 3 * * mon-fri", "", "2026-11-20T04:00:00", "2026-11-23T03:00:00"),
        ("5,50 22-23 * * *", "", "2026-11-23T22:50:00", "2026-11-23T23:05:00"),
        ("0 0 13 * 5", "", "2026-11-23T00:00:00", "2026-11-27T00:00:00"),  # the 13th or a Friday
        ("0 0 13 * *", "", "2026-11-23T00:00:00", "2026-12-13T00:00:00"),
        ("0 0 * * SUN", "", "2026-11-23T00:00:00", "2026-11-29T00:00:00"),
        ("0 0 29 2 *", "", "2026-11-23T00:00:00", "2028-02-29T00:00:00"),
        ("@monthly", "", "2026-11-23T00:00:00", "2026-12-01T00:00:00"),
        ("@every 1h30m", "", "2026-11-23T00:00:00", "2026-11-23T01:30:00"),
        ("0 9 * * *", "Asia/Tokyo", "2026-11-23T00:00:01", "2026-11-24T00:00:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", "2026-03-30T00:30:00"),  # 02:30 is left out on the 29th
    ],
)
def test_the_next_time(schedule: str, zone: str, after: str, wanted: str) -> None:
    found = cron.parse(schedule).after(us(after), zone)
    assert found is not None
    assert datetime.fromtimestamp(found / cron.US_PER_S, UTC) == datetime.fromisoformat(wanted + "+00:00")


def test_a_day_that_never_comes() -> None:
    assert cron.parse("0 0 30 2 *").after(us("2026-11-23T00:00:00")) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("* * * *", "expected exactly 5 fields, found 4"),
        ("60 * * * *", r"end of range \(60\) above maximum \(59\)"),
        ("* * 0 * *", "below minimum"),
        ("* * * * 7", "above maximum"),
        ("5-1 * * * *", "beyond end"),
        ("*/0 * * * *", "positive"),
        ("1-2-3 * * * *", "hyphens"),
        ("1/2/3 * * * *", "slashes"),
        ("a * * * *", "parse int"),
        ("@sometimes", "descriptor"),
        ("@every soon", "duration"),
        ("TZ=UTC * * * * *", "timeZone"),
        ("*" * 501, "at most"),
    ],
)
def test_what_is_no_schedule(text: str, why: str) -> None:
    with pytest.raises(cron.BadSchedule, match=why):
        cron.parse(text)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "/etc/localtime"])
def test_what_is_no_time_zone(name: str) -> None:
    with pytest.raises(cron.BadSchedule, match="unknown time zone"):
        cron.check_zone(name)
