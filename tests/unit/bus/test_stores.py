"""One list of tests over every version of the store."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from bus.stores import base
from bus.stores.failing import FailingStore
from bus.stores.lmdb_store import LmdbStore
from bus.stores.memory import MemoryStore
from bus.stores.sealed import SealedStore

VERSIONS: dict[str, Callable[[Path], base.Store]] = {
    "lmdb": LmdbStore,
    "memory": lambda _: MemoryStore(),
    "sealed lmdb": lambda path: SealedStore(LmdbStore(path), b"k" * 32),
    "sealed memory": lambda _: SealedStore(MemoryStore(), b"k" * 32),
    "failing": lambda _: FailingStore(MemoryStore(), lambda _: None),
}


@pytest.fixture(params=VERSIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[base.Store]:
    s = VERSIONS[request.param](tmp_path / "store")
    yield s
    s.close()


def test_put_get_delete(store: base.Store) -> None:
    with store.transact() as t:
        t.put("objects", b"a", b"1")
        assert t.get("objects", b"a") == b"1"
    assert store.get("objects", b"a") == b"1"
    assert store.get("cursors", b"a") is None
    with store.transact() as t:
        assert t.delete("objects", b"a")
        assert not t.delete("objects", b"a")
    assert store.get("objects", b"a") is None


def test_items_are_sorted_and_limited_to_the_prefix(store: base.Store) -> None:
    with store.transact() as t:
        for k in (b"b\x002", b"a\x001", b"b\x001", b"c"):
            t.put("objects", k, k)
        assert [k for k, _ in t.items("objects", b"b\x00")] == [b"b\x001", b"b\x002"]
    assert [k for k, _ in store.items("objects")] == [b"a\x001", b"b\x001", b"b\x002", b"c"]
    assert [k for k, _ in store.items("objects", b"b\x00")] == [b"b\x001", b"b\x002"]
    assert list(store.items("objects", b"x")) == []
    assert store.count("objects") == 4


def test_a_transaction_that_raises_leaves_nothing(store: base.Store) -> None:
    with store.transact() as t:
        t.put("objects", b"a", b"1")
    with pytest.raises(ZeroDivisionError), store.transact() as t:
        t.put("objects", b"a", b"2")
        t.put("outbox", b"n", b"3")
        raise ZeroDivisionError
    assert store.get("objects", b"a") == b"1"
    assert store.get("outbox", b"n") is None


def test_items_in_a_transaction_see_its_own_changes_and_can_be_deleted_while_walking(store: base.Store) -> None:
    with store.transact() as t:
        t.put("objects", b"a", b"1")
        t.put("objects", b"b", b"1")
    with store.transact() as t:
        t.put("objects", b"c", b"1")
        for k, _ in t.items("objects"):
            t.delete("objects", k)
        assert t.count("objects") == 0
    assert store.count("objects") == 0


def test_a_key_too_long_or_empty_or_a_foreign_table_is_refused(store: base.Store) -> None:
    for table, key in (("objects", b""), ("objects", b"x" * 512), ("nonsense", b"a")):
        with pytest.raises(base.StoreError), store.transact() as t:
            t.put("state", b"before", b"1")
            t.put(table, key, b"1")
    assert store.get("state", b"before") is None


@pytest.mark.parametrize("step", ["begin", "put", "delete", "commit", "get"])
def test_a_failing_store_fails_at_each_step_and_changes_nothing(step: str) -> None:
    inner = MemoryStore()
    armed = False

    def fail(what: str) -> base.StoreError | None:
        return base.StoreFull("no room") if armed and what == step else None

    store = FailingStore(inner, fail)
    with store.transact() as t:
        t.put("objects", b"a", b"1")
    armed = True
    with pytest.raises(base.StoreFull), store.transact() as t:
        t.put("objects", b"a", b"2")
        t.delete("objects", b"a")
        t.get("objects", b"a")
    armed = False
    assert store.get("objects", b"a") == b"1"


# --- LMDB only ------------------------------------------------------------------------------------------------------


def test_lmdb_grows_when_the_map_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.stores.lmdb_store.MAP_BYTES", 256 << 10)
    store = LmdbStore(tmp_path / "s")
    value = b"x" * 100_000
    wrote = full = 0
    while wrote < 20:
        try:
            with store.transact() as t:
                t.put("objects", str(wrote).encode(), value)
            wrote += 1
        except base.StoreFull:
            full += 1
            assert full < 20
    assert full > 0
    store.close()
    again = LmdbStore(tmp_path / "s")
    assert again.count("objects") == 20
    again.close()


def test_lmdb_says_that_a_damaged_file_is_damaged(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with store.transact() as t:
        t.put("objects", b"a", b"1")
    store.close()
    (tmp_path / "s" / "data.mdb").write_bytes(os.urandom(64 << 10))
    with pytest.raises(base.StoreCorrupt, match="data|damaged"):
        LmdbStore(tmp_path / "s")


def test_lmdb_survives_kill_9_with_the_last_commit(tmp_path: Path) -> None:
    """A child commits pairs for ever; after kill -9 both halves of every pair agree, and every acknowledged one is there."""
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from bus.stores.lmdb_store import LmdbStore
        s = LmdbStore(Path(sys.argv[1]))
        n = 0
        while True:
            n += 1
            with s.transact() as t:
                t.put("objects", b"k", str(n).encode())
                t.put("cursors", b"k", str(n).encode())
            print(n, flush=True)
    """)
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = 0
    while acknowledged < 200:
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    child.stdout.close()
    child.wait()
    whole = [int(x) for x in rest[:-1] if x.isdigit()]
    acknowledged = max([acknowledged, *whole])
    store = LmdbStore(tmp_path / "s")
    assert store.get("objects", b"k") == store.get("cursors", b"k")
    assert int(store.get("objects", b"k") or 0) >= acknowledged
    store.close()


def test_lmdb_is_read_by_another_process_while_open(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with store.transact() as t:
        t.put("objects", b"a", b"1")
    code = (
        "import sys;from pathlib import Path;from bus.stores.lmdb_store import LmdbStore;"
        "s=LmdbStore(Path(sys.argv[1]),read_only=True);print(s.get('objects',b'a'))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "b'1'"
    store.close()


class _Panicked:
    """LMDB's environment after its meta page could not be written: it takes nothing more."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def begin(self, **_: Any) -> Any:
        raise lmdb.PanicError("mdb_txn_begin: MDB_PANIC")

    def close(self) -> None:
        self._env.close()


def test_a_store_whose_meta_page_could_not_be_written_is_opened_again(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "store")
    with store.transact() as t:
        t.put("objects", b"a", b"1")
    store._env = _Panicked(store._env)  # type: ignore[assignment]
    with pytest.raises(base.StoreError, match="bytes free") as failed, store.transact() as t:
        t.put("objects", b"a", b"2")
    assert not isinstance(failed.value, base.StoreCorrupt), "nothing is damaged: nobody may throw it away"
    with store.transact() as t:
        assert t.get("objects", b"a") == b"1"
        t.put("objects", b"b", b"2")
    store._env = _Panicked(store._env)  # type: ignore[assignment]
    assert (store.get("objects", b"a"), store.count("objects")) == (b"1", 2)
    store.close()


def test_a_write_that_the_disk_cuts_short_is_a_full_disk(tmp_path: Path) -> None:
    """The kernel writes what fits and says how much that was; LMDB calls it an input/output error.  The size limit of this
    process's files stands for the disk."""
    store = LmdbStore(tmp_path / "store")
    with store.transact() as t:
        t.put("objects", b"a", b"1")
    size = (tmp_path / "store" / "data.mdb").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40_960, hard))
    try:
        for _ in range(2):
            with pytest.raises(base.StoreFull, match=r"[0-9]+ bytes free"), store.transact() as t:
                t.put("objects", b"big", b"x" * 400_000)
        assert store.get("objects", b"a") == b"1"
        with store.transact() as t:
            t.put("objects", b"small", b"fits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with store.transact() as t:
        t.put("objects", b"big", b"x" * 400_000)
    assert (store.get("objects", b"small"), store.count("objects")) == (b"fits", 3)
    store.close()
