"""The bridge through an API server that fails: cuts, 410, lost events, conflicts, slow lists, and restarts of both."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bus.kube.storage import Origin, Stored
from cloud.bridge.client import PAGE_OBJECTS
from schemas.subjects import ObjectKey
from tests.contract.bridge import faults
from tests.contract.bridge.worlds import NODE, POD, World, cm, mounting, pods, secret, until
from tests.contract.kube_served import served

pytestmark = pytest.mark.contract


async def edge_with_a_pod(world: World) -> dict[str, Any]:
    await world.node()
    await world.config_map("mine", k="1")
    return await world.pod(**mounting("mine"))


async def test_cut_watches_go_on_where_they_were(world: World) -> None:
    await edge_with_a_pod(world)
    async with world.bridge() as bridge:
        assert bridge.mirror is not None
        mirror = bridge.mirror
        await until(lambda: world.proxy.watches == world.sources)
        lists = mirror.stats.lists
        for n in range(3):
            world.proxy.cut()
            await world.pod(f"new-{n}", **mounting("mine"))
            await world.set_config_map("mine", k=str(n))
            names = [f"new-{i}" for i in range(n + 1)]
            await until(lambda names=names: world.agrees([NODE, cm("mine"), *pods("p", *names)]))
        assert mirror.stats.lists == lists, "nothing was listed again"


async def test_a_revision_that_is_too_old_is_listed_again_and_only_differences_are_written(world: World) -> None:
    made = await edge_with_a_pod(world)
    await world.pod("goes")
    refused = asyncio.Event()

    async def gone(request: web.Request) -> web.StreamResponse | None:
        if request.query.get("watch") == "1" and not refused.is_set():
            return faults.status(410, "Expired")
        return None

    async with world.bridge() as bridge:
        assert bridge.mirror is not None
        mirror = bridge.mirror
        await until(lambda: world.agrees([NODE, cm("mine"), *pods("p", "goes")]))
        before, written = await world.versions(), mirror.stats.written
        world.proxy.rules.append(gone)
        world.proxy.cut()
        lists = mirror.stats.lists
        await world.cluster.storage.delete(pods("goes")[0], _at(world, pods("goes")[0]).rev, Origin("test"))
        await world.pod("comes")
        await until(lambda: world.agrees([NODE, cm("mine"), *pods("p", "comes")]))
        await until(lambda: mirror.stats.lists >= lists + world.sources)
        refused.set()
        await until(lambda: world.proxy.watches == world.sources)
        assert (await world.versions() - before, mirror.stats.written - written) == (2, 1)
        assert _at(world, POD).object["metadata"]["uid"] == made["metadata"]["uid"]


async def test_an_error_event_410_is_a_410(world: World) -> None:
    await edge_with_a_pod(world)
    said = []

    async def gone(request: web.Request) -> web.StreamResponse | None:
        if request.query.get("watch") != "1" or request.path in said:
            return None
        said.append(request.path)
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "m"}
        return web.Response(text=json.dumps({"type": "ERROR", "object": body}) + "\n", content_type="application/json")

    world.proxy.rules.append(gone)
    async with world.bridge():
        await until(lambda: world.proxy.watches == world.sources)
        await world.pod("late")
        await until(lambda: world.agrees([NODE, cm("mine"), *pods("p", "late")]))


async def test_events_that_a_watch_loses_are_found_by_the_next_list(world: World) -> None:
    await edge_with_a_pod(world)
    lost = []

    def swallow(event: dict[str, Any]) -> bool:
        if event["type"] == "BOOKMARK":
            return False
        lost.append(event["type"])
        return True

    async with world.bridge(resync_s=1.0):
        await until(lambda: world.agrees([NODE, cm("mine"), POD]))
        world.proxy.swallow = swallow
        await world.set_config_map("mine", k="2")
        await world.pod("new")
        await until(lambda: world.agrees([NODE, cm("mine"), *pods("p", "new")]))
        await world.cluster.storage.delete(POD, _at(world, POD).rev, Origin("test"))
        await until(lambda: world.agrees([NODE, *pods("new")]))
        assert {"ADDED", "MODIFIED", "DELETED"} <= set(lost)


async def test_a_restart_writes_what_changed_meanwhile_and_nothing_else(world: World) -> None:
    await edge_with_a_pod(world)
    await world.pod("goes")
    async with world.bridge():
        await until(lambda: world.agrees([NODE, cm("mine"), *pods("p", "goes")]))
    before = await world.versions()
    async with world.bridge():
        assert world.agrees([NODE, cm("mine"), *pods("p", "goes")])
    assert await world.versions() == before, "nothing changed"
    await world.set_config_map("mine", k="2")
    await world.cluster.storage.delete(pods("goes")[0], _at(world, pods("goes")[0]).rev, Origin("test"))
    async with world.bridge():
        assert world.agrees([NODE, cm("mine"), POD])
        assert await world.versions() == before + 2


async def test_killed_in_the_middle_of_its_first_list(world: World) -> None:
    await world.node()
    for n in range(40):
        await world.config_map(f"c-{n}")
        await world.pod(f"p-{n}", **mounting(f"c-{n}"))
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_end_after(world, 20))
            async with world.bridge():
                pass
    whole = 1 + 40 + 40 + 1  # the node, config maps, pods, and the pods' account
    assert 20 <= await world.versions() < whole
    async with world.bridge():
        assert world.agrees([NODE, *(cm(f"c-{n}") for n in range(40)), *pods(*(f"p-{n}" for n in range(40)))])
        assert await world.versions() == whole, "each of them was written once"


async def test_an_api_server_that_restarts(world: World) -> None:
    made = await edge_with_a_pod(world)
    async with world.bridge() as bridge:
        await until(lambda: world.proxy.watches == world.sources)
        await world.proxy.down()
        await world.pod("meanwhile")
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await world.report("pod", {"uid": made["metadata"]["uid"], "status": status}, "p")
        assert bridge.reports is not None
        worker = bridge.reports
        await until(lambda: worker.stats.failures > 0)
        await world.proxy.up()
        await until(lambda: (_at(world, POD).object.get("status") or {}).get("phase") == "Running")
        await until(lambda: world.agrees([NODE, cm("mine"), *pods("p", "meanwhile")]))


async def test_a_cluster_that_was_restored_from_an_old_backup(world: World, tmp_path: Path) -> None:
    """Its revisions are smaller than those that were mirrored, and it is followed all the same."""
    await edge_with_a_pod(world)
    await world.pod("not-in-the-backup")
    for n in range(30):
        await world.set_config_map("mine", k=str(n))
    async with world.bridge(), served(tmp_path / "old") as old:
        assert world.agrees([NODE, cm("mine"), *pods("p", "not-in-the-backup")])
        newest = world.cluster.storage.revision()
        await world.proxy.down()
        world.cluster, world.proxy.upstream = old, old.url
        await edge_with_a_pod(world)
        assert old.storage.revision() < newest
        await world.proxy.up()
        await until(lambda: world.agrees([NODE, cm("mine"), POD]))
        await world.set_config_map("mine", k="after")
        await until(lambda: world.agrees([NODE, cm("mine"), POD]))
        assert old.storage.revision() < newest


async def test_conflicts_are_read_again_and_settled(world: World) -> None:
    made = await edge_with_a_pod(world)
    refusals = 3

    async def conflict(request: web.Request) -> web.StreamResponse | None:
        """Somebody else changes the pod just before each of the first writes."""
        nonlocal refusals
        if request.method != "PUT" or not request.path.endswith("/pods/p/status") or not refusals:
            return None
        refusals -= 1
        now = await world.cluster.api.get("", "pods", "default", "p")
        now["metadata"]["labels"] = {"n": str(refusals)}
        await world.cluster.api.update("", "pods", "default", "p", now, how=world.cluster.how())
        return None

    async with world.bridge() as bridge:
        world.proxy.rules.append(conflict)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await world.report("pod", {"uid": made["metadata"]["uid"], "status": status}, "p")
        await until(lambda: (_at(world, POD).object.get("status") or {}).get("phase") == "Running")
        await until(lambda: world.agrees([NODE, cm("mine"), POD]))
        assert bridge.reports is not None and bridge.reports.stats.conflicts >= 1
        assert _at(world, POD).object["metadata"]["labels"] == {"n": "0"}, "the other's change stays"


async def test_slow_lists_hold_up_nobody_for_ever(world: World) -> None:
    await edge_with_a_pod(world)

    async def slow(request: web.Request) -> web.StreamResponse | None:
        if request.method == "GET" and "limit" in request.query:
            await asyncio.sleep(0.3)
        return None

    world.proxy.rules.append(slow)
    async with world.bridge():
        assert world.agrees([NODE, cm("mine"), POD])


async def test_a_node_that_becomes_an_edge_brings_its_pods(world: World) -> None:
    meta = {"name": "late"}
    await world.create("", "nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta}, "")
    await world.config_map("mine")
    await world.pod("p", "late", **mounting("mine"))
    late = ObjectKey("", "nodes", "", "late")
    async with world.bridge():
        assert world.agrees([])
        now = await world.cluster.api.get("", "nodes", "", "late")
        now["metadata"]["labels"] = {"node-role.kubernetes.io/edge": ""}
        await world.cluster.api.update("", "nodes", "", "late", now, how=world.cluster.how())
        await until(lambda: world.agrees([late, cm("mine"), POD]))


async def test_a_kind_that_the_cluster_lacks_holds_up_no_other(world: World) -> None:
    async def absent(request: web.Request) -> web.StreamResponse | None:
        return faults.status(404, "NotFound") if "devices.kubeedge.io" in request.path else None

    world.proxy.rules.append(absent)
    await edge_with_a_pod(world)
    async with world.bridge():
        assert world.agrees([NODE, cm("mine"), POD])


async def test_secrets_that_no_edge_needs_are_never_asked_for(world: World) -> None:
    await world.node()
    for name in ("mine", "others"):
        await world.secret(name)
    await world.pod(**mounting(secret_name="mine"))
    async with world.bridge():
        assert world.agrees([NODE, secret("mine"), POD])
    asked = [path for method, path, _ in world.proxy.requests if "/secrets/" in path]
    assert set(asked) == {"/api/v1/namespaces/default/secrets/mine"}


async def test_memory_does_not_grow_with_the_cluster(world: World) -> None:
    """4,000 and then 24,000 pods of others, 4 kB each, in pages."""
    total, filler, served = 0, "x" * 3500, 0

    def stranger(n: int) -> dict[str, Any]:
        meta = {"name": f"other-{n}", "namespace": "others", "resourceVersion": "1", "annotations": {"a": filler}}
        return {"metadata": meta, "spec": {"nodeName": f"cloud-{n % 100}", "containers": []}}

    async def crowded(request: web.Request) -> web.StreamResponse | None:
        nonlocal served
        if request.path != "/api/v1/pods" or request.query.get("watch") == "1":
            return None
        start, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        assert limit <= PAGE_OBJECTS
        end = min(start + limit, total)
        meta = {"resourceVersion": str(world.cluster.storage.revision())} | ({"continue": str(end)} if end < total else {})
        served += end - start
        items = [stranger(n) for n in range(start, end)]
        if not start:
            pod = _at(world, POD)
            items.append({**pod.object, "metadata": {**pod.object["metadata"], "resourceVersion": str(pod.rev)}})
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items})

    async def loaded() -> tuple[int, int]:
        """Bytes that stay, and the most at once, of a bridge that has read everything."""
        tracemalloc.start()
        try:
            async with world.bridge() as bridge:
                assert bridge.mirror is not None and world.agrees([NODE, cm("mine"), POD])
                _, peak = tracemalloc.get_traced_memory()
                gc.collect()
                return tracemalloc.get_traced_memory()[0], peak
        finally:
            tracemalloc.stop()

    await edge_with_a_pod(world)
    async with world.bridge():
        pass  # what is loaded once is not counted
    world.proxy.rules.append(crowded)
    total = 4_000
    few, _ = await loaded()  # the buffers of some twenty connections that carried full pages, both ends of each
    total = 24_000
    now, peak = await loaded()
    assert served >= 28_000, "the crowds were read"
    size = total * len(filler)  # the server's pages and both sides' TLS buffers are counted with ours
    assert peak < size / 3, f"{peak} bytes at once for {size} in all"
    assert now - few < size / 32, f"{now} bytes stay, {few} with a sixth of the crowd"


def _at(world: World, key: ObjectKey) -> Stored:
    stored = world.cluster.storage.get(key)
    assert stored is not None
    return stored


async def _end_after(world: World, events: int) -> None:
    while await world.versions() < events:
        await asyncio.sleep(0)
    raise RuntimeError("end")
