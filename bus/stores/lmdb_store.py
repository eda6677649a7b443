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
# LMDB's word for a write that the disk took a part of (mdb.c, mdb_page_flush: "short write, filesystem full?").
_CUT_SHORT = "Input/output error"


def _ours(e: Exception, path: Path, what: str) -> base.StoreError:
    if isinstance(e, lmdb.MapFullError | lmdb.DiskError) or (isinstance(e, OSError) and e.errno == 28):
        return base.StoreFull(f"{what} {path}: no room: {e}, {_free(path)}; free disk space, the daemon tries again")
    if any(why in str(e) for why in _NO_ROOM):
        return base.StoreFull(f"{what} {path}: the disk is full, {_free(path)}; free space, the daemon tries again")
    if _CUT_SHORT in str(e) and what == "writing":
        return base.StoreFull(
            f"{what} {path}: the disk took a part of it only ({e}), {_free(path)}; free space, the daemon tries again. "
            "If there is room, look for a failing disk in the kernel's log"
        )
    corrupt = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.PageNotFoundError)
    if isinstance(e, corrupt):
        return base.StoreCorrupt(f"{what} {path}: damaged: {e}; it can be thrown away, the replica is rebuilt from the log")
    return base.StoreError(f"{what} {path}: {e}")


def _free(path: Path) -> str:
    try:
        fs = os.statvfs(path)
    except OSError as e:
        return f"free space unknown: {e.strerror}"
    return f"{fs.f_bavail * fs.f_frsize} bytes free"


class LmdbStore:
    """A folder with ``data.mdb`` and ``lock.mdb`` (mode 0600).  Raises StoreCorrupt when it is no store."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path, self._read_only = path, read_only
        try:
            if not read_only:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except (lmdb.Error, OSError) as e:
            raise _ours(e, path, "opening") from e

    def _open(self) -> None:
        self._env = lmdb.open(
            os.fspath(self._path), map_size=_map_bytes(self._path), max_dbs=len(base.TABLES), max_readers=READERS_MAX,
            readonly=self._read_only, create=not self._read_only, mode=0o600, meminit=False, readahead=False,
        )  # fmt: skip
        self._dbs: dict[str, Any] = {t: self._env.open_db(t.encode(), create=not self._read_only) for t in base.TABLES}

    @property
    def path(self) -> Path:
        return self._path

    def get(self, table: str, key: bytes) -> bytes | None:
        with self._reading() as t:
            value: bytes | None = t.get(key, db=self._dbs[table])
            return value

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._reading() as t:
            yield from _scan(t.cursor(self._dbs[table]), prefix)

    def count(self, table: str) -> int:
        with self._reading() as t:
            return int(t.stat(self._dbs[table])["entries"])

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            try:
                txn = self._env.begin()
            except lmdb.PanicError:
                self._reopen()
                txn = self._env.begin()
            with txn:
                yield txn
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
        except lmdb.PanicError as e:
            self._reopen()
            raise base.StoreError(
                f"writing {self._path}: the disk refused a commit's last page, {_free(self._path)}; opened again, "
                "with what was committed before"
            ) from e
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "writing") from e

    def _reopen(self) -> None:
        """LMDB takes nothing more after its meta page could not be written (MDB_PANIC).  The two meta pages take turns, so
        the commit before is whole, and a store that is opened anew goes on from it."""
        self._env.close()
        try:
            self._open()
        except (lmdb.Error, OSError) as e:
            raise _ours(e, self._path, "opening again") from e

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
