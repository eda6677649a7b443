"""What a node knows and what it says of it are stored together; a full disk delays, and loses nothing."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from bus import outbox
from bus.stores import base
from bus.stores.failing import FailingStore
from bus.stores.memory import MemoryStore
from edge import state
from schemas import codec, reports, subjects


def pod(name: str, n: int) -> state.Report:
    return state.Report("pod", "default", name, reports.PodReport(uid=f"u{n}", status={"n": n}))


def waiting(store: base.Store) -> list[tuple[str, int]]:
    out = []
    for _, value in store.items("outbox"):
        subject, _, payload = msgpack.unpackb(value)
        out.append((subject, (codec.decode_event(payload).data or {})["status"]["n"]))
    return out


async def test_state_and_report_are_one_transaction() -> None:
    store = MemoryStore()
    node = state.NodeState("edge-1", 4, store, outbox.Outbox(store))
    node.commit({b"k": b"v"}, [pod("web", 1)])
    assert store.get("state", b"k") == b"v"
    subject = subjects.report("edge-1", "pod", 4, "default", "web")
    assert waiting(store) == [(subject, 1)]
    subjects.parse_report(subject)
    node.commit({b"k": None}, [])
    assert store.get("state", b"k") is None


async def test_a_full_disk_keeps_the_newest_of_each_and_writes_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "RETRY_S", 0.01)
    inner = MemoryStore()
    full = True
    store = FailingStore(inner, lambda s: base.StoreFull("disk full") if full and s == "commit" else None)
    box = outbox.Outbox(store)
    troubles: list[str] = []
    node = state.NodeState("edge-1", 1, store, box, on_trouble=troubles.append)
    node.commit({b"k": b"1"}, [pod("web", 1)])
    node.commit({b"k": b"2", b"j": b"1"}, [pod("web", 2), pod("db", 3)])
    assert troubles and waiting(inner) == []
    assert box.pending == 2, "they can be sent while the disk is full"
    assert node.get(b"k") == b"2", "one reads what one wrote, on disk or not"
    full = False
    async with asyncio.timeout(5):
        while box.unclean:
            await asyncio.sleep(0.005)
    assert [n for _, n in waiting(inner)] == [2, 3] and inner.get("state", b"k") == b"2" and troubles[-1] == ""
    node.close()


async def test_a_full_outbox_on_a_disk_that_refuses_to_shrink_it_is_no_error_of_who_reports() -> None:
    inner = MemoryStore()
    full = False
    store = FailingStore(inner, lambda s: base.StoreFull("disk full") if full and s == "delete" else None)
    box = outbox.Outbox(store, events_max=3)
    node = state.NodeState("edge-1", 1, store, box)
    full = True
    for n in range(6):
        node.commit({}, [pod("web", n)])
    assert box.pending == 6, "nothing is lost, the limit is held when the disk takes it"
    full = False
    node.commit({}, [pod("web", 6)])
    assert box.pending <= 3
    node.close()


class Hub:
    """Takes what is appended."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    async def append_bytes(self, subject: str, payload: bytes, msg_id: str) -> int:
        self.taken.append((codec.decode_event(payload).data or {})["status"]["n"])
        return len(self.taken)


async def test_a_node_with_a_full_disk_is_not_silent_and_says_nothing_old_after_the_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sent from memory while the disk is full; but what can't be removed from it would be sent again after a crash."""
    monkeypatch.setattr(state, "RETRY_S", 0.01)
    inner = MemoryStore()
    full = False
    store = FailingStore(inner, lambda s: base.StoreFull("disk full") if full and s == "commit" else None)
    box = outbox.Outbox(store)
    node = state.NodeState("edge-1", 1, store, box)
    node.commit({}, [pod("web", 1)])
    full = True
    hub = Hub()
    sending = asyncio.create_task(box.run(hub))

    async def until(taken: list[int]) -> None:
        async with asyncio.timeout(5):
            while hub.taken != taken:
                await asyncio.sleep(0.005)

    await until([1])
    node.commit({}, [pod("web", 2), pod("db", 3)])
    await until([1, 3])
    node.commit({}, [pod("db", 4)])
    await until([1, 3, 4])
    assert waiting(inner) == [(subjects.report("edge-1", "pod", 1, "default", "web"), 1)]
    assert box.pending == 1
    full = False
    await until([1, 3, 4, 2])
    async with asyncio.timeout(5):
        while box.pending or box.unclean:
            await asyncio.sleep(0.005)
    assert waiting(inner) == []
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    node.close()
