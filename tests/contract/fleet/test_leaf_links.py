"""Hollow nodes behind leaf links: the hub sees of one what it sees of a node with a leaf server, and it syncs through it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bus import connect, replica
from bus.stores import memory
from ops.fleet import feed, truth
from schemas import subjects, tunnel
from tests.contract.fleet.test_hollow_fleet import cloud, running
from tests.contract.hub_fixture import RunningHub, hub
from tests.contract.node_fixture import join_service, running_node

__all__ = ["hub"]
pytestmark = pytest.mark.contract

REAL = "real-1"
HOLLOW = "hollow-000000"


async def links(hub: RunningHub) -> dict[str, dict[str, Any]]:
    """What the server says of its leaf links, by the node that the leaf's name begins with."""
    found = await connect.connect(
        connect.ConnectSettings(tuple(hub.hub.urls), "sys", credentials=hub.hub.sys_creds, ca=hub.hub.ca_path)
    )
    try:
        asked = json.dumps({"subscriptions": True}).encode()
        answer = await found.request("$SYS.REQ.SERVER.PING.LEAFZ", asked, timeout_s=30)
    finally:
        await found.close()
    found_links = json.loads(answer.data)["data"]["leafs"]
    return {re.sub(r"^leaf-|-[0-9a-f]{20}$", "", x["name"]): x for x in found_links}


def interest(link: dict[str, Any], node: str) -> set[str]:
    """Subjects without the node's name and what is random in them."""
    forms = {
        rf"\.{node}\.": ".N.", r"\$LDS\..*": "$LDS", r"^_INBOX\.N\..*": "_INBOX.N", r"^up\.N\.\w+\.": "up.N.LIFE.",
    }  # fmt: skip
    out = set()
    for subject in link["subscriptions_list"]:
        for pattern, to in forms.items():
            subject = re.sub(pattern, to, subject)
        out.add(subject)
    # The hub's own consumer on a leaf that has telemetry: interest of the hub's side of the link, per device node.
    return {s for s in out if not s.startswith("$JS.FC.")}


async def test_a_hollow_leaf_link_is_to_the_hub_what_a_real_one_is(hub: RunningHub, tmp_path: Path) -> None:
    async with (
        join_service(hub),
        running_node(hub, tmp_path / "real", REAL) as real,
        cloud(hub),
        running(hub, tmp_path / "fleet", leafs=True) as nodes,
    ):
        parts = replica.Replica(REAL, [REAL, "all"], memory.MemoryStore(), on_change=lambda _: None)
        await parts.attach(real.daemon)
        for subject in (
            subjects.command(REAL, "beat"),
            subjects.command(REAL, tunnel.TUNNEL),
            subjects.tunnels_down(REAL),
            f"{subjects.inbox(REAL)}.random.*",
        ):
            await real.daemon.subscribe(subject, _nothing)
        await nodes.connect()
        deadline = time.monotonic() + 60
        while True:
            found = await links(hub)
            two = [interest(found.get(n, {"subscriptions_list": []}), n) for n in (REAL, HOLLOW)]
            if (two[0] == two[1] and len(two[0]) >= 9) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        assert two[0] == two[1]
        facts = ("is_spoke", "is_isolated", "account")
        assert [found[REAL].get(k) for k in facts] == [found[HOLLOW].get(k) for k in facts]


async def test_nodes_behind_leaf_links_converge_and_come_back(hub: RunningHub, tmp_path: Path) -> None:
    feeding = feed.Feed(hub.log, hub.hub.shards, cluster=False)
    async with cloud(hub), running(hub, tmp_path / "fleet", leafs=True) as nodes:
        await feeding.load(nodes.names, 3)
        await nodes.connect()
        await nodes.settle(seconds=60)
        await feeding.changes(nodes.names, 3, rate=100, seconds=0.3)
        assert len(await nodes.told(30, 30)) == 30
        since = time.monotonic()
        await nodes.ask("cut")
        await feeding.change_share(nodes.names, 3, 0.5)
        await nodes.settle(since=since, seconds=60)
        digest, objects = await truth.digest(hub.log, hub.hub.shards, nodes.names)
        assert await nodes.holds(objects, digest, 60)
        assert len(await links(hub)) == nodes.count


async def _nothing(_: connect.Message) -> None:
    pass
