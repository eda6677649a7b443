"""Whatever a client sends: a Status with a 4xx, and nothing stored."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import yarl

from bus.kube.auth import users
from tests.unit.kube_http.conftest import CM, Http, config_map, started

DEEP = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":' + "[" * 5000 + "]" * 5000 + "}"
VERY_DEEP = "[" * 200_000 + "]" * 200_000
_LEVELS = "abcdefghi"
BOMB = "a: &a [x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in itertools.pairwise(_LEVELS)
)
YAML = "application/yaml"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("{not json", "application/json", 400),
        ("", "application/json", 400),
        ("[]", "application/json", 400),
        ("null", "application/json", 400),
        ("NaN", "application/json", 400),
        ('{"metadata":{"name":"x"},"data":{"a":NaN}}', "application/json", 400),
        ('{"metadata":{"name":"x"},"immutable":1e999}', "application/json", 400),
        ('{"metadata":{"name":"x"},"data":{"a":"\\ud800"}}', "application/json", 400),
        ('{"metadata":{"name":"x","generation":' + "9" * 5000 + "}}", "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (DEEP, "application/json", 400),
        (VERY_DEEP, "application/json", 400),
        ("hello", "text/plain", 415),
        (b"k8s\x00\x0a", "application/vnd.kubernetes.protobuf", 400),
        (b"\xa0", "application/cbor", 415),
        ("a: [", YAML, 400),
        ("!!python/object/apply:os.system ['true']", YAML, 400),
        (BOMB, YAML, 400),
        ("? [a]\n: b", YAML, 400),
        ("x" * (4 << 20), "application/json", 413),
        ("a: " + "x" * (2 << 20), YAML, 413),
    ],
)
async def test_bad_bodies(http: Http, body: Any, kind: str, code: int) -> None:
    before = http.storage.revision()
    got, status = await http.call("POST", CM, body, Content_Type=kind)
    assert (got, status["kind"], status["status"], status["code"]) == (code, "Status", "Failure", code)
    assert "Traceback" not in json.dumps(status) and http.storage.revision() == before


async def test_compressed_bodies_are_not_taken(http: Http) -> None:
    code, _ = await http.call("POST", CM, b"\x1f\x8b...", Content_Encoding="gzip")
    assert code == 415


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/nonsense", 404),
        ("GET", "/api/v2/pods", 404),
        ("GET", "/apis/apps/v1/namespaces/default/deployments/x/nope", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", CM + "/x/status/deeper", 404),
        ("GET", "/api/v1/pods/x", 404),
        ("POST", CM + "/x", 405),
        ("PUT", CM, 405),
        ("PATCH", CM, 405),
        ("POST", "/api/v1/configmaps", 405),
        ("OPTIONS", CM, 405),
        ("POST", "/api", 405),
        ("POST", "/version", 405),
        ("DELETE", CM + "/x/status", 404),
        ("GET", CM + "/a%25b", 400),
        ("GET", CM + "/a%2Fb", 404),
        ("GET", "/api/v1/namespaces//configmaps/x", 404),
        ("GET", CM + "/x?resourceVersion=x", 500),
        ("GET", CM + "?watch=1&resourceVersion=x", 500),
        ("GET", CM + "?labelSelector=%3D%3Dbad", 400),
        ("GET", CM + "?fieldSelector=data.a%3D1", 400),
        ("GET", CM + "?limit=x", 400),
        ("GET", CM + "?continue=garbage", 400),
        ("GET", CM + "?continue=bnVsbA==", 400),
        ("GET", CM + "?resourceVersion=x", 400),
        ("GET", CM + "?resourceVersionMatch=Exact", 422),
        ("GET", CM + "?resourceVersion=0&resourceVersionMatch=Exact", 422),
        ("GET", CM + "?watch=1&sendInitialEvents=true", 422),
        ("GET", CM + "?watch=1&timeoutSeconds=1e9", 400),
        ("DELETE", CM + "/x?gracePeriodSeconds=-1", 404),
        ("DELETE", CM + "/x?propagationPolicy=Maybe", 422),
        ("DELETE", CM + "/x?dryRun=Some", 422),
    ],
)
async def test_bad_addresses_and_options(http: Http, method: str, path: str, code: int) -> None:
    got, status = await http.call(method, path)
    assert (got, status["kind"], status["code"]) == (code, "Status", code)


async def test_nothing_answers_head(http: Http) -> None:
    await http.call("POST", CM, config_map(a="1"))
    for path in (CM, CM + "/x", CM + "?watch=1"):
        async with http.client.head(http.url + path) as answer:
            assert answer.status == 405


async def test_a_name_that_is_a_step_up_is_none(http: Http) -> None:
    for step in ("..", "%2e%2e"):
        async with http.client.get(yarl.URL(f"{http.url}{CM}/{step}", encoded=True)) as answer:
            assert answer.status == 400
            assert (await answer.json())["message"] == "Name parameter invalid: \"..\": may not be '..'"


@pytest.mark.parametrize("path", ["/nope", "/apis/nope.example.com", "/apis/nope.example.com/v1", "/apis/a.b/v1/things/x"])
async def test_a_path_of_nobody_is_told_in_plain_text(http: Http, path: str) -> None:
    assert await http.call("GET", path) == (404, "404 page not found\n")


async def test_media_types(http: Http) -> None:
    await http.call("POST", CM, config_map(a="1"))
    assert (await http.call("GET", CM, Accept="text/html"))[0] == 406
    assert (await http.call("GET", CM, Accept="application/vnd.kubernetes.protobuf"))[0] == 406
    assert (await http.call("GET", CM, Accept="application/vnd.kubernetes.protobuf, application/json"))[0] == 200
    assert (await http.call("GET", CM, Accept="text/html, */*"))[0] == 200
    assert (await http.call("PATCH", CM + "/x", {"data": {}}))[0] == 415
    code, text = await http.call("GET", CM + "/x", Accept="application/yaml")
    assert code == 200 and "kind: ConfigMap" in text
    assert (await http.call("PATCH", CM + "/x", {}, Content_Type="application/apply-patch+yaml"))[0] == 422


async def test_headers_of_causes(http: Http) -> None:
    event = "0192f0c1-2345-7abc-8def-0123456789ab"
    code, got = await http.call("POST", CM, config_map(), Skerry_Cause=event, Skerry_Trace=event)
    origin = http.storage.origins[int(got["metadata"]["resourceVersion"])]
    assert code == 201 and (origin.cause, origin.trace, origin.actor) == (event, event, "anonymous")
    assert (await http.call("POST", CM, config_map("y"), Skerry_Cause="junk"))[0] == 400


async def test_names_that_need_escaping(http: Http) -> None:
    assert (await http.call("GET", CM + "/a%2Fb"))[0] == 404
    assert (await http.call("GET", "/api/v1/namespaces/default/%2e%2e/x"))[0] == 404
    assert (await http.call("PUT", CM + "/%00", config_map("x")))[0] in (400, 404)


async def test_what_the_fuzzer_found(http: Http) -> None:
    """Each was an answer that no client expects, once."""
    code, status = await http.call("GET", CM + "/%0A")  # a route that no line break matched: a 404 in plain text
    assert (code, status["kind"]) == (404, "Status")
    runtime = {"metadata": {"name": "x"}, "handler": "x", "overhead": {"podFixed": {"cpu": "much"}}}
    code, status = await http.call("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime)  # was a 500
    assert code == 400 and "quantities must match the regular expression" in status["message"]


async def test_tokens(http: Http) -> None:
    seen = []

    def authenticate(headers: Any) -> users.User | None:
        seen.append(headers.get("Authorization"))
        return users.authenticated("alice") if headers.get("Authorization") == "Bearer good" else None

    async with started(authenticate=authenticate) as locked:
        for headers in ({}, {"Authorization": "Bearer bad"}):
            code, status = await locked.call("GET", CM, **headers)
            assert (code, status["reason"]) == (401, "Unauthorized")
        assert (await locked.call("GET", "/apis"))[0] == 401
        assert (await locked.call("GET", "/healthz")) == (200, "ok")
        code, got = await locked.call("POST", CM, config_map(), Authorization="Bearer good")
        assert code == 201 and locked.storage.origins[int(got["metadata"]["resourceVersion"])].actor == "alice"


async def test_a_bug_is_a_status_without_a_traceback(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(http.api, "show", broken)
    await http.call("POST", CM, config_map())
    code, status = await http.call("GET", CM)
    assert code == 500 and status["reason"] == "InternalError" and "secret" not in json.dumps(status)


async def test_readiness(http: Http) -> None:
    async with started(ready=lambda: False) as waiting:
        assert await waiting.call("GET", "/readyz") == (
            503,
            "[+]ping ok\n[+]log ok\n[-]informer-sync failed: reason withheld\n"
            "[+]poststarthook/rbac/bootstrap-roles ok\nreadyz check failed\n",
        )
        assert (await waiting.call("GET", "/readyz/informer-sync"))[0] == 503
        assert await waiting.call("GET", "/readyz/ping") == (200, "ok")
        assert await waiting.call("GET", "/readyz?exclude=informer-sync") == (200, "ok")
        assert await waiting.call("POST", "/livez") == (200, "ok")
    assert (await http.call("GET", "/readyz"))[0] == 200
    assert await http.call("GET", "/livez?verbose&exclude=ping&exclude=b&exclude=a") == (
        200,
        "[+]ping excluded: ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/rbac/bootstrap-roles ok\n"
        'warn: some health checks cannot be excluded: no matches for "a","b"\nlivez check passed\n',
    )
    for path in ("/livez/", "/livez/foo", "/readyz/ping/", "/healthz/foo?verbose"):
        assert await http.call("GET", path) == (404, "404 page not found\n")
