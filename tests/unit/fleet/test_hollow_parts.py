"""What a hollow fleet is made of, without a hub: its claims, its objects, its reports, its sums."""

from __future__ import annotations

from bus import fold
from bus.stores.memory import MemoryStore
from cloud.core import needs
from ops.fleet import __main__ as command
from ops.fleet import feed, fleet, minting, runtime, usage, wire, worker
from ops.fleet.node import HollowNode, entry_digest, sent_ns
from schemas import codec, event, reports, subjects

NODE = "hollow-000001"
NOW_US = 1_700_000_000_000_000


def _event(scope: str, key: subjects.ObjectKey, data: dict[str, object] | None, prev: int = 0) -> event.Event:
    ident = event.uuid7(NOW_US, bytes(10))
    return event.Event(
        id=ident, type=event.OBJECT_DELETED if data is None else event.OBJECT_APPLIED, scope=scope, group=key.group,
        resource=key.resource, namespace=key.namespace, name=key.name, uid="u", time=NOW_US, source="test@0", trace=ident,
        prev=prev, data=data,
    )  # fmt: skip


def test_the_dispatcher_sends_all_objects_of_a_node_to_it_and_only_them() -> None:
    made = dict(feed.objects(NODE, 10))
    needed = needs.of(feed.pod_key(NODE), made[feed.pod_key(NODE)])
    assert needed is not None and needed.scope == NODE
    assert {k for k in needed.keys if k.resource != "services"} == set(made)
    assert len(made) == 10


def test_a_pod_that_is_applied_is_reported_running_and_one_that_is_deleted_gone() -> None:
    key = feed.pod_key(NODE)
    told = runtime.pod_report(_event(NODE, key, feed.pod(NODE, 2)), NOW_US)
    gone = runtime.pod_report(_event(NODE, key, None), NOW_US)
    other = runtime.pod_report(_event(NODE, feed.map_key(NODE, 0), {}), NOW_US)
    assert told is not None and gone is not None and other is None
    assert isinstance(told.payload, reports.PodReport) and isinstance(gone.payload, reports.PodReport)
    assert told.payload.status is not None and told.payload.status["phase"] == "Running"
    assert [c["name"] for c in told.payload.status["containerStatuses"]] == ["app"]
    assert gone.payload.status is None
    assert codec.decode_as(reports.PodReport, codec.encode(told.payload)) == told.payload


def test_a_stamp_is_read_back_and_an_object_without_one_has_none() -> None:
    key = feed.map_key(NODE, 0)
    stamped = feed.config_map(key, 1, stamped=True)
    assert sent_ns(_event(NODE, key, stamped)) == int(stamped["metadata"]["annotations"]["fleet.skerry.io/sent"])
    assert sent_ns(_event(NODE, key, feed.config_map(key, 1, stamped=False))) is None
    assert sent_ns(_event(NODE, key, None)) is None


def test_digests_of_nodes_differ_by_node_by_key_and_by_sequence() -> None:
    key = fold.store_key(NODE, feed.map_key(NODE, 0))
    one = entry_digest("a", key, fold.store_value(1, b"x"))
    assert (
        len({one, entry_digest("b", key, fold.store_value(1, b"x")), entry_digest("a", key, fold.store_value(2, b"x"))}) == 3
    )
    node = HollowNode(0, "a", 4, beat_s=20, with_reports=False, applied=lambda _: None)
    assert isinstance(node.store, MemoryStore) and node.digest() == 0
    with node.store.transact() as txn:
        txn.put("objects", key, fold.store_value(1, b"x"))
    assert node.digest() == one


def test_the_crowd_may_speak_for_every_node_and_reaches_nothing_else() -> None:
    claims = minting.crowd_claims()
    assert set(claims["pub"]["allow"]) == {"sync.*.*", "report.>", "beat.*"}
    assert not [s for s in (*claims["pub"]["allow"], *claims["sub"]["allow"]) if s.startswith(("$", "meta", "cluster"))]


def test_wires_add_up_with_the_headers_of_their_packets() -> None:
    two = wire.Wire(10, 20, 3) + wire.Wire(1, 2, 1)
    assert (two, two - wire.Wire(1, 2, 1)) == (wire.Wire(11, 22, 4), wire.Wire(10, 20, 3))
    assert two.bytes == 33 + 4 * wire.PACKET_HEADER_BYTES


def test_a_process_that_is_gone_uses_nothing() -> None:
    import os

    assert usage.of(os.getpid()).rss > 1 << 20
    assert usage.of(2**22 + 1) == usage.Usage(0.0, 0)


def test_nodes_are_spread_over_as_many_processes_and_servers_as_their_connections_need() -> None:
    assert fleet.shares(1000, 1, 2) == [500, 500]
    assert fleet.shares(0, 1, 2) == []
    assert fleet.shares(3, 10, 8) == [1, 1, 1]
    many = fleet.shares(100_000, 1, 2)
    assert sum(many) == 100_000 and max(many) <= worker.NODES_MAX
    assert command.links(100_000, 30_000, 10) == 73_000
    assert command.links(25, None, 10) == 3
    assert [command.servers_for(n) for n in (1, 10_000, 20_000, 100_000)] == [1, 1, 3, 6]
