"""The replica's rim in the simulation: what bus/replica.py does with queue, requests and store, done in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from bus import fold, log, replica, replica_core, replica_write
from bus.stores import base
from cloud import behind
from ops.sim.schedule import MS, S, Schedule, Timer
from schemas import codec, sync

ANSWER_TIMEOUT_US = int(replica.ANSWER_TIMEOUT_S * S)
Writer = Callable[[base.Store, list[replica_core.Instruction]], list[replica_write.Applied]]


class Host(Protocol):
    """The edge that a replica lives in."""

    schedule: Schedule
    lots: Random

    def mine(self, run: Callable[[], None]) -> Callable[[], None]: ...

    def step(self) -> None: ...

    def ask_sync(self, request: sync.SyncRequest, done: Callable[[sync.SyncAnswer | log.LogError], None]) -> None: ...

    def changed(self, applied: list[replica_write.Applied]) -> None: ...

    def synced(self) -> None: ...


def write_group(store: base.Store, group: list[replica_core.Instruction]) -> list[replica_write.Applied]:
    """One transaction, as in bus/replica.py."""
    with store.transact() as txn:
        return [a for i in group for a in replica_write.write(txn, i)]


class ReplicaRim:
    def __init__(
        self,
        host: Host,
        store: base.Store,
        scopes: list[str],
        make: Callable[[dict[str, fold.Cursor]], replica_core.ReplicaCore],
        write: Writer,
    ) -> None:
        self._host, self._store, self._scopes, self._write = host, store, scopes, write
        self.core = make(self.cursors())
        self._queue: deque[replica_core.Stimulus] = deque()
        self._scheduled = False
        self._ask: list[Timer] = []
        self._asks = 0  # numbers the asks, so that the answer to a cancelled one is dropped
        self._failures = 0
        self._idle_asks = 0
        self._refresh()

    def cursors(self) -> dict[str, fold.Cursor]:
        return {s: fold.Cursor.from_bytes(self._store.get("cursors", s.encode())) for s in self._scopes}

    @property
    def complete(self) -> bool:
        return all(self.core.cursor(s).epoch for s in self._scopes)

    def _later(self, delay_us: int, run: Callable[[], None]) -> Timer:
        return self._host.schedule.after(delay_us, self._host.mine(run))

    def put(self, stimulus: replica_core.Stimulus) -> None:
        self._queue.append(stimulus)
        self._wake(self._host.lots.randrange(5 * MS))

    def _wake(self, delay_us: int) -> None:
        if not self._scheduled and self._queue:
            self._scheduled = True
            self._later(delay_us, self._run)

    def _run(self) -> None:
        self._scheduled = False
        instructions: list[replica_core.Instruction] = []
        for _ in range(min(len(self._queue), replica.TRANSACTION_FACTS_MAX)):
            instructions.extend(self.core.handle(self._queue.popleft()))
        if self._execute(instructions):
            self._wake(1)

    def _refresh(self) -> None:
        """Stands for the cloud's look at the cursors in beats, too: it comes as often, and ends in the same question."""

        def again() -> None:
            self.put(replica_core.Refresh())
            self._refresh()

        self._later(int(behind.CHECK_S * S * self._host.lots.uniform(0.8, 1.2)), again)

    # --- instructions

    def _execute(self, instructions: list[replica_core.Instruction]) -> bool:
        """False when the store failed: the rest is dropped, and nothing is taken from the queue for a while."""
        group: list[replica_core.Instruction] = []
        for i in instructions:
            self._host.step()
            if isinstance(i, replica_core.Apply | replica_core.Stage | replica_core.Finish):
                group.append(i)
                continue
            if not self._commit(group):
                return False
            group = []
            match i:
                case replica_core.Ask():
                    self._start_ask(i)
                case replica_core.Synced():
                    self._idle_asks = 0
                    self._host.synced()
                case replica_core.Refuse():
                    self._host.schedule.note(f"refused {i.scope} #{i.seq} {i.about}: {i.reason}")
        return self._commit(group)

    def _commit(self, group: list[replica_core.Instruction]) -> bool:
        if not group:
            return True
        try:
            changed = self._write(self._store, group)
        except base.StoreError:
            self._scheduled = True
            self._later(int(replica.STORE_RETRY_S * S), self._lost)
            return False
        self._host.step()
        if changed:
            self._host.changed(changed)
        return True

    def _lost(self) -> None:
        self._scheduled = False
        for i in self.core.handle(replica_core.Lost(self.cursors())):
            if isinstance(i, replica_core.Ask):
                self._start_ask(i)
        self._wake(1)

    # --- catch-up

    def _start_ask(self, ask: replica_core.Ask) -> None:
        for timer in self._ask:
            timer.cancel()
        self._ask.clear()
        self._asks += 1
        number = self._asks
        wait_us = 0
        if not ask.soon:
            self._failures += 1
            wait = min(replica.ASK_RETRY_S_MAX, replica.ASK_RETRY_S * 2 ** min(self._failures, 10))
            wait_us = int(wait * S * self._host.lots.uniform(0.5, 1.0))
        elif self._idle_asks:
            wait_us = int(min(2.0, 0.01 * 2 ** min(self._idle_asks, 10)) * S)
        self._ask.append(self._later(wait_us, lambda: self._send(ask, number)))

    def _send(self, ask: replica_core.Ask, number: int) -> None:
        def answered(answer: sync.SyncAnswer | log.LogError) -> None:
            if number != self._asks:
                return
            # The task that waits for the answer runs a moment later, and may be cancelled until then.
            self._ask.append(self._later(self._host.lots.randrange(2 * MS), lambda: self._take(ask, answer)))

        self._host.ask_sync(sync.SyncRequest(scopes=ask.cursors), answered)

    def _take(self, ask: replica_core.Ask, answer: sync.SyncAnswer | log.LogError) -> None:
        if isinstance(answer, log.LogError) or answer.status != "ok":
            self.put(replica_core.Failed())
            return
        self._failures = 0
        events = sum(len(p.events) for p in answer.pages)
        self._idle_asks = 0 if events else self._idle_asks + 1
        pages = codec.decode_as(sync.SyncAnswer, codec.encode(answer)).pages
        self.put(replica_core.Answered(pages, ask.cursors))
