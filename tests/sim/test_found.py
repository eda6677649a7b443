"""What the simulation found, each as the shortest story of its own: seeds change their meaning when the simulation grows."""

from __future__ import annotations

from dataclasses import replace

from bus import fold, replica_core
from schemas import sync
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
    assert worlds.settle(slow, slow.handle(replace(behind, more=True)), cluster, meta) == []
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
