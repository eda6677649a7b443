"""The wire between one client and the hub: messages are late, lost, doubled, held back; each direction fails by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bus import log
from ops.sim.hub import Hub
from ops.sim.schedule import MS, Schedule

T = TypeVar("T")
REQUEST_TIMEOUT_US = 5_000 * MS  # of bus/log.py
LATE_US_MAX = 30_000 * MS  # what a broken connection may still deliver; well inside the window of deduplication


class Link:
    def __init__(self, name: str) -> None:
        self.name = name
        self.to_hub = True
        self.from_hub = True
        self.loss = 0.0  # of live messages
        self.dup = 0.0  # of live messages
        self.late = 0.0  # share of messages that are very late
        self.ack_loss = 0.0  # share of requests that are done but not answered
        self.delay_us_max = 20 * MS
        self.held: list[Callable[[], None]] | None = None  # writes that the process made but the kernel did not send

    def heal(self) -> None:
        self.to_hub = self.from_hub = True
        self.loss = self.dup = self.late = self.ack_loss = 0.0
        self.delay_us_max = 20 * MS


class Wire:
    def __init__(self, schedule: Schedule, hub: Hub) -> None:
        self._schedule, self._hub = schedule, hub
        self._lots = schedule.lots("wire")
        self._session = 0  # of the hub: a restored hub knows nothing of what was under way
        hub.on_restore.append(self._restored)

    def _restored(self) -> None:
        self._session += 1

    def _delay(self, link: Link) -> int:
        if link.late and self._lots.random() < link.late:
            return self._lots.randrange(LATE_US_MAX)
        return self._lots.randrange(1, link.delay_us_max)

    def request(
        self,
        link: Link,
        serve: Callable[[], T],
        done: Callable[[T | log.LogError], None],
        timeout_us: int = REQUEST_TIMEOUT_US,
        *,
        write: bool = False,
    ) -> None:
        """``serve`` at the hub, ``done`` with its answer or with LogUnavailable; exactly one ``done``."""
        open_ = [True]
        session = self._session

        def finish(answer: T | log.LogError) -> None:
            if open_[0]:
                open_[0] = False
                timer.cancel()
                done(answer)

        def arrive() -> None:
            if link.held is not None and write:
                link.held.append(arrive)
                return
            if not link.to_hub or not self._hub.up or session != self._session:
                return
            try:
                answer: T | log.LogError = serve()
            except log.LogError as e:
                answer = e
            if self._lots.random() >= link.ack_loss:
                self._schedule.after(self._delay(link), lambda: reply(answer))

        def reply(answer: T | log.LogError) -> None:
            if link.from_hub:
                finish(answer)

        timer = self._schedule.after(timeout_us, lambda: finish(log.LogUnavailable(f"{link.name}: no answer")))
        self._schedule.after(self._delay(link), arrive)

    def publish(self, link: Link, deliver: Callable[[], None]) -> None:
        """Hub to client, at most once by promise; late, lost, doubled and out of order by nature."""
        session = self._session

        def arrive() -> None:
            if link.from_hub and session == self._session:
                deliver()

        for _ in range(1 + (self._lots.random() < link.dup)):
            if self._lots.random() >= link.loss:
                self._schedule.after(self._delay(link), arrive)

    def resume(self, link: Link) -> None:
        held, link.held = link.held, None
        for arrive in held or ():
            self._schedule.after(self._delay(link), arrive)
