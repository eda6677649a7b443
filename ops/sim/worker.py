"""A cloud process in the simulation: it follows streams, asks, is paused, crashes at any step, and wakes up again.

What it does belongs to a ``Life``: that of the process, or a shorter one, of work that is led for a while and ended."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bus import log
from ops.sim.coroutines import Resume, Tasks, Wait
from ops.sim.hub import Hub
from ops.sim.schedule import MS, Clock, Crash, S, Schedule
from ops.sim.wire import REQUEST_TIMEOUT_US, Link, Wire

T = TypeVar("T")
Take = Callable[[log.Recorded, bool], None]  # a record, and whether more are known to wait
FOLLOW_BATCH = 64
RETRY_US = 1 * S
RESTART_US_MAX = 20 * S  # systemd's, or somebody's, after a crash
EPOCH_LATE_US_MAX = 15 * S  # a follower finds out by missed heartbeats (bus/log.py: 2.5 of 5 s)


class Worker:
    """``begin`` starts a session; every callback of an earlier one is dropped, every callback while paused waits."""

    def __init__(self, name: str, schedule: Schedule, hub: Hub, wire: Wire) -> None:
        self.name, self.schedule, self.hub, self.wire = name, schedule, hub, wire
        self.link = Link(name)
        self.lots = schedule.lots(name)
        self.clock = Clock(schedule)
        self.running = False
        self.crash_in: int | None = None  # steps until the process ends
        self.epoch = ""
        self.lags_until_us = 0  # reads CLUSTER late: a slow consumer
        self._session = 0
        self._held: list[Callable[[], None]] | None = None
        self._lives: list[Life] = []
        self.life = self.new_life()
        hub.on_restore.append(self._restored)

    # --- life

    def start(self) -> None:
        self._end_lives()
        self.life = self.new_life()
        self.running = True
        self.epoch = self.hub.epoch
        self.schedule.note(f"{self.name} starts")
        self.begin()

    def begin(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """kill -9: what is on the way to the hub still arrives, what the process held back does not."""
        self._end_lives()
        self.running = False
        self._held = self.link.held = self.crash_in = None
        self.schedule.note(f"{self.name} ends")

    def new_life(self) -> Life:
        """Of work that may end before the process does."""
        life = Life(self, self._session)
        self._lives = [x for x in self._lives if not x.over] + [life]
        return life

    def _end_lives(self) -> None:
        self._session += 1
        lives, self._lives = self._lives, []
        for life in lives:
            life.end()

    def step(self) -> None:
        """A boundary between two instructions: the process may end here."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                raise Crash(self._crashed)

    def _crashed(self) -> None:
        self.stop()
        self.schedule.after(self.lots.randrange(10 * MS, RESTART_US_MAX), lambda: None if self.running else self.start())

    def pause(self, *, hold_out: bool) -> None:
        """SIGSTOP.  ``hold_out``: what it wrote last isn't sent before it wakes up."""
        self.schedule.note(f"{self.name} pauses")
        self._held = []
        if hold_out:
            self.link.held = []

    def resume(self) -> None:
        self.schedule.note(f"{self.name} wakes up")
        held, self._held = self._held, None
        self.wire.resume(self.link)
        for run in held or ():
            self.schedule.after(1, run)

    @property
    def paused(self) -> bool:
        return self._held is not None

    def _restored(self) -> None:
        def notice() -> None:
            if self.running and self.epoch != self.hub.epoch:
                self.another_epoch()

        self.schedule.after(self.lots.randrange(EPOCH_LATE_US_MAX), self.mine(notice))

    def another_epoch(self) -> None:
        """The follower finds another log: most workers begin anew, as after a restart."""
        self.start()

    def mine(self, run: Callable[[], None]) -> Callable[[], None]:
        return self.life.mine(run)

    def later(self, delay_us: int, run: Callable[[], None]) -> None:
        self.life.later(delay_us, run)

    def sleep(self, us: int) -> Wait:
        return self.life.sleep(us)

    def request(self, serve: Callable[[], object], *, write: bool = False) -> Wait:
        return self.life.request(serve, write=write)

    def spawn(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] = lambda _: None) -> None:
        self.life.spawn(coro, done)

    def follow(self, stream: str, take: Take, loaded: Callable[[], None]) -> None:
        self.life.follow(stream, take, loaded)

    # --- for its lives

    def wakes(self, session: int, run: Callable[[], None]) -> bool:
        """Whether ``run`` of that session may go on now; when the process is paused it is called once it wakes up."""
        if session != self._session:
            return False
        if self._held is not None:
            self._held.append(run)
            return False
        return True


class Life:
    """``end`` is the end of its tasks and callbacks; what is on the way to the hub still arrives."""

    def __init__(self, worker: Worker, session: int) -> None:
        self._w, self._session = worker, session
        self._tasks = Tasks()
        self.over = False

    def end(self) -> None:
        self.over = True
        self._tasks.end()

    def mine(self, run: Callable[[], None]) -> Callable[[], None]:
        """``run`` in this life only, and not while the process is paused."""

        def guarded() -> None:
            if not self.over and self._w.wakes(self._session, guarded):
                self._w.step()
                run()

        return guarded

    def later(self, delay_us: int, run: Callable[[], None]) -> None:
        self._w.schedule.after(delay_us, self.mine(run))

    def ask(
        self,
        serve: Callable[[], T],
        done: Callable[[T | log.LogError], None],
        *,
        write: bool = False,
        timeout_us: int = REQUEST_TIMEOUT_US,
    ) -> None:
        def answered(answer: T | log.LogError) -> None:
            self.mine(lambda: done(answer))()

        self._w.wire.request(self._w.link, serve, answered, timeout_us, write=write)

    def wait(self, start: Callable[[Resume], None]) -> Wait:
        """For coroutines of this life: resumed when the process is not paused, never when it is over."""

        def begin(resume: Resume) -> None:
            start(lambda answer: self.mine(lambda: resume(answer))())

        return Wait(begin)

    def sleep(self, us: int) -> Wait:
        def begin(resume: Resume) -> None:
            self._w.schedule.after(us, lambda: resume(None))

        return self.wait(begin)

    def request(self, serve: Callable[[], object], *, write: bool = False) -> Wait:
        """The hub's answer; raises what it raises, or LogUnavailable."""
        self._w.step()
        return self.wait(lambda resume: self._w.wire.request(self._w.link, serve, resume, write=write))

    def spawn(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] = lambda _: None) -> None:
        self._tasks.spawn(coro, done)

    def insist(self, serve: Callable[[], T], done: Callable[[T], None]) -> None:
        """Ask until there is an answer: how followers behave."""

        def answered(answer: T | log.LogError) -> None:
            if isinstance(answer, log.LogError):
                self.later(RETRY_US, lambda: self.insist(serve, done))
            else:
                done(answer)

        self.ask(serve, answered)

    def follow(self, stream: str, take: Take, loaded: Callable[[], None]) -> None:
        """The last record of every subject, ``loaded``, then everything; as ``Log.follow(last_per_subject=True)``."""
        Follower(self._w, self, stream, take, loaded).start()


class Follower:
    def __init__(self, worker: Worker, life: Life, stream: str, take: Take, loaded: Callable[[], None]) -> None:
        self._w, self._life, self._stream, self._take, self._loaded = worker, life, stream, take, loaded
        self._epoch = worker.epoch
        self._at = 0

    def start(self) -> None:
        hub, name = self._w.hub, self._stream
        self._life.insist(lambda: (hub.epoch, hub.lasts(name), hub.streams[name].last_seq), self._begin)

    def _over(self, epoch: str) -> bool:
        """The log is another one: the worker is about to notice, or has."""
        return epoch != self._epoch or self._epoch != self._w.epoch

    def _begin(self, answer: tuple[str, list[log.Recorded], int]) -> None:
        epoch, records, up_to = answer
        if self._over(epoch):
            return
        for r in records:
            self._take(r, True)
        self._at = up_to
        self._loaded()
        self._pull()

    def _pull(self) -> None:
        behind_us = self._w.lags_until_us - self._w.schedule.now_us
        if behind_us > 0 and self._stream == "CLUSTER":
            self._life.later(behind_us, self._pull)
            return
        at, hub, name = self._at, self._w.hub, self._stream
        self._life.insist(lambda: (hub.epoch, *hub.read(name, at, FOLLOW_BATCH), hub.streams[name].last_seq), self._got)

    def _got(self, answer: tuple[str, list[log.Recorded], int, int]) -> None:
        epoch, records, up_to, last = answer
        if self._over(epoch):
            return
        for n, r in enumerate(records):
            self._take(r, n + 1 < len(records) or up_to < last)
        self._at = up_to
        if up_to < last:
            self._pull()
        else:
            self._wait()

    def _wait(self) -> None:
        """The server pushes when there is something; here it says so once, and is asked."""
        w = self._w
        if self._over(w.hub.epoch):
            return
        poke = self._life.mine(self._pull)
        if w.hub.streams[self._stream].last_seq > self._at:
            self._life.later(1, self._pull)
        else:
            w.hub.waiting[self._stream].append(lambda: w.schedule.after(w.lots.randrange(1, 30 * MS), poke))
