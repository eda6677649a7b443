"""A hub of three servers by the command: made, run, backed up, and brought back as one server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import log
from ops.cli import common
from ops.lab.world import World
from schemas import subjects
from tests.contract.bus import plain

pytestmark = pytest.mark.contract


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    w = World(tmp_path / "lab")
    try:
        yield w
    finally:
        w.processes.stop_all()
        for n in ("1", "2", "3"):
            w.skerry("hub", "stop", "--data", str(w.hub), "--server", n, check=False)


async def test_three_servers_by_the_command(world: World, tmp_path: Path) -> None:
    w = world
    ports = ("--port", "0", "--leaf-port", "0", "--websocket-port", "0", "--route-port", "0")
    three = ("--server", "127.0.0.1") * 3
    said = w.skerry("hub", "init", "--data", str(w.hub), "--listen", "127.0.0.1", "--shards", "1", *ports, *three)
    assert said.count("tls://127.0.0.1:") == 6
    for n in ("1", "2", "3"):
        w.start(f"hub-{n}", "hub", "run", "--data", str(w.hub), "--server", n)
    w.until("all streams", lambda: ": ok" in w.skerry("hub", "status", "--data", str(w.hub), check=False), seconds=60)
    async with common.hub_log(w.hub, "test") as (_, _, store):
        await store.append(subjects.cluster(plain.cm("a")), plain.make_event(plain.cm("a"), {"kind": "ConfigMap"}))
        assert (await store.info("CLUSTER")).replicas == 3
        w.processes.stop("hub-2")
        await _append(store, "b")  # two of three are a majority
    backup = tmp_path / "b.tar.gz"
    w.skerry("hub", "backup", str(backup), "--data", str(w.hub))
    w.processes.stop_all()
    w.skerry("hub", "restore", str(backup), "--data", str(tmp_path / "one"))
    one = World(tmp_path / "lab-one")
    try:
        one.start("hub", "hub", "run", "--data", str(tmp_path / "one"))
        where = str(tmp_path / "one")
        w.until("one server", lambda: ": ok" in one.skerry("hub", "status", "--data", where, check=False), seconds=60)
        async with common.hub_log(tmp_path / "one", "test") as (hub, _, store):
            assert hub.urls == [f"tls://127.0.0.1:{hub.file.ports.client}"]
            info = await store.info("CLUSTER")
            assert (info.replicas, info.last_seq) == (1, 2)
    finally:
        one.processes.stop_all()


async def _append(store: log.Log, name: str) -> None:
    ev = plain.make_event(plain.cm(name), {"kind": "ConfigMap"})
    while True:
        try:
            await store.append(subjects.cluster(plain.cm(name)), ev)
            return
        except log.LogUnavailable:
            continue
