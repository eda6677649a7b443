"""Virtual time: what happens next, who may draw lots, and the trace that tells two runs apart."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable

from schemas import event

START_US = 1_790_000_000_000_000  # wall time at the start of every run, us since 1970: any fixed time will do
MS = 1_000
S = 1_000_000
TAIL_LINES = 80  # of the trace, shown with a failure


class Crash(BaseException):
    """A process ends here, in the middle of whatever it does.  Caught by the schedule, never by code under test."""

    def __init__(self, after: Callable[[], None]) -> None:
        super().__init__("crash")
        self.after = after


class Timer:
    __slots__ = ("cancelled", "run")

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Schedule:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_us = START_US
        self.events = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._heap: list[tuple[int, int, Timer]] = []
        self._count = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._ids = self.lots("ids")
        self.after_event: Callable[[], None] = lambda: None

    def lots(self, concern: str) -> random.Random:
        """A generator for one concern, so that drawing more for one leaves the others as they were."""
        return random.Random(f"{self.seed}/{concern}")

    @property
    def mono_us(self) -> int:
        return self.now_us - START_US + S

    def new_id(self) -> str:
        return event.uuid7(self.now_us, self._ids.randbytes(10))

    def after(self, delay_us: int, run: Callable[[], None]) -> Timer:
        """``run`` at that time; things of one instant happen in the order in which they were asked for."""
        timer = Timer(run)
        self._count += 1
        heapq.heappush(self._heap, (self.now_us + max(0, delay_us), self._count, timer))
        return timer

    def note(self, text: str) -> None:
        line = f"{(self.now_us - START_US) / S:.6f} {text}"
        self._hash.update(line.encode() + b"\n")
        self.tail.append(line)

    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    def run_for(self, us: int) -> None:
        until = self.now_us + us
        while self._heap and self._heap[0][0] <= until:
            at, _, timer = heapq.heappop(self._heap)
            if timer.cancelled:
                continue
            self.now_us = at
            self.do(timer.run)
        self.now_us = until

    def do(self, run: Callable[[], None]) -> None:
        """One event: it may end in a crash of the process that it happens in."""
        self.events += 1
        try:
            run()
        except Crash as crash:
            crash.after()
        self.after_event()


class Clock:
    """The wall clock of one machine, which may be hours off; no machine's monotonic time is."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.off_us = 0

    @property
    def now_us(self) -> int:
        return self._schedule.now_us + self.off_us
