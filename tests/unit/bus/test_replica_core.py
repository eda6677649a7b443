"""The replica's decisions: the chain, the buffer, pages, resets.  No I/O, microseconds."""

from __future__ import annotations

import dataclasses
import random

from bus import fold, log
from bus import replica_core as core
from cloud import sync as sync_service
from schemas import codec, event, subjects, sync

EPOCH = "e1"


def key(name: str) -> subjects.ObjectKey:
    return subjects.ObjectKey("", "configmaps", "default", name)


def payload(name: str, prev: int, n: int | None, scope: str = "edge-1") -> bytes:
    i = event.uuid7(1, bytes(10))
    kind = event.OBJECT_APPLIED if n is not None else event.OBJECT_DELETED
    data = {"n": n} if n is not None else None
    return codec.encode_event(
        event.Event(
            id=i, type=kind, scope=scope, resource="configmaps", namespace="default", name=name, time=1, source="t",
            trace=i, prev=prev, data=data,
        )
    )  # fmt: skip


class Hub:
    """A scope's stream: what the log would hold, with other scopes' sequences between."""

    def __init__(self, epoch: str = EPOCH) -> None:
        self.epoch, self.seq, self.head = epoch, 0, 0
        self.events: list[tuple[int, str, bytes]] = []

    def put(self, name: str, n: int | None, skip: int = 0) -> core.Live:
        self.seq += 1 + skip
        data = payload(name, self.head, n)
        self.events.append((self.seq, name, data))
        self.head = self.seq
        return core.Live("edge-1", key(name), self.seq, data)

    def page(self, asked: sync.ScopeCursor, limit: int = 1000) -> sync.ScopePage:
        reset = asked.epoch != self.epoch or asked.cursor > self.seq
        after = 0 if reset else asked.cursor
        last = {name: (s, d) for s, name, d in self.events}
        found = sorted((s, name, d) for name, (s, d) in last.items() if s > after)
        cut, more = found[:limit], len(found) > limit
        rows = [sync.SyncEvent(seq=s, subject=f"edge-1.{key(n).tokens()}", event=d) for s, n, d in cut]
        up_to = cut[-1][0] if more else self.seq
        return sync.ScopePage(
            scope="edge-1", epoch=self.epoch, up_to=up_to, more=more, reset=reset and asked.epoch != "", events=rows
        )

    def fold(self) -> dict[bytes, bytes]:
        return fold.fold(fold.fact_of("edge-1", key(n), s, d) for s, n, d in self.events)


class Node:
    """Executes instructions on a dict, and keeps what a crash would keep."""

    def __init__(self) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.staged: dict[subjects.ObjectKey, fold.Fact] = {}
        self.cursor = fold.Cursor()
        self.restart()
        self.asked: core.Ask | None = None
        self.synced = 0
        self.refused: list[core.Refuse] = []

    def restart(self) -> None:
        self.core = core.ReplicaCore({"edge-1": self.cursor})
        self.asked = None

    def give(self, stimulus: core.Stimulus) -> None:
        for i in self.core.handle(stimulus):
            match i:
                case core.Apply(_, facts, cursor):
                    assert [f.seq for f in facts] == sorted({f.seq for f in facts})
                    assert all(f.seq > self.cursor.seq for f in facts), "each sequence once"
                    self._put(self.objects, facts)
                    self.cursor = cursor
                case core.Stage(_, facts, first):
                    if first:
                        self.staged = {}
                    self.staged |= {f.key: f for f in facts}
                case core.Finish(_, cursor, sweep):
                    if sweep:
                        self.objects = {}
                    self._put(self.objects, sorted(self.staged.values(), key=lambda f: f.seq))
                    self.staged, self.cursor = {}, cursor
                case core.Ask():
                    assert self.asked is None, "one request at a time"
                    self.asked = i
                case core.Synced():
                    self.synced += 1
                case core.Refuse():
                    self.refused.append(i)

    @staticmethod
    def _put(table: dict[bytes, bytes], facts: list[fold.Fact]) -> None:
        for f in facts:
            k = fold.store_key(f.scope, f.key)
            if f.deleted:
                table.pop(k, None)
            else:
                table[k] = fold.store_value(f.seq, f.payload)

    def answer(self, hub: Hub, limit: int = 1000) -> None:
        assert self.asked is not None
        pages = [hub.page(c, limit) for c in self.asked.cursors]
        self.asked = None
        self.give(core.Answered(pages))


def test_connects_asks_and_is_synced() -> None:
    hub, node = Hub(), Node()
    hub.put("a", 1)
    node.give(core.Connected())
    assert not node.core.synced
    node.answer(hub)
    assert node.synced == 1 and node.core.synced and node.objects == hub.fold()
    assert node.cursor == fold.Cursor(EPOCH, 1)


def test_live_events_in_chain_are_applied_without_asking() -> None:
    hub, node = Hub(), Node()
    node.give(core.Connected())
    node.answer(hub)
    for n in range(5):
        node.give(hub.put("a", n, skip=3))
    assert node.asked is None and node.objects == hub.fold() and node.cursor.seq == hub.seq


def test_a_gap_asks_once_and_is_repaired() -> None:
    hub, node = Hub(), Node()
    node.give(core.Connected())
    node.answer(hub)
    hub.put("a", 1)
    node.give(hub.put("b", 2))
    node.give(hub.put("c", 3))
    assert node.asked is not None and node.objects == {}
    node.answer(hub)
    assert node.asked is None and node.objects == hub.fold()


def test_live_events_while_syncing_are_kept_and_follow_the_page() -> None:
    hub, node = Hub(), Node()
    hub.put("a", 1)
    node.give(core.Connected())
    assert node.asked is not None
    page = hub.page(node.asked.cursors[0])
    node.give(hub.put("b", 2))
    node.give(hub.put("a", None))
    node.asked = None
    node.give(core.Answered([page]))
    assert node.asked is None and node.objects == hub.fold()


def test_a_live_event_repeated_or_late_changes_nothing() -> None:
    hub, node = Hub(), Node()
    node.give(core.Connected())
    node.answer(hub)
    old = hub.put("a", 1)
    node.give(old)
    node.give(hub.put("a", 2))
    node.give(old)
    assert node.objects == hub.fold() and node.asked is None


def test_pages_until_there_is_no_more() -> None:
    hub, node = Hub(), Node()
    for i in range(25):
        hub.put(f"n{i}", i)
    node.give(core.Connected())
    for _ in range(3):
        assert node.synced == 0 and node.objects == {}, "a reset shows nothing before it is whole"
        node.answer(hub, 10)
    assert node.synced == 1 and node.objects == hub.fold()


def test_at_every_page_of_a_long_catch_up_the_replica_is_the_fold_up_to_its_cursor() -> None:
    hub, node = Hub(), Node()
    for i in range(20):
        hub.put(f"n{i}", i)
    node.give(core.Connected())
    node.answer(hub)
    node.give(core.Disconnected())
    for i in range(40):
        hub.put(f"n{(i * 7) % 20}", None if i % 9 == 0 else 100 + i)
    node.give(core.Connected())
    pages = 0
    while node.asked is not None:
        node.answer(hub, 5)
        pages += 1
        upto = [e for e in hub.events if e[0] <= node.cursor.seq]
        assert node.objects == fold.fold(fold.fact_of("edge-1", key(n), s, d) for s, n, d in upto)
    assert pages > 2 and node.objects == hub.fold()


def test_another_epoch_resets_and_sweeps() -> None:
    hub, node = Hub(), Node()
    for i in range(9):
        hub.put(f"n{i}", i)
    node.give(core.Connected())
    node.answer(hub)
    restored = Hub("e2")
    restored.put("n1", 100)
    node.give(core.Disconnected())
    node.give(core.Connected())
    node.answer(restored)
    assert node.objects == restored.fold() and node.cursor == fold.Cursor("e2", 1)


def test_a_crash_in_the_middle_of_a_reset_begins_it_again() -> None:
    hub, node = Hub(), Node()
    for i in range(9):
        hub.put(f"n{i}", i)
    node.give(core.Connected())
    node.answer(hub, 4)
    node.restart()
    node.give(core.Connected())
    while node.asked:
        node.answer(hub, 4)
    assert node.objects == hub.fold()


def test_a_failed_question_in_the_middle_of_a_reset_goes_on_where_it_was() -> None:
    hub, node = Hub(), Node()
    for i in range(9):
        hub.put(f"n{i}", i)
    node.give(core.Connected())
    node.answer(hub, 4)
    node.asked = None
    node.give(core.Failed())
    assert node.asked is not None and node.asked.cursors[0].cursor == 4
    while node.asked:
        node.answer(hub, 4)
    assert node.objects == hub.fold() and node.cursor.seq == hub.seq


def test_a_cursor_ahead_of_the_log_resets() -> None:
    hub, node = Hub(), Node()
    for i in range(9):
        hub.put(f"n{i}", i)
    node.give(core.Connected())
    node.answer(hub)
    del hub.events[5:]
    hub.seq = hub.head = hub.events[-1][0]
    node.give(core.Disconnected())
    node.give(core.Connected())
    node.answer(hub)
    assert node.objects == hub.fold() and node.cursor.seq == hub.seq


def test_junk_in_a_page_is_refused_and_passed() -> None:
    hub, node = Hub(), Node()
    hub.put("a", 1)
    hub.seq += 1
    hub.events.append((hub.seq, "junk", b"\xc1"))
    hub.head = hub.seq
    hub.put("b", 2)
    node.give(core.Connected())
    node.answer(hub)
    assert [(r.seq, r.about.rpartition(".")[2]) for r in node.refused] == [(2, "junk")]
    assert node.cursor.seq == 3 and len(node.objects) == 2


def test_a_failed_transaction_forgets_and_asks_again() -> None:
    hub, node = Hub(), Node()
    node.give(core.Connected())
    node.answer(hub)
    kept = node.cursor
    live = hub.put("a", 1)
    node.core.handle(live)  # the rim could not commit this
    node.give(core.Lost({"edge-1": kept}))
    assert node.asked is not None and not node.asked.soon
    node.answer(hub)
    assert node.objects == hub.fold()


def test_any_interleaving_of_losses_crashes_and_pages_ends_in_the_fold() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        hub, node = Hub(), Node()
        node.give(core.Connected())
        in_flight: list[core.Live] = []
        answers: list[list[sync.ScopePage]] = []
        for step in range(60):
            match rng.randrange(9):
                case 0 | 1 | 2:
                    value = None if rng.random() < 0.3 else step
                    in_flight.append(hub.put(f"n{rng.randrange(6)}", value, skip=rng.randrange(3)))
                case 3 | 4 if in_flight:
                    live = in_flight.pop(0)
                    if rng.random() < 0.7:
                        node.give(live)
                    if rng.random() < 0.1:
                        node.give(live)
                case 5 if node.asked is not None:
                    answers.append([hub.page(c, rng.choice((2, 100))) for c in node.asked.cursors])
                    node.asked = None
                case 6 if answers:
                    node.give(core.Answered(answers.pop()))
                case 7 if rng.random() < 0.3:
                    node.restart()
                    answers.clear()
                    in_flight.clear()
                    node.give(core.Connected())
                case 8:
                    node.give(
                        rng.choice((core.Refresh(), core.Failed())) if not answers and node.asked is None else core.Refresh()
                    )
        node.give(core.Disconnected())
        node.asked = None
        node.give(core.Connected())
        while node.asked is not None:
            node.answer(hub)
        assert node.objects == hub.fold(), f"seed {seed}"
        assert node.cursor.seq == hub.seq or not hub.events, f"seed {seed}"


def test_a_long_reset_passes_the_horizon_and_begins_anew_when_that_was_raised_meanwhile() -> None:
    hub = Hub()
    for n in range(9):
        hub.put(f"o{n}", n)
    info = log.StreamInfo("META-0", EPOCH, 8, 1, hub.seq, hub.seq, 0)  # what is below 8 was compacted
    node = core.ReplicaCore({"edge-1": fold.Cursor(EPOCH, 3)})  # away for longer

    def answered(ask: core.Instruction, limit: int = 3) -> list[core.Instruction]:
        assert isinstance(ask, core.Ask)
        (asked,) = ask.cursors
        anew = sync_service.starts_anew(asked, info)
        page = hub.page(asked.model_copy(update={"cursor": 0}) if anew else asked, limit)
        return node.handle(core.Answered([page.model_copy(update={"reset": anew, "horizon": info.horizon})], ask.cursors))

    out = node.handle(core.Connected())
    for _ in range(3):
        out = answered(out[-1])
    assert any(isinstance(i, core.Finish) and i.sweep for i in out) and node.cursor("edge-1").seq == 9, (
        "three pages, no loop"
    )

    node = core.ReplicaCore({"edge-1": fold.Cursor(EPOCH, 3)})
    out = answered(node.handle(core.Connected())[-1])
    assert isinstance(out[0], core.Stage) and out[0].first and [f.key.name for f in out[0].facts] == ["o0", "o1", "o2"]
    hub.put("o1", None)
    hub.put("head", 1)
    hub.events = [e for e in hub.events if e[1] != "o1"]  # its tombstone too: the horizon is above it
    info = dataclasses.replace(info, horizon=11, last_seq=hub.seq)
    out = answered(out[-1], limit=100)
    assert isinstance(out[0], core.Stage) and out[0].first, "what was read under the old horizon is put away"
    assert "o1" not in [f.key.name for f in out[0].facts] and node.cursor("edge-1").seq == hub.seq
