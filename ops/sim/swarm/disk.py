"""A node's store with faults: full, and crashes at any step of any transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bus.stores import base, failing, memory
from ops.sim.swarm.schedule import Crash


class Disk:
    """A ``Store``.  ``committed`` is told after each commit, before the code that asked for it goes on."""

    def __init__(self, crashed: Callable[[], None], committed: Callable[[], None]) -> None:
        self._crashed, self._committed = crashed, committed
        self.raw = memory.MemoryStore()
        self._failing = failing.FailingStore(self.raw, self._fail)
        self.full = False
        self.crash_in: int | None = None  # steps until the process ends

    def replace(self) -> None:
        """A new disk, empty."""
        self.raw = memory.MemoryStore()
        self._failing = failing.FailingStore(self.raw, self._fail)

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
