"""Leadership in the simulation: the real lease, what cloud/leases.py does around it, in virtual time.

Looks and renewals are some times rarer than in production, so that hours of leading don't fill the run with them."""

from __future__ import annotations

from collections.abc import Callable

from bus import log
from cloud.core import leases as core
from ops.sim.schedule import S
from ops.sim.worker import Life, Worker
from schemas import codec, leases, subjects

TTL_US, RENEW_US, LOOK_US = 24 * S, 6 * S, 4 * S
ANSWER_US = TTL_US // 4  # as cloud/leases.py: later is not worth waiting for
MakeLease = Callable[[str], core.Lease]


# (worker, role, begin, end, patience): a campaign, which is still to be started
Lead = Callable[[Worker, str, Callable[[], None], Callable[[], None], Callable[[], int]], "Campaign"]


def make_lease(me: str) -> core.Lease:
    return core.Lease(me, ttl_us=TTL_US, renew_us=RENEW_US, look_us=LOOK_US)


class Campaign:
    """For as long as the process lives.  ``changed(role, lease)`` is told of every answer, for the checker."""

    def __init__(
        self,
        worker: Worker,
        role: str,
        begin: Callable[[], None],
        end: Callable[[], None],
        patience_us: Callable[[], int],
        *,
        make: MakeLease = make_lease,
        changed: Callable[[str, Campaign], None] = lambda *_: None,
    ) -> None:
        self.worker, self._role, self._begin, self._end = worker, role, begin, end
        self._me = worker.schedule.new_id()
        self._core, self._patience_us, self._changed = make(self._me), patience_us, changed
        self._subject = subjects.lease(role)
        self._life: Life = worker.life
        self._due_us: int | None = None  # of the tick that is planned

    @property
    def leads(self) -> bool:
        return not self._life.over and self._core.leads(self.worker.schedule.mono_us)

    def start(self, after_us: int = 1) -> None:
        self._life.later(after_us, self._tick)

    def _tick(self) -> None:
        self._tell(core.Tick(self.worker.schedule.mono_us))

    def _tell(self, stimulus: core.Stimulus) -> None:
        for i in self._core.handle(stimulus):
            match i:
                case core.Look():
                    self._look()
                case core.Write(expect):
                    self._write(expect)
                case core.Begin(seq):
                    self.worker.schedule.note(f"{self.worker.name} leads {self._role} by #{seq}")
                    self._begin()
                case core.End(reason):
                    self.worker.schedule.note(f"{self.worker.name} leads {self._role} no more: {reason}")
                    self._end()
        self._changed(self._role, self)
        due = self._core.next_us
        if due is not None and due != self._due_us:
            self._due_us = due
            self._life.later(
                max(1, due - self.worker.schedule.mono_us), lambda: self._tick() if self._due_us == due else None
            )

    def _look(self) -> None:
        def done(answer: log.Recorded | log.LogError | None) -> None:
            now = self.worker.schedule.mono_us
            if isinstance(answer, log.LogError):
                self._tell(core.Failed(now))
                return
            holder = codec.decode_as(leases.LeaseRecord, answer.payload).holder if answer is not None else ""
            self._tell(core.Seen(now, answer.seq if answer is not None else 0, holder, self._patience_us()))

        self._life.ask(lambda: self.worker.hub.last_of(self._subject), done, timeout_us=ANSWER_US)

    def _write(self, expect: int) -> None:
        payload = codec.encode(leases.LeaseRecord(holder=self._me, about=self.worker.name))
        ident = self.worker.schedule.new_id()

        def done(answer: int | log.LogError) -> None:
            now = self.worker.schedule.mono_us
            match answer:
                case log.WrongSequence():
                    self._tell(core.Refused(now))
                case log.LogError():
                    self._tell(core.Failed(now))
                case seq:
                    self._tell(core.Written(now, seq))

        self._life.ask(
            lambda: self.worker.hub.append(self._subject, payload, ident, log.Expect(expect)),
            done,
            write=True,
            timeout_us=ANSWER_US,
        )
