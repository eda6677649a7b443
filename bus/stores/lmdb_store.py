"""The store on a node's disk: LMDB.  The only module that imports lmdb.

A commit is durable (one fsync) before ``transact`` returns.  Readers may be other processes (``skerry replay verify`` opens
the same folder read-only while the daemon runs).  kill -9 at any instant leaves the last commit; power loss is LMDB's
own guarantee (copy-on-write pages, meta page written last).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from bus.stores import base

MAP_BYTES = 64 << 20  # address space to begin with, not disk; doubled when full
MAP_BYTES_MAX = 4 << 30  # a node with more than 4 GB of metadata is a mistake somewhere else
READERS_MAX = 16


_NO_ROOM = ("No space left", "Disk quota exceeded", "File too large")  # ENOSPC, EDQUOT, EFBIG in the C library's words


def _ours(e: Exception, path: Path, what: str) -> base.StoreError:
    if isinstance(e, lmdb.MapFullError | lmdb.DiskError) or (isinstance(e, OSError) and e.errno == 28):
        return base.StoreFull(f"{what} {path}: no room: {e}; free disk space, the daemon tries again")
    if any(why in str(e) for why in _NO_ROOM):
        return base.StoreFull(f"{what} {path}: the disk is full; free space, the daemon tries again")
    corrupt = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.PageNotFoundError, lmdb.PanicError)
    if isinstance(e, corrupt):
        return base.StoreCorrupt(f"{what} {path}: damaged: {e}; it can be thrown away, the replica is rebuilt from the log")
    return base.StoreError(f"{what} {path}: {e}")


class LmdbStore:
    """A folder with ``data.mdb`` and ``lock.mdb`` (mode 0600).  Raises StoreCorrupt when it is no store."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        try:
            if not read_only:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env = lmdb.open(
                os.fspath(path), map_size=_map_bytes(path), max_dbs=len(base.TABLES), max_readers=READERS_MAX,
                readonly=read_only, create=not read_only, mode=0o600, meminit=False, readahead=False,
            )  # fmt: skip
            self._dbs: dict[str, Any] = {t: self._env.open_db(t.encode(), create=not read_only) for t in base.TABLES}
        except (lmdb.Error, OSError) as e:
            raise _ours(e, path, "opening") from e

    @property
    def path(self) -> Path:
        return self._path

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            with self._env.begin(db=self._dbs[table]) as t:
                value: bytes | None = t.get(key)
                return value
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "reading") from e

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._env.begin(db=self._dbs[table]) as t:
                yield from _scan(t.cursor(), prefix)
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "reading") from e

    def count(self, table: str) -> int:
        try:
            with self._env.begin() as t:
                return int(t.stat(self._dbs[table])["entries"])
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "reading") from e

    @contextmanager
    def transact(self) -> Iterator[base.Transaction]:
        """A full map is grown after the failed transaction, so the caller's retry finds room."""
        try:
            with self._env.begin(write=True) as t:
                yield _LmdbTransaction(t, self._dbs, self._path)
        except lmdb.MapFullError as e:
            self._grow()
            raise _ours(e, self._path, "writing") from e
        except base.StoreFull:
            self._grow()
            raise
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "writing") from e

    def _grow(self) -> None:
        size = self._env.info()["map_size"]
        if size < MAP_BYTES_MAX:
            self._env.set_mapsize(min(MAP_BYTES_MAX, size * 2))

    def close(self) -> None:
        self._env.close()


class _LmdbTransaction:
    def __init__(self, txn: Any, dbs: dict[str, Any], path: Path) -> None:
        self._txn, self._dbs, self._path = txn, dbs, path

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._dbs[table])
        return value

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        # A list, not a cursor: the caller may delete what it walks over.
        return iter(list(_scan(self._txn.cursor(db=self._dbs[table]), prefix)))

    def count(self, table: str) -> int:
        return int(self._txn.stat(self._dbs[table])["entries"])

    def put(self, table: str, key: bytes, value: bytes) -> None:
        base.check(table, key, value)
        try:
            self._txn.put(key, value, db=self._dbs[table])
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "writing") from e

    def delete(self, table: str, key: bytes) -> bool:
        return bool(self._txn.delete(key, db=self._dbs[table]))


def walk(path: Path) -> None:
    """Reads every record.  May end the process instead of raising (see check.py).  Raises StoreCorrupt, StoreError."""
    try:
        with lmdb.open(os.fspath(path), readonly=True, create=False, lock=False, max_dbs=len(base.TABLES)) as env:
            needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            if (size := (path / "data.mdb").stat().st_size) < needed:
                raise base.StoreCorrupt(f"{path}: {size} bytes, its pages need {needed}")
            with env.begin() as txn:
                for name, _ in txn.cursor():
                    with txn.cursor(env.open_db(name, txn, create=False)) as records:
                        for _ in records:
                            pass
    except (lmdb.Error, OSError) as e:
        raise _ours(e, path, "reading") from e


def _scan(cursor: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not cursor.set_range(prefix):
        return
    for k, v in cursor:
        if not k.startswith(prefix):
            return
        yield bytes(k), bytes(v)


def _map_bytes(path: Path) -> int:
    """At least twice what is there, so that a grown store opens again."""
    data = path / "data.mdb"
    size = MAP_BYTES
    while data.exists() and size < 2 * data.stat().st_size and size < MAP_BYTES_MAX:
        size *= 2
    return size
