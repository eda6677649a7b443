"""What was last seen and last told of one property, and so what is worth telling now.  Pure: times come in."""

from __future__ import annotations

from dataclasses import dataclass

from mappers.plan import Point
from mappers.values import Measured, moved
from schemas.reports import TwinValue


@dataclass(slots=True)
class Tracked:
    """``now`` is seconds of a monotonic clock, ``time_us`` wall time."""

    point: Point
    last: Measured | None = None
    last_us: int = 0
    _told: Measured | None = None
    _told_with: tuple[str | None, str] = (None, "")
    _told_at: float = 0.0
    _sampled: Measured | None = None
    _sampled_at: float = 0.0

    def sample_due(self, measured: Measured, now: float) -> bool:
        """Every reading is a sample; with a deadband only those that moved, and one every reportCycle."""
        if (
            self.point.deadband
            and not moved(self._sampled, measured, self.point.deadband)
            and not self._cycle(self._sampled_at, now)
        ):
            return False
        self._sampled, self._sampled_at = measured, now
        return True

    def seen(self, measured: Measured, time_us: int) -> None:
        """What the property is now, by a poll or by reading back a write."""
        self.last, self.last_us = measured, time_us

    def twin_due(self, now: float, written: str | None, failure: str) -> TwinValue | None:
        """What was last seen, on change and every reportCycle."""
        assert self.last is not None
        unchanged = not moved(self._told, self.last, self.point.deadband) and self._told_with == (written, failure)
        if unchanged and not self._cycle(self._told_at, now):
            return None
        return self.twin(now, written, failure)

    def twin(self, now: float, written: str | None, failure: str) -> TwinValue:
        """``failure`` is why a desired value could not be written; it stands beside a reading that may well be good."""
        measured = self.last or Measured(None, "uncertain", "not read yet")
        self._told, self._told_at, self._told_with = measured, now, (written, failure)
        return TwinValue(
            property=self.point.property.name,
            value=measured.value,
            desired=written,
            time=self.last_us,
            quality=measured.quality,
            reason="; ".join(part for part in (measured.reason, failure) if part),
        )

    def lost(self, written: str | None) -> list[TwinValue]:
        """The last usable value once the device is lost (OPC UA: uncertain, no communication); nothing if there is none."""
        if self.last is None or self.last.value is None:
            return []
        self._told = Measured(self.last.value, "uncertain", "the last value before the device was lost")
        return [
            TwinValue(
                property=self.point.property.name,
                value=self._told.value,
                desired=written,
                time=self.last_us,
                quality="uncertain",
                reason=self._told.reason,
            )
        ]

    def _cycle(self, since: float, now: float) -> bool:
        return now - since >= self.point.property.report_cycle_ms / 1000
