"""Virtual time, chance and faults: what a run is made of."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas import event

MS = 1_000
S = 1_000_000
START_US = 1_790_000_000 * S  # any day will do, but always the same
STEPS_MAX = 3_000_000  # a run that takes more has a loop that goes nowhere


class SimulationError(AssertionError):
    """A checker found something; the message says what, and the seed is added by the runner."""


@dataclass(slots=True)
class Faults:
    """How often things go wrong, as probabilities; drawn anew for each run, some of them nought (swarm testing)."""

    lose: float = 0.0  # a live message
    double: float = 0.0  # a live message
    slow: float = 0.0  # a message takes seconds, so that others overtake it
    request_lost: float = 0.0  # a request to the hub never arrives
    answer_lost: float = 0.0  # it was done, but nobody hears of it
    store_full: float = 0.0  # a transaction fails
    engine_fails: float = 0.0  # an effect fails
    crash_edge: float = 0.0  # at each step of a daemon
    crash_cloud: float = 0.0  # at each step of a cloud process

    @staticmethod
    def drawn(rng: random.Random) -> Faults:
        def maybe(most: float) -> float:
            return rng.choice([0.0, most / 10, most])

        return Faults(
            lose=maybe(0.5),
            double=maybe(0.2),
            slow=maybe(0.1),
            request_lost=maybe(0.1),
            answer_lost=maybe(0.1),
            store_full=maybe(0.02),
            engine_fails=maybe(0.1),
            crash_edge=maybe(0.01),
            crash_cloud=maybe(0.005),
        )


@dataclass
class World:
    """``at`` schedules; ``run`` lets time pass.  ``digest`` is over everything that was noted: equal for equal seeds."""

    seed: int
    now_us: int = START_US
    rng: random.Random = field(init=False)
    faults: Faults = field(init=False)
    steps: int = 0
    _queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _scheduled: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.faults = Faults.drawn(self.rng)

    def at(self, delay_us: int, what: Callable[..., None], *args: Any) -> None:
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now_us + max(0, delay_us), self._scheduled, what, args))

    def run(self, for_us: int) -> None:
        end = self.now_us + for_us
        while self._queue and self._queue[0][0] <= end:
            self.now_us, _, what, args = heapq.heappop(self._queue)
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise SimulationError(f"more than {STEPS_MAX} steps: something goes round in circles")
            what(*args)
        self.now_us = end

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    def latency_us(self) -> int:
        if self.chance(self.faults.slow):
            return self.rng.randrange(1 * S, 20 * S)
        return self.rng.randrange(100, 50 * MS)

    def new_id(self) -> str:
        return event.uuid7(self.now_us, self.rng.randbytes(10))

    def note(self, who: str, what: str) -> None:
        """Something happened; the last of these are shown when a run fails."""
        line = f"{(self.now_us - START_US) / S:10.3f} {who}: {what}"
        self._digest.update(line.encode())
        self.told.append(line)
        if len(self.told) > 4000:
            del self.told[:2000]

    @property
    def digest(self) -> str:
        return str(self._digest.hexdigest())


class Process:
    """Something that can be killed at any step: what it had scheduled dies with it, what it had stored stays."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.up = False
        self._life = 0

    def start(self) -> None:
        self._life += 1
        self.up = True
        self.world.note(self.name, "starts")
        self.on_start()

    def kill(self) -> None:
        if self.up:
            self.up = False
            self._life += 1
            self.world.note(self.name, "is killed")
            self.on_kill()
            self.world.at(self.world.rng.randrange(100 * MS, 20 * S), self._restart, self._life)

    def _restart(self, life: int) -> None:
        if not self.up and life == self._life:
            self.start()

    def later(self, delay_us: int, what: Callable[..., None], *args: Any) -> None:
        """Unless the process dies before."""
        self.world.at(delay_us, self._if_alive, self._life, what, args)

    def _if_alive(self, life: int, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.up and life == self._life:
            what(*args)

    def step(self, crash: float) -> bool:
        """A moment at which the process may be killed; False when it was, and the caller must not go on."""
        if self.world.chance(crash):
            self.kill()
            return False
        return True

    def on_start(self) -> None:
        raise NotImplementedError

    def on_kill(self) -> None:
        pass
