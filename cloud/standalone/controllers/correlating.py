"""How many Events one object may cause, whatever happens to it: what is alike is counted in one, and beyond a budget nothing
more is told.  A replica set of a thousand pods tells of the first nine, and then of the rest together, now and then.

Memory only: after a restart an object has a new budget.  Bounded by the number of objects that were told of last.
Source: client-go's EventCorrelator (tools/record/events_cache.go), its numbers too.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from cloud.standalone.controllers import base
from cloud.standalone.controllers.telling import Said
from schemas import times

OBJECTS_MAX = 4096  # who was told of longest ago is forgotten
ALIKE_MAX = 10  # messages of one reason that are kept apart
ALIKE_US = 600 * times.US_PER_S  # after so long without one they are counted anew
BURST = 25  # Events of one object at once
REFILL_US = 300 * times.US_PER_S  # one more after so long
COMBINED = "(combined from similar events): "


@dataclass(slots=True)
class _Alike:
    messages: dict[str, None] = field(default_factory=dict)  # the oldest first
    last_us: int = 0


@dataclass(slots=True)
class _Budget:
    left_us: int  # in time of refilling: REFILL_US is one Event
    last_us: int


class Correlator:
    def __init__(self) -> None:
        self._alike: OrderedDict[tuple[str, ...], _Alike] = OrderedDict()
        self._budgets: OrderedDict[tuple[str, ...], _Budget] = OrderedDict()

    def take(self, said: Said, now_us: int) -> tuple[Said, str] | None:
        """What to tell, and the series in which it counts; None: nothing, its budget is spent."""
        who = (base.uid(said.about.object) or str(said.about.key), said.component, said.type)
        told, series = self._combined(said, (*who, said.reason), now_us)
        return (told, series) if self._affordable(who, now_us) else None

    def _combined(self, said: Said, key: tuple[str, ...], now_us: int) -> tuple[Said, str]:
        alike = self._alike.setdefault(key, _Alike())
        if now_us - alike.last_us > ALIKE_US:
            alike.messages.clear()
        alike.messages[said.message] = None
        alike.last_us = now_us
        _bound(self._alike, key)
        if len(alike.messages) < ALIKE_MAX:
            return said, said.message
        del alike.messages[next(iter(alike.messages))]
        return replace(said, message=COMBINED + said.message), COMBINED

    def _affordable(self, key: tuple[str, ...], now_us: int) -> bool:
        budget = self._budgets.setdefault(key, _Budget(BURST * REFILL_US, now_us))
        passed = max(0, now_us - budget.last_us)  # a clock that was set back refills nothing
        budget.left_us, budget.last_us = min(BURST * REFILL_US, budget.left_us + passed), now_us
        _bound(self._budgets, key)
        if budget.left_us < REFILL_US:
            return False
        budget.left_us -= REFILL_US
        return True


def _bound(
    known: OrderedDict[tuple[str, ...], _Alike] | OrderedDict[tuple[str, ...], _Budget], key: tuple[str, ...]
) -> None:
    known.move_to_end(key)
    if len(known) > OBJECTS_MAX:
        known.popitem(last=False)
