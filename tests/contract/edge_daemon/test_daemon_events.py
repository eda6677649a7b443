"""Events that nobody should have written, put straight into META: refused with subject, sequence and reason, counted, and
the node goes on; nothing of them is left once the dispatcher has looked."""

from __future__ import annotations

import shutil

import pytest

from bus import log, stamp
from ops.lab.nodes import Lab
from schemas import codec, event, subjects

pytestmark = pytest.mark.contract


FUTURE = "event version 900"
WRONG = ("not a msgpack document", "Field required", "came as", "is not")


def _key(pod: str) -> subjects.ObjectKey:
    return subjects.ObjectKey("", "pods", "default", pod)


async def _inject(store: log.Log, node: str, shards: int, what: str) -> int:
    """Its sequence.  One at a time: the dispatcher writes over each at once, and a node that is catching up meanwhile
    would never see it."""
    stream = f"META-{subjects.shard_of(node, shards)}"
    a, b, ghost = (subjects.meta(node, _key(p), shards) for p in ("a", "b", "ghost"))
    last = await store.last_of(stream, a)
    assert last is not None
    append, new = store.append_bytes, stamp.new_id
    wrong_grammar = ".".join(a.split(".")[:4])
    future = {"v": 900, "id": new(), "what": "nobody knows yet"}
    subject, payload = {
        "not a msgpack document": (a, b"\xc1 junk"),
        "Field required": (ghost, codec.pack({"hello": 1})),
        "came as": (b, last.payload),  # pod a's event, on pod b's subject
        "is not": (wrong_grammar, last.payload),
        FUTURE: (subjects.meta(node, _key("future"), shards), codec.pack(future)),
    }[what]
    return await append(subject, payload, new())


def test_malformed_and_foreign_events_are_refused_and_the_node_goes_on(lab: Lab, node: str) -> None:
    lab.restart_daemon(node)  # counters since the start of the process
    assert lab.in_sync(node)["replica"]["refused"] == 0
    before = lab.containers(node)
    refused: list[tuple[str, int]] = []
    for reason in WRONG:
        refused.append((reason, lab.ask(lambda store, shards, what=reason: _inject(store, node, shards, what))))
        status = lab.until(
            f"refused: {reason}",
            lambda: s if (s := lab.node_status(node)["replica"])["refused"] >= len(refused) and s["synced"] else None,
        )
    lab.ask(lambda store, shards: _inject(store, node, shards, FUTURE))
    said = lab.log_of(node)
    for reason, seq in refused:
        line = next(x for x in said.splitlines() if "replica.event.refused" in x and f'"seq": {seq},' in x)
        assert reason in line
        assert '"about": ' in line
    assert any(f"{node} #{seq} " in status["last_refused"] for _, seq in refused)
    assert "refused 4: " in lab.skerry("edge", "status", "--data", str(lab.node_dir(node)))
    lab.untouched(node, before)

    lab.pod(node, "after")  # the log of this node is written and applied as ever
    lab.runs(node, "after")
    status = lab.in_sync(node)
    assert status["replica"]["refused"] == len(refused)  # each once, however often a catch-up shows it
    lab.untouched(node, before)

    # The dispatcher has written over them: a node that must learn everything anew learns the right things.
    lab.processes.kill_9(node)
    shutil.rmtree(lab.node_dir(node) / "store")
    lab.start_daemon(node)
    lab.answers(node)
    lab.in_sync(node)
    lab.untouched(node, before)
    lab.delete("after")
    lab.gone(node, "after")
    assert event.OBJECT_DELETED in lab.skerry("replay", "log", "pods/after", "--hub", str(lab.hub), "--json")
