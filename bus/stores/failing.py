"""A store that fails when told to: the error version that every user of a store is tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bus.stores import base


class FailingStore:
    """Wraps another store; ``fail`` is asked before each step (get, items, begin, put, delete, commit)
    and answers with the error to raise, or None.  A failed commit leaves nothing behind, as a real one."""

    def __init__(self, inner: base.Store, fail: Callable[[str], base.StoreError | None]) -> None:
        self._inner = inner
        self._fail = fail

    def _step(self, what: str) -> None:
        error = self._fail(what)
        if error is not None:
            raise error

    def get(self, table: str, key: bytes) -> bytes | None:
        self._step("get")
        return self._inner.get(table, key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        self._step("items")
        return self._inner.items(table, prefix)

    def count(self, table: str) -> int:
        self._step("get")
        return self._inner.count(table)

    @contextmanager
    def transact(self) -> Iterator[base.Transaction]:
        self._step("begin")
        with self._inner.transact() as txn:
            yield _FailingTransaction(txn, self._step)
            self._step("commit")

    def close(self) -> None:
        self._inner.close()


class _FailingTransaction:
    def __init__(self, inner: base.Transaction, step: Callable[[str], None]) -> None:
        self._inner = inner
        self._step = step

    def get(self, table: str, key: bytes) -> bytes | None:
        self._step("get")
        return self._inner.get(table, key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        self._step("items")
        return self._inner.items(table, prefix)

    def count(self, table: str) -> int:
        return self._inner.count(table)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._step("put")
        self._inner.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        self._step("delete")
        return self._inner.delete(table, key)
