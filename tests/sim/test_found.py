"""What the simulation found, each as the shortest story of its own: seeds change their meaning when the simulation grows."""

from __future__ import annotations

import pytest

from bus import fold, outbox, replica_core
from bus.stores import memory
from cloud.core import report_words, status
from cloud.core.reports import Reports
from cloud.core.writes import Write
from edge import state, told
from schemas import codec, event, sync
from schemas.subjects import ObjectKey
from tests.unit.cloud_core import worlds


def _page(**how: object) -> sync.ScopePage:
    return sync.ScopePage.model_validate({"scope": "n", "epoch": "e1", "up_to": 5} | how)


def test_synced_is_told_when_the_store_failed_the_first_time() -> None:
    core = replica_core.ReplicaCore({"n": fold.Cursor()})
    core.handle(replica_core.Connected())
    told = core.handle(replica_core.Answered([_page()]))
    assert replica_core.Synced() in told  # and dropped: the transaction before it failed
    core.handle(replica_core.Lost({"n": fold.Cursor()}))
    assert replica_core.Synced() in core.handle(replica_core.Answered([_page()]))


def test_an_append_of_a_dead_dispatcher_that_lands_late_is_undone() -> None:
    cluster, meta = worlds.Cluster(), worlds.Meta()
    first, work = worlds.start(cluster, meta)
    worlds.settle(first, work, cluster, meta)
    pod = worlds.pod("p", "n1")
    late = [i for i in first.handle(cluster.apply(pod)) if isinstance(i, worlds.stimuli.Append)]
    cluster.apply(pod, deleted=True)
    second, work = worlds.start(cluster, meta)  # its successor: nothing to do, nothing to conflict with
    assert worlds.settle(second, work, cluster, meta) == []
    seq = meta.append(late[0])
    assert seq is not None
    work = second.handle(worlds.stimuli.MetaEvent(seq, "n1", late[0].key, None))
    worlds.settle(second, work, cluster, meta)
    assert meta.holds("n1") == {}


def test_a_dispatcher_that_lags_does_not_decide_between_two_kept_versions() -> None:
    cluster, meta = worlds.Cluster(), worlds.Meta()
    pod = worlds.pod("p", "n1")
    cluster.apply(pod)
    slow, work = worlds.start(cluster, meta)
    worlds.settle(slow, work, cluster, meta)
    newer = pod | {"metadata": pod["metadata"] | {"labels": {"turn": "2"}}}
    cluster.apply(newer)  # read and written by another dispatcher, and then no longer kept
    other, work = worlds.start(cluster, meta)
    worlds.settle(other, work, cluster, meta)
    behind = cluster.apply(worlds.thing("ConfigMap", "c"))
    work = slow.handle(worlds.stimuli.MetaEvent(meta.seq, "n1", worlds.key("Pod", "p"), None))
    assert worlds.settle(slow, work, cluster, meta) == []  # read again: it waits for CLUSTER as it is now
    last = cluster.apply(newer | {"status": {"phase": "Running"}})
    assert worlds.settle(slow, slow.handle(behind._replace(more=True)), cluster, meta) == []
    assert worlds.settle(slow, slow.handle(last), cluster, meta) == []
    assert meta.holds("n1")[worlds.key("Pod", "p")]["metadata"]["labels"] == {"turn": "2"}


def test_a_page_of_a_reset_that_was_given_up_does_not_pass_for_the_whole() -> None:
    """The link came back while the answer to the question before was on its way into the same batch."""
    core = replica_core.ReplicaCore({"n": fold.Cursor()})
    core.handle(replica_core.Connected())
    asks = core.handle(replica_core.Answered([_page(more=True)], [sync.ScopeCursor(scope="n")]))
    second = next(i for i in asks if isinstance(i, replica_core.Ask))
    assert core.handle(replica_core.Connected()) == [replica_core.Ask([sync.ScopeCursor(scope="n")])]
    assert core.handle(replica_core.Answered([_page(up_to=9)], second.cursors)) == []
    assert core.cursor("n") == fold.Cursor()


def test_a_live_event_of_another_log_does_not_go_on_from_our_cursor() -> None:
    """A restored log gives numbers again: its next event fit onto the cursor of the lost one."""
    key = worlds.key("ConfigMap", "c")
    ev = worlds.event(worlds.thing("ConfigMap", "c"), 6, scope="n", rev=6).model_copy(update={"prev": 5})
    payload = codec.encode_event(ev)
    for epoch, applied in (("e1", True), ("e2", False)):
        core = replica_core.ReplicaCore({"n": fold.Cursor()})
        core.handle(replica_core.Connected())
        core.handle(replica_core.Answered([_page()]))
        told = core.handle(replica_core.Live("n", key, 6, payload, epoch))
        assert [type(i) for i in told] == [replica_core.Apply if applied else replica_core.Ask]


def test_a_deleted_node_comes_back_by_a_later_report_whatever_the_clocks_say() -> None:
    core = _reports_of_a_node(boot="m1")
    gone = report_words.ApiEvent(2, _NODE, None, time_us=T + 9_000_000)  # by a clock that is set back afterwards
    core.handle(report_words.WriteConflict(_NODE))  # of the status that was under way
    core.handle(gone)
    told = core.handle(report_words.Reported(2, _said("node", "m1"), time_us=T + 1))
    assert [w.verb for w in told if isinstance(w, Write)] == ["create"]


def test_who_spoke_for_a_node_is_known() -> None:
    """A clone's words stayed in the API after it was gone: the true node had nothing new to say."""
    core = _reports_of_a_node(boot="m1")
    assert not core.spoken_for("n", "m1")
    core.handle(report_words.Reported(2, _said("node", "m2"), time_us=T + 1))
    assert core.spoken_for("n", "m1") and not core.spoken_for("n", "m2")


def test_a_scope_whose_last_event_is_no_longer_kept_is_written_to() -> None:
    """Reading a scope again for an event that a compaction had taken out went on for ever."""
    cluster, meta = worlds.Cluster(), worlds.Meta()
    cluster.apply(worlds.pod("p", "n1"))
    core, work = worlds.start(cluster, meta)
    worlds.settle(core, work, cluster, meta)
    core.handle(worlds.stimuli.MetaEvent(99, "n1", worlds.key("Pod", "q"), None))
    head = max(e.seq for e in meta.of("n1"))
    out = core.handle(worlds.stimuli.ScopeReloaded("n1", meta.of("n1"), cluster.seq, head, up_to=99))
    assert out == [] and core.idle


def test_events_are_heard_after_the_clock_of_the_log_was_set_back() -> None:
    """What a node may tell was counted by times of the log: set back by hours, every Event was refused for hours."""
    core = _reports_of_a_node(boot="m1")
    told = [
        core.handle(report_words.Reported(2 + n, _event(n), T + off)) for n, off in enumerate((0, -5 * 3600 * 1_000_000))
    ]
    assert not [i for out in told for i in out if isinstance(i, report_words.Complain)]


@pytest.mark.parametrize("before", [None, b"e1"], ids=["a new store", "a store that another log knows"])
def test_a_node_says_everything_to_a_log_that_may_not_have_heard_it(before: bytes | None) -> None:
    """A node with an empty store said how it is, the hub was restored to before that, and then it was synced: it thought
    that whatever it had said was heard by the log that it saw first."""
    store = memory.MemoryStore()
    if before is not None:
        with store.transact() as txn:
            txn.put("state", told.KEY, before)
    node, said = state.NodeState("n", 1, store, outbox.Outbox(store)), []
    for mark in (b"e2", b"e2"):
        told.told_to(node, mark, said.append)
    assert len(said) == 1 and store.get("state", told.KEY) == b"e2"
    told.told_to(state.NodeState("n", 1, store, outbox.Outbox(store)), b"e3", said.append)
    assert len(said) == 2


T = 1_790_000_000_000_000
_NODE = ObjectKey("", "nodes", "", "n")


def _said(kind: str, boot: str) -> event.Event:
    ident = event.uuid7(T, bytes(10))
    data = {"status": {}, "ready": True, "boot": boot}
    return event.Event(
        id=ident, type=event.REPORT, scope="n", resource=kind, name="", time=T, boot=boot, source="t", trace=ident, data=data
    )


def _event(n: int) -> event.Event:
    ident = event.uuid7(T + n, bytes(10))
    involved = {"apiVersion": "v1", "kind": "Node", "name": "n", "namespace": "", "uid": ""}
    said = {"involved": involved, "type": "Normal", "reason": f"R{n}", "message": "m", "count": 1, "first": T, "last": T}
    return event.Event(
        id=ident, type=event.REPORT, scope="n", resource="event", namespace="default", name=f"e{n}", time=T, boot="m1",
        source="t", trace=ident, data=said,
    )  # fmt: skip


def _reports_of_a_node(boot: str) -> Reports:
    core = Reports()
    core.handle(report_words.ApiEvent(1, _NODE, status.new_node("n"), T))
    core.handle(report_words.Reported(1, _said("node", boot), T))
    core.handle(report_words.Loaded(T))
    return core
