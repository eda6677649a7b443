"""Lists, pages, revisions, forms, discovery."""

from __future__ import annotations

from typing import Any

from bus.kube import cache, memory
from tests.unit.kube_http.conftest import CM, Http, config_map, started

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
META = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


def names(doc: Any) -> list[str]:
    return [i["metadata"]["name"] for i in doc["items"]]


async def test_pages_show_one_moment(http: Http) -> None:
    for i in range(5):
        await http.call("POST", CM, config_map(f"p{i}", a="1"))
    _, first = await http.call("GET", CM + "?limit=2")
    assert names(first) == ["p0", "p1"] and first["metadata"]["remainingItemCount"] == 3
    await http.call("DELETE", CM + "/p2")
    await http.call("POST", CM, config_map("p25"))
    await http.call("PATCH", CM + "/p3", {"data": {"a": "2"}}, Content_Type="application/merge-patch+json")
    _, second = await http.call("GET", f"{CM}?limit=2&continue={first['metadata']['continue']}")
    assert names(second) == ["p2", "p3"] and second["items"][1]["data"] == {"a": "1"}
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    _, third = await http.call("GET", f"{CM}?limit=2&continue={second['metadata']['continue']}")
    assert names(third) == ["p4"] and "continue" not in third["metadata"]


async def test_pages_of_all_namespaces_with_a_selector(http: Http) -> None:
    for ns in ("default", "kube-system"):
        for i in range(3):
            body = config_map(f"s{i}", {"on": "yes" if i else "no"})
            await http.call("POST", f"/api/v1/namespaces/{ns}/configmaps", body)
    found, token = [], ""
    while True:
        _, page = await http.call("GET", f"/api/v1/configmaps?labelSelector=on%3Dyes&limit=3&continue={token}")
        found += [(i["metadata"]["namespace"], i["metadata"]["name"]) for i in page["items"]]
        assert "remainingItemCount" not in page["metadata"]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert found == [("default", "s1"), ("default", "s2"), ("kube-system", "s1"), ("kube-system", "s2")]


async def test_a_continue_token_grows_old() -> None:
    storage = memory.MemoryStorage(cache.WatchCache(ring_changes_max=4))
    async with started(storage=storage) as http:
        for i in range(3):
            await http.call("POST", CM, config_map(f"p{i}"))
        _, page = await http.call("GET", CM + "?limit=1")
        for i in range(6):
            await http.call("POST", CM, config_map(f"q{i}"))
        code, status = await http.call("GET", f"{CM}?limit=1&continue={page['metadata']['continue']}")
        assert (code, status["reason"]) == (410, "Expired")


async def test_revisions_of_lists(http: Http) -> None:
    _, made = await http.call("POST", CM, config_map(a="1"))
    rev = made["metadata"]["resourceVersion"]
    await http.call("PUT", CM + "/x", config_map(a="2"))
    _, exact = await http.call("GET", f"{CM}?resourceVersion={rev}&resourceVersionMatch=Exact")
    assert exact["items"][0]["data"] == {"a": "1"} and exact["metadata"]["resourceVersion"] == rev
    _, newer = await http.call("GET", f"{CM}?resourceVersion={rev}&resourceVersionMatch=NotOlderThan")
    assert newer["items"][0]["data"] == {"a": "2"}
    _, any_age = await http.call("GET", f"{CM}?resourceVersion=0")
    assert any_age["items"][0]["data"] == {"a": "2"}


async def test_a_revision_from_the_future_is_504(http: Http, monkeypatch: Any) -> None:
    monkeypatch.setattr("bus.kube.registry.REVISION_WAIT_S", 0.05)
    for path in (CM, CM + "/x", CM + "?watch=1"):
        sep = "&" if "?" in path else "?"
        code, status = await http.call("GET", f"{path}{sep}resourceVersion=99999")
        assert code == 504 and status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_forms(http: Http) -> None:
    await http.call("POST", CM, config_map(a="1", b="2"))
    _, table = await http.call("GET", CM, Accept=TABLE)
    assert table["kind"] == "Table" and table["rows"][0]["cells"][:2] == ["x", 2]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata" and "data" not in table["rows"][0]["object"]
    _, one = await http.call("GET", CM + "/x?includeObject=Object", Accept=TABLE)
    assert one["rows"][0]["object"]["data"] == {"a": "1", "b": "2"}
    _, none = await http.call("GET", CM + "?includeObject=None", Accept=TABLE)
    assert none["rows"][0]["object"] is None
    _, meta = await http.call("GET", CM, Accept=META)
    assert meta["kind"] == "PartialObjectMetadataList" and "data" not in meta["items"][0]
    assert (await http.call("GET", CM + "?includeObject=All", Accept=TABLE))[0] == 400


async def test_errors_are_a_status_even_for_who_wants_tables(http: Http) -> None:
    code, status = await http.call("GET", CM + "/nope", Accept=TABLE)
    assert (code, status["kind"]) == (404, "Status")
    assert status["message"] == 'configmaps "nope" not found' and status["details"] == {"name": "nope", "kind": "configmaps"}


async def test_discovery(http: Http) -> None:
    _, groups = await http.call("GET", "/apis")
    named = {g["name"]: g["preferredVersion"]["version"] for g in groups["groups"]}
    assert named["apps"] == "v1" and named["devices.kubeedge.io"] == "v1beta1"
    _, core = await http.call("GET", "/api/v1")
    listed = {r["name"]: r for r in core["resources"]}
    assert listed["pods"]["shortNames"] == ["po"] and "watch" in listed["pods"]["verbs"]
    assert listed["pods/eviction"]["group"] == "policy" and listed["nodes"]["namespaced"] is False
    wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    _, both = await http.call("GET", "/apis", Accept=wanted)
    assert both["kind"] == "APIGroupDiscoveryList"
    apps = next(i for i in both["items"] if i["metadata"]["name"] == "apps")
    deployments = next(r for r in apps["versions"][0]["resources"] if r["resource"] == "deployments")
    assert {s["subresource"] for s in deployments["subresources"]} == {"status", "scale"}
    _, version = await http.call("GET", "/version")
    assert version["gitVersion"].startswith("v1.")


async def test_openapi_refers_only_to_what_it_has(http: Http) -> None:
    _, index = await http.call("GET", "/openapi/v3")
    assert {"api/v1", "apis/apps/v1", "apis/devices.kubeedge.io/v1beta1"} <= set(index["paths"])
    for entry in index["paths"].values():
        code, doc = await http.call("GET", entry["serverRelativeURL"])
        assert code == 200
        schemas, todo = doc["components"]["schemas"], [doc]
        while todo:
            node = todo.pop()
            if isinstance(node, dict):
                if isinstance(node.get("$ref"), str):
                    assert node["$ref"].removeprefix("#/components/schemas/") in schemas
                todo += node.values()
            elif isinstance(node, list):
                todo += node
        assert any(o.get("patch") for o in doc["paths"].values())
    assert (await http.call("GET", "/openapi/v3/apis/nope/v1"))[0] == 404


async def test_a_new_definition_is_discovered(http: Http) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    columns = [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}]
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{**version, "additionalPrinterColumns": columns}],
        },
    }
    assert (await http.call("GET", "/apis/example.com/v1"))[0] == 404
    assert (await http.call("POST", CRDS, crd))[0] == 201
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"n": 3, "junk": 1}}
    code, got = await http.call("POST", "/apis/example.com/v1/things", thing)
    assert code == 201 and got["spec"] == {"n": 3}
    _, table = await http.call("GET", "/apis/example.com/v1/things", Accept=TABLE)
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "N"] and table["rows"][0]["cells"] == ["t", 3]
    _, index = await http.call("GET", "/openapi/v3")
    assert "apis/example.com/v1" in index["paths"]
    assert (await http.call("DELETE", CRDS + "/things.example.com"))[0] == 200
    assert (await http.call("GET", "/apis/example.com/v1/things"))[0] == 404


async def test_warnings_reach_the_client(http: Http) -> None:
    body = {**config_map(), "dataa": {}}
    async with http.client.post(http.url + CM, json=body) as r:
        assert r.status == 201 and r.headers["Warning"] == '299 - "unknown field \\"dataa\\""'
    assert (await http.call("POST", CM + "?fieldValidation=Strict", {**body, "metadata": {"name": "y"}}))[0] == 400


async def test_connect_serves_what_is_not_ours() -> None:
    from aiohttp import web

    async def logs(request: web.Request, target: Any, actor: str) -> web.Response:
        return web.Response(text=f"{target.namespace}/{target.name} {actor} {request.query.get('follow')}")

    async with started(connect={"pods/log": logs}) as http:
        code, text = await http.call("GET", "/api/v1/namespaces/default/pods/p/log?follow=true")
        assert (code, text) == (200, "default/p anonymous true")
    async with started() as http:
        assert (await http.call("GET", "/api/v1/namespaces/default/pods/p/log"))[0] == 404
