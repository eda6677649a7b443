"""What a node keeps on its disk: named tables of bytes to bytes, changed in transactions that happen or don't.

One list of tests runs over every version (LMDB, memory, failing).  Blocking on purpose: a transaction is some
microseconds plus one fsync, and an event loop that waits for it can't tear it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class StoreError(Exception):
    """The store can't do what was asked; the message says which file and what to do."""


class StoreFull(StoreError):
    """The disk or the map is full.  What was committed stays readable."""


class StoreCorrupt(StoreError):
    """The file is not a store or is damaged: throw it away and sync again (a resync, never a container)."""


TABLES = ("objects", "cursors", "outbox", "state")


class Reading(Protocol):
    def get(self, table: str, key: bytes) -> bytes | None: ...

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In key order, a snapshot."""

    def count(self, table: str) -> int: ...


class Transaction(Reading, Protocol):
    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def delete(self, table: str, key: bytes) -> bool: ...


class Store(Reading, Protocol):
    def transact(self) -> AbstractContextManager[Transaction]:
        """Commits (durably) when the block ends, rolls back when it raises.  Raises StoreFull, StoreCorrupt, StoreError."""

    def close(self) -> None: ...


KEY_BYTES_MAX = 511  # LMDB's limit; bus/fold.py shortens longer addresses


def check(table: str, key: bytes, value: bytes) -> None:
    """One rule for all versions, so that memory refuses what a disk would refuse."""
    if table not in TABLES:
        raise StoreError(f"no table {table!r}")
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise StoreError(f"a key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} are possible")
