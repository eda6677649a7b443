"""A daemon's store, sealed: opened with its key, refused (and left alone) without; the debugger reads the plain text."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest

from bus import fold
from bus.stores import sealed
from edge import daemon
from ops.replay import reading
from schemas import codec
from tests.contract.bus import plain

WAITS = msgpack.packb(["report.0.edge-1.node", "id", b"report"])
AT = fold.store_key("edge-1", plain.cm("a"))
OBJECT = fold.store_value(7, codec.encode_event(plain.make_event(plain.cm("a"), {"kind": "ConfigMap"}, "edge-1", 0)))


def test_sealed_opened_refused_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = tmp_path / "store", tmp_path / "keys" / "store.key"
    plain = daemon.open_store(path)
    with plain.transact() as t:
        t.put("outbox", b"1", WAITS)
        t.put("objects", AT, OBJECT)
        t.put("cursors", b"edge-1", fold.Cursor("e", 7).to_bytes())
    plain.close()
    store = daemon.open_store(path, key)
    assert store.get("outbox", b"1") == WAITS, "what waits is not lost when a store is sealed"
    store.close()
    for wrong in (None, tmp_path / "keys" / "another.key"):
        with pytest.raises(sealed.BadStoreKey):
            daemon.open_store(path, wrong)
    assert not (tmp_path / "store.damaged").exists()
    with pytest.raises(reading.ReadError, match="SKERRY_STORE_KEY"):
        reading.read_replica(path)
    monkeypatch.setenv("SKERRY_STORE_KEY", str(key))
    cursors, objects = reading.read_replica(path)
    assert cursors == {"edge-1": fold.Cursor("e", 7)}
    assert objects == {AT: OBJECT}
    key.chmod(0o644)
    with pytest.raises(sealed.BadStoreKey, match="chmod 600"):
        daemon.open_store(path, key)
