"""A store in memory: for hollow nodes and tests.  Same transactions, nothing durable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bus.stores import base


class MemoryStore:
    def __init__(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {t: {} for t in base.TABLES}

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        t = self._tables[table]
        return iter([(k, t[k]) for k in sorted(k for k in t if k.startswith(prefix))])

    def count(self, table: str) -> int:
        return len(self._tables[table])

    @contextmanager
    def transact(self) -> Iterator[base.Transaction]:
        txn = _MemoryTransaction(self._tables)
        yield txn
        txn.commit()

    def close(self) -> None:
        pass


class _MemoryTransaction:
    """Changes aside, put in at the end: raising leaves the store as it was."""

    def __init__(self, tables: dict[str, dict[bytes, bytes]]) -> None:
        self._tables = tables
        self._changes: dict[tuple[str, bytes], bytes | None] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        at = (table, key)
        return self._changes[at] if at in self._changes else self._tables[table].get(key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        merged = {k: v for k, v in self._tables[table].items() if k.startswith(prefix)}
        for (t, k), v in self._changes.items():
            if t == table and k.startswith(prefix):
                if v is None:
                    merged.pop(k, None)
                else:
                    merged[k] = v
        return iter(sorted(merged.items()))

    def count(self, table: str) -> int:
        return sum(1 for _ in self.items(table))

    def put(self, table: str, key: bytes, value: bytes) -> None:
        base.check(table, key, value)
        self._changes[(table, key)] = value

    def delete(self, table: str, key: bytes) -> bool:
        had = self.get(table, key) is not None
        self._changes[(table, key)] = None
        return had

    def commit(self) -> None:
        for (t, k), v in self._changes.items():
            if v is None:
                self._tables[t].pop(k, None)
            else:
                self._tables[t][k] = v
