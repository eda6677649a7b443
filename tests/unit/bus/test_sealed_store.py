"""What a sealed store hides, whom it refuses, and that it is the same replica."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bus import fold
from bus.stores import base, sealed
from bus.stores.lmdb_store import LmdbStore
from bus.stores.memory import MemoryStore

KEY = bytes(range(32))
SECRET = b"hunter2-hunter2-hunter2"


def test_the_disk_shows_no_value_and_the_state_hash_is_of_the_plain_text(tmp_path: Path) -> None:
    store, plain = sealed.SealedStore(LmdbStore(tmp_path / "s"), KEY), MemoryStore()
    for one in (store, plain):
        with one.transact() as t:
            t.put("objects", b"edge-1\0secret", SECRET)
            t.put("outbox", b"1", SECRET)
    assert fold.state_hash(store.items("objects")) == fold.state_hash(plain.items("objects"))
    assert list(store.items("state")) == [] and store.count("state") == 0
    store.close()
    assert SECRET not in (tmp_path / "s" / "data.mdb").read_bytes()
    again = sealed.SealedStore(LmdbStore(tmp_path / "s"), KEY)
    assert again.get("outbox", b"1") == SECRET
    again.close()


def test_a_plain_store_is_sealed_with_all_it_holds(tmp_path: Path) -> None:
    plain = LmdbStore(tmp_path / "s")
    with plain.transact() as t:
        for table in base.TABLES:
            t.put(table, b"a", SECRET)
    assert not sealed.is_sealed(plain)
    plain.close()
    store = sealed.SealedStore(LmdbStore(tmp_path / "s"), KEY)
    assert [store.get(table, b"a") for table in base.TABLES] == [SECRET] * len(base.TABLES)
    store.close()
    raw = LmdbStore(tmp_path / "s")
    assert sealed.is_sealed(raw)
    assert all(SECRET not in (raw.get(table, b"a") or b"") for table in base.TABLES)
    raw.close()


def test_another_key_changes_nothing_and_is_not_called_damage() -> None:
    inner = MemoryStore()
    store = sealed.SealedStore(inner, KEY)
    with store.transact() as t:
        t.put("objects", b"a", SECRET)
    before = inner.get("objects", b"a")
    with pytest.raises(sealed.BadStoreKey, match="another key") as e:
        sealed.SealedStore(inner, b"x" * 32)
    assert not isinstance(e.value, base.StoreCorrupt)
    assert inner.get("objects", b"a") == before


def test_a_value_that_was_moved_or_changed_is_refused() -> None:
    inner = MemoryStore()
    store = sealed.SealedStore(inner, KEY)
    with store.transact() as t:
        t.put("objects", b"a", b"for a")
        t.put("objects", b"b", b"for b")
        t.put("objects", b"c", b"for c")
    a, c = inner.get("objects", b"a"), inner.get("objects", b"c")
    assert a is not None and c is not None
    with inner.transact() as t:
        t.put("objects", b"b", a)
        t.put("state", b"a", a)
        t.put("objects", b"c", c[:-1] + bytes([c[-1] ^ 1]))
        t.put("outbox", b"1", b"short")
    for table, key in (("objects", b"b"), ("state", b"a"), ("objects", b"c"), ("outbox", b"1")):
        with pytest.raises(base.StoreCorrupt):
            store.get(table, key)
    assert store.get("objects", b"a") == b"for a"


def test_the_key_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "k" / "store.key"
    with pytest.raises(sealed.BadStoreKey, match="can't be read"):
        sealed.load_key(path)
    key = sealed.load_key(path, make=True)
    assert len(key) == 32 and sealed.load_key(path, make=True) == key
    assert path.stat().st_mode & 0o777 == 0o600
    for mode in (0o640, 0o604, 0o660):
        os.chmod(path, mode)
        with pytest.raises(sealed.BadStoreKey, match="chmod 600"):
            sealed.load_key(path)
    os.chmod(path, 0o600)
    for text in ("", "zz" * 32, "00" * 31):
        path.write_text(text)
        with pytest.raises(sealed.BadStoreKey, match="no key of a store"):
            sealed.load_key(path)
