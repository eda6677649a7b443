"""The twins' rim in the simulation, which is the daemon's own, and a mapper with its devices, which is a model.

A device is a value that survives everything but being deleted; the mapper writes what is desired and says what it sees.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Protocol, cast

from bus.connect import Connection
from edge import state
from edge.core import twins
from edge.twins import STATE_PREFIX, TwinsRim
from ops.sim.disk import Disk
from ops.sim.saying import SimNodeState
from ops.sim.schedule import MS, Clock, S, Schedule, Timer
from schemas import codec, devices, subjects
from schemas.reports import TwinValue

PROTOCOL = "virtual"
LOOK_US = (5 * S, 12 * S)  # between two looks of a mapper at its devices: below STALE_MS
RETRY_S = 1.0


class Host(Protocol):
    schedule: Schedule
    lots: Random
    disk: Disk
    clock: Clock
    state: SimNodeState

    def step(self) -> None: ...

    def mine(self, run: Any) -> Any: ...

    def devices_changed(self) -> None: ...


class SimTwins(TwinsRim):
    """The daemon's rim without its bus: mappers call it, the schedule is its clock."""

    def __init__(self, host: Host, node: str) -> None:
        self._host = host
        self._timer: Timer | None = None
        schedule, clock = host.schedule, host.clock
        records = dict(host.state.items(STATE_PREFIX))
        super().__init__(
            node,
            cast(Connection, None),  # nothing is sent: notices are told to the host
            records,
            self._keep,
            wall_us=lambda: clock.now_us,
            mono_us=lambda: schedule.mono_us,
        )

    def _keep(self, state_puts: Mapping[bytes, bytes | None], reports: Sequence[twins.Report]) -> None:
        """As the daemon's ``_commit_twins``."""
        told = [state.Report("twin", r.namespace, r.name, r.report, r.cause, r.trace) for r in reports]
        self._host.state.commit_now(state_puts, told)

    def _handle_safely(self, stimulus: twins.Stimulus, about: str) -> None:
        self._handle(stimulus)  # a bug is what a simulation looks for

    def _handle(self, stimulus: twins.Stimulus) -> devices.TwinUpdateAnswer | None:
        self._host.step()
        answer = super()._handle(stimulus)
        if self._notices:
            self._notices.clear()
            self._host.devices_changed()
        if self._tick_at is not None:
            if self._timer is not None:
                self._timer.cancel()
            wait_us, self._tick_at = self._tick_at - self._host.schedule.mono_us, None
            self._timer = self._host.schedule.after(max(1, wait_us), self._host.mine(self._tick))
        return answer

    def _tick(self) -> None:
        self._handle(twins.Tick(self._wall_us(), self._mono_us()))

    def ask(self, subject: str, payload: bytes) -> bytes | None:
        """A mapper's request on the node's own bus."""
        call = self._on_list if subject == subjects.LOCAL_DEVICES else self._on_twin
        answer: bytes | None = now(call(subject, payload))
        return answer


def now(coro: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never really waits."""
    try:
        coro.send(None)
    except StopIteration as done:
        return done.value
    coro.close()
    raise AssertionError("this coroutine waits for something")


class Mapper:
    """Goes on while the daemon is dead; its own death costs it its count and nothing else."""

    def __init__(self, schedule: Schedule, lots: Random, clock: Clock) -> None:
        self._schedule, self._lots, self._clock = schedule, lots, clock
        self.daemon: SimTwins | None = None
        self.values: dict[str, str] = {}  # uid of a device -> what it is set to
        self._runs = 0
        self.start()

    def start(self) -> None:
        """Or again, after kill -9."""
        self._runs += 1
        self._seq = 0
        self._look(self._runs)

    def changed(self) -> None:
        run = self._runs
        self._schedule.after(self._lots.randrange(1, 50 * MS), lambda: self._once(run))

    def _look(self, run: int) -> None:
        if run == self._runs:
            self._schedule.after(self._lots.randrange(*LOOK_US), lambda: self._look(run))
            self._once(run)

    def _once(self, run: int) -> None:
        if self.daemon is None or run != self._runs:
            return
        asked = devices.DeviceListRequest(protocol=PROTOCOL, mapper="m")
        answer = self.daemon.ask(subjects.LOCAL_DEVICES, codec.encode(asked))
        if answer is None:
            return
        for config in codec.decode_as(devices.DeviceList, answer).devices:
            self._say(run, config)

    def _say(self, run: int, config: devices.DeviceConfig) -> None:
        values: list[TwinValue] = []
        for p in config.properties:
            if p.desired is not None:
                self.values[config.uid] = p.desired
            value = self.values.setdefault(config.uid, "0")
            values.append(TwinValue(property=p.name, value=value, desired=p.desired, time=self._clock.now_us))
        self._seq += 1
        update = devices.TwinUpdate(
            namespace=config.namespace,
            device=config.name,
            uid=config.uid,
            boot=f"m{run}",
            seq=self._seq,
            state="online",
            values=values,
        )
        if self.daemon is None:
            return
        answer = self.daemon.ask(subjects.LOCAL_TWIN_REPORT, codec.encode(update))
        assert answer is not None, "every update is answered"
        told = codec.decode_as(devices.TwinUpdateAnswer, answer)
        if not told.ok and told.known:
            self._schedule.after(int(RETRY_S * S), lambda: self._once(run) if run == self._runs else None)
