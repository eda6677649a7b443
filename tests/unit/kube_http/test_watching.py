"""Watches over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from bus.kube import cache, memory
from bus.kube.http.context import Limits
from tests.unit.kube_http.conftest import CM, Http, config_map, started

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def said(event: Any) -> tuple[str, str, Any]:
    return event["type"], event["object"]["metadata"]["name"], event["object"].get("data")


async def test_from_a_revision_with_selector_transitions(http: Http) -> None:
    _, listed = await http.call("GET", CM)
    rev = listed["metadata"]["resourceVersion"]
    async with http.watch(f"{CM}?labelSelector=w%3D1&resourceVersion={rev}") as event:
        await http.call("POST", CM, config_map("x", {"w": "1"}, a="1"))
        await http.call("PUT", CM + "/x", config_map("x", {"w": "1"}, a="2"))
        await http.call("POST", CM, config_map("other", {"w": "2"}))
        _, out = await http.call("PUT", CM + "/x", config_map("x", {"w": "0"}, a="3"))
        await http.call("PUT", CM + "/x", config_map("x", {"w": "1"}, a="4"))
        await http.call("DELETE", CM + "/x")
        assert said(await event()) == ("ADDED", "x", {"a": "1"})
        assert said(await event()) == ("MODIFIED", "x", {"a": "2"})
        left = await event()
        assert said(left) == ("DELETED", "x", {"a": "2"})
        assert left["object"]["metadata"]["resourceVersion"] == out["metadata"]["resourceVersion"]
        assert said(await event()) == ("ADDED", "x", {"a": "4"})
        gone = await event()
        assert said(gone)[0] == "DELETED"
        assert int(gone["object"]["metadata"]["resourceVersion"]) == http.storage.revision()


async def test_without_a_revision_begins_with_what_there_is(http: Http) -> None:
    await http.call("POST", CM, config_map("x"))
    for query in ("", "?resourceVersion=0"):
        async with http.watch(CM + query) as event:
            assert said(await event())[:2] == ("ADDED", "x")


async def test_streaming_list_ends_with_a_bookmark(http: Http) -> None:
    await http.call("POST", CM, config_map("x"))
    query = "?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with http.watch(CM + query) as event:
        assert said(await event())[:2] == ("ADDED", "x")
        mark = await event()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["object"]["kind"] == "ConfigMap"
        await http.call("POST", CM, config_map("y"))
        while (later := await event())["type"] == "BOOKMARK":
            pass
        assert said(later)[:2] == ("ADDED", "y")


async def test_bookmarks_only_for_who_allows_them(http: Http) -> None:
    rev = http.storage.revision()
    async with http.watch(f"{CM}?resourceVersion={rev}&allowWatchBookmarks=true") as event:
        mark = await event()
        assert mark["type"] == "BOOKMARK" and mark["object"]["metadata"]["resourceVersion"] == str(rev)
    async with http.watch(f"{CM}?resourceVersion={rev}&timeoutSeconds=1") as event:
        assert await event() is None


async def test_too_old_is_an_error_event_with_410() -> None:
    async with started(storage=memory.MemoryStorage(cache.WatchCache(ring_changes_max=2))) as http:
        for i in range(5):
            await http.call("POST", CM, config_map(f"x{i}"))
        async with http.watch(f"{CM}?resourceVersion=8") as event:
            error = await event()
            assert error["type"] == "ERROR" and (error["object"]["code"], error["object"]["reason"]) == (410, "Expired")
            assert await event() is None


async def test_one_object_by_name(http: Http) -> None:
    await http.call("POST", CM, config_map("x"))
    await http.call("POST", CM, config_map("y"))
    for path in (f"{CM}/x", f"{CM}?fieldSelector=metadata.name%3Dx", "/api/v1/watch/namespaces/default/configmaps/x"):
        async with http.watch(f"{path}{'&' if '?' in path else '?'}timeoutSeconds=1") as event:
            assert said(await event())[:2] == ("ADDED", "x")
            assert await event() is None


async def test_tables_send_columns_once(http: Http) -> None:
    await http.call("POST", CM, config_map("x"))
    async with http.watch(CM, Accept=TABLE) as event:
        first = await event()
        assert first["object"]["kind"] == "Table" and first["object"]["rows"][0]["cells"][0] == "x"
        assert first["object"]["columnDefinitions"][0]["name"] == "Name"
        await http.call("DELETE", CM + "/x")
        second = await event()
        assert second["type"] == "DELETED" and second["object"]["columnDefinitions"] is None


async def test_namespaces_do_not_mix(http: Http) -> None:
    async with http.watch("/api/v1/namespaces/kube-system/configmaps") as event:
        await http.call("POST", CM, config_map("x"))
        await http.call("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("y"))
        assert said(await event())[:2] == ("ADDED", "y")


async def test_watches_have_a_limit_and_give_back_their_place() -> None:
    async with started(limits=Limits(watches_max=1)) as http:
        async with http.watch(CM):
            code, status = await http.call("GET", CM + "?watch=1")
            assert (code, status["reason"]) == (429, "TooManyRequests")
        await http.call("POST", CM, config_map("x"))  # the server notices at its next write
        async with asyncio.timeout(5):
            while True:
                async with http.client.get(f"{http.url}{CM}?watch=1&timeoutSeconds=1") as r:
                    if r.status == 200:
                        break
                await asyncio.sleep(0.05)


async def test_stopping_the_server_ends_watches() -> None:
    async with started() as http:
        response = await http.client.get(f"{http.url}{CM}?watch=1")
        assert response.status == 200
    response.close()


async def test_selectors_of_nodes_see_a_binding_as_added(http: Http) -> None:
    pods = "/api/v1/namespaces/default/pods"
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await http.call("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    async with http.watch("/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1") as event:
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "edge-1"}}
        assert (await http.call("POST", pods + "/p/binding", body))[0] == 201
        got = await event()
        assert got["type"] == "ADDED" and got["object"]["spec"]["nodeName"] == "edge-1"
