"""An API server in the simulation: the real rules over the real storage, whose log, time and chance are the model's.

Several serve at once, each with its own cache that may be behind: what keeps them from overwriting each other is the
expectation in every write.  Users call whichever they like, and don't hear from one that dies.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from bus import log
from bus.kube import registry as registries
from bus.kube.errors import StatusError
from bus.kube.storage import Origin
from cloud.standalone import storage
from ops.sim.hub import Hub
from ops.sim.schedule import MS, S, Schedule
from ops.sim.wire import Wire
from ops.sim.worker import Worker
from schemas import event

USER = registries.Write(Origin("user"), manager="user")
LOOK_US = 10 * MS
Told = Callable[[Worker, int, Any], None]  # (server, revision, object) of a write that was acknowledged


class WorkersLog(log.Log):
    """The calls of the log that a storage makes."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def append_bytes(
        self, subject: str, payload: bytes, msg_id: str, *, expect: log.Expect | None = None, epoch: str = ""
    ) -> int:
        hub = self._worker.hub
        seq: int = await self._worker.request(lambda: hub.append(subject, payload, msg_id, expect), write=True)
        return seq

    async def last_of(self, stream: str, subject: str) -> log.Recorded | None:
        hub = self._worker.hub
        last: log.Recorded | None = await self._worker.request(lambda: hub.last_of(subject))
        return last


class WorkersStorage(storage.ClusterStorage):
    """``take`` and ``begin`` are called by the worker, which follows CLUSTER for it."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(WorkersLog(worker))
        self._worker = worker
        self._last = 0

    def take(self, r: log.Recorded) -> None:
        self._take(r)
        self._last = r.seq

    def begin(self) -> None:
        self._begin(self._last)

    def forget(self) -> None:
        self._forget()

    @property
    def current(self) -> bool:
        """False while another log is read: who changes nothing is answered from the old state then."""
        return self._loaded.is_set()

    def _stamp(self) -> tuple[int, str]:
        now_us = self._worker.clock.now_us
        return now_us, event.uuid7(now_us, self._worker.lots.randbytes(10))

    async def _pause(self, s: float) -> None:
        await self._worker.sleep(int(s * S))

    async def _folded(self, seq: int) -> None:
        until_us = self._worker.schedule.now_us + int(storage.FOLD_TIMEOUT_S * S)
        while self.cache.revision() < seq:
            if self._worker.schedule.now_us > until_us:
                raise TimeoutError
            await self._worker.sleep(LOOK_US)


class ApiWorker(Worker):
    """A process with the API's rules in it."""

    def __init__(
        self, name: str, schedule: Schedule, hub: Hub, wire: Wire, make_storage: type[WorkersStorage] = WorkersStorage
    ) -> None:
        super().__init__(name, schedule, hub, wire)
        self._make_storage = make_storage
        self.made()

    def made(self) -> None:
        self.storage = self._make_storage(self)
        self.registry = registries.Registry(
            self.storage, clock=lambda: self.clock.now_us, random=lambda n: self.lots.randbytes(n)
        )


class ApiServer(ApiWorker):
    def __init__(
        self,
        name: str,
        schedule: Schedule,
        hub: Hub,
        wire: Wire,
        acknowledged: Told,
        storage: type[WorkersStorage] = WorkersStorage,
    ) -> None:
        super().__init__(name, schedule, hub, wire, storage)
        self._acknowledged = acknowledged

    def begin(self) -> None:
        self.made()
        self.follow("CLUSTER", lambda r, _: self.storage.take(r), self._loaded)

    def another_epoch(self) -> None:
        """The process goes on, with whatever it is doing."""
        self.epoch = self.hub.epoch
        self.storage.forget()
        self.follow("CLUSTER", lambda r, _: self.storage.take(r), self._loaded)

    def _loaded(self) -> None:
        self.storage.begin()

    def serve(self, act: Callable[[ApiServer], Coroutine[Any, Any, None]], refused: Callable[[str], None]) -> None:
        """What one user does with this server; ends with it."""
        if not self.running:
            refused("no server")
            return

        def done(answer: Any) -> None:
            if isinstance(answer, StatusError):
                refused(f"{answer.code} {answer.reason}")
            elif isinstance(answer, Exception):
                raise answer

        self.later(self.lots.randrange(1, 20 * MS), lambda: self.spawn(act(self), done))

    async def answered(self, call: Coroutine[Any, Any, Any]) -> Any:
        """One request that writes; the answer is on its way to the user, who hears it or doesn't."""
        epoch = self.epoch
        obj = await call
        told = getattr(obj, "object", obj)
        if epoch == self.epoch and self.storage.current and "resourceVersion" in told.get("metadata", {}):
            self._acknowledged(self, int(told["metadata"]["resourceVersion"]), told)
        return told
