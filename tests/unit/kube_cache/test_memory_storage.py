"""MemoryStorage: the contract of Storage."""

from __future__ import annotations

import pytest

from bus.kube.memory import MemoryStorage
from bus.kube.storage import AlreadyExists, Conflict, Origin, Reader, Storage, TooLarge, Unavailable
from schemas.subjects import ObjectKey

KEY = ObjectKey("", "configmaps", "default", "x")
ME = Origin("tester", None, "trace-1")


async def test_is_a_storage_and_reads_its_own_writes() -> None:
    storage = MemoryStorage()
    as_reader: Reader = storage
    assert isinstance(as_reader, Storage)
    obj = {"data": {"a": "1"}}
    made = await storage.create(KEY, obj, ME)
    obj["data"]["a"] = "changed by the caller"
    assert made.object == {"data": {"a": "1"}} and made.trace == "trace-1"
    assert storage.get(KEY) == made and storage.revision() == made.rev
    with pytest.raises(AlreadyExists):
        await storage.create(KEY, obj, ME)
    changed = await storage.replace(KEY, {"data": {}}, made.rev, ME)
    with pytest.raises(Conflict) as stale:
        await storage.replace(KEY, {}, made.rev, ME)
    assert stale.value.current == changed.rev
    with pytest.raises(Conflict):
        await storage.delete(KEY, made.rev, ME)
    gone = await storage.delete(KEY, changed.rev, ME)
    assert gone.rev == changed.rev + 1 and gone.object == {"data": {}} and storage.get(KEY) is None
    with pytest.raises(Conflict) as missing:
        await storage.replace(KEY, {}, gone.rev, ME)
    assert missing.value.current is None


async def test_failures_store_nothing() -> None:
    storage = MemoryStorage()
    with pytest.raises(TooLarge):
        await storage.create(KEY, {"data": {"a": "x" * (1 << 20)}}, ME)
    storage.fail_next = Unavailable("the log is away")
    with pytest.raises(Unavailable):
        await storage.create(KEY, {}, ME)
    assert storage.get(KEY) is None and storage.revision() == 0
    await storage.create(KEY, {}, ME)
