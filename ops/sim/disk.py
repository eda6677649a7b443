"""A node's store with faults: full, crashes at any step of any transaction, and commits that are torn by a power cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from bus.stores import base, failing, memory
from ops.sim.schedule import Crash


class Disk:
    """A ``Store``.  ``committed`` is told after each commit, before the code that asked for it goes on."""

    def __init__(self, crashed: Callable[[], None], committed: Callable[[], None]) -> None:
        self._crashed, self._committed = crashed, committed
        self.raw = memory.MemoryStore()
        self._failing = failing.FailingStore(self.raw, self._fail)
        self.full = False
        self.crash_in: int | None = None  # steps until the process ends
        self.torn = False  # the next crash takes the power away in the middle of a write

    def replace(self) -> None:
        """A new disk, empty."""
        self.raw = memory.MemoryStore()
        self._failing = failing.FailingStore(self.raw, self._fail)

    def copy_of(self, other: Disk) -> None:
        """An image of another node's disk."""
        with self.raw.transact() as txn:
            for table in base.TABLES:
                for key, value in other.raw.items(table):
                    txn.put(table, key, value)

    def tear(self, lots: Random) -> None:
        """What the power cut leaves: LMDB's old state or its new one, or a page that was written by half."""
        self.torn = False
        found = [(t, k) for t in ("objects", "cursors", "outbox") for k, _ in self.raw.items(t)]
        if not found or lots.random() < 0.5:
            return
        table, key = lots.choice(found)
        whole = self.raw.get(table, key) or b""
        with self.raw.transact() as txn:
            txn.put(table, key, whole[: lots.randrange(len(whole))])

    def step(self) -> None:
        """A boundary between two instructions of the daemon: it may end here."""
        self._crash_point()

    def _fail(self, what: str) -> base.StoreError | None:
        self._crash_point()
        if self.full and what in ("put", "commit"):
            return base.StoreFull("the disk is full")
        return None

    def _crash_point(self) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                raise Crash(self._crashed)

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._failing.get(table, key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self._failing.items(table, prefix)

    def count(self, table: str) -> int:
        return self._failing.count(table)

    @contextmanager
    def transact(self) -> Iterator[base.Transaction]:
        with self._failing.transact() as txn:
            yield txn
        self._committed()
        self._crash_point()

    def close(self) -> None:
        pass
