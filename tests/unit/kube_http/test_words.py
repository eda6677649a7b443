"""Refusals in the words of the real server, because people search for them and clients match them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kube_http.conftest import CM, Http, config_map

UNREAD = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"


def head(kind: str = "ConfigMap", version: str = "v1", name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{not json", UNREAD + "invalid character 'n' looking for beginning of object key string ({not json)"),
        ("", UNREAD + "unexpected end of JSON input (<empty>)"),
        ('{"a":1', UNREAD + 'unexpected end of JSON input ({"a":1)'),
        ('{"a" 1}', UNREAD + """invalid character '1' after object key ({"a" 1})"""),
        ('{"a":1 "b":2}', UNREAD + """invalid character '"' after object key:value pair ({"a":1 "b":2})"""),
        ('{"a":[1 2]}', UNREAD + """invalid character '2' after array element ({"a":[1 2]})"""),
        ('{"a":nul}', UNREAD + """invalid character '}' in literal null (expecting 'l') ({"a":nul})"""),
        ("{} x", UNREAD + "invalid character 'x' after top-level value ({} x)"),
        ("hello", UNREAD + "invalid character 'h' looking for beginning of value (68656c6c6f)"),
        (
            head(data={"a": 1}),
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field '
            "ConfigMap.data of type string",
        ),
        (
            head(data=["a"]),
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field '
            "ConfigMap.data of type map[string]string",
        ),
        (
            {**head(), "metadata": {"name": "x", "labels": {"a": True}}},
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field '
            "ObjectMeta.metadata.labels of type string",
        ),
        (
            head("Secret"),
            'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown '
            "conversion",
        ),
        (
            head(version="v2"),
            'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
        (
            {**head(), "metadata": {"name": "x", "namespace": "other"}},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            {**head(), "metadata": {"name": "x", "resourceVersion": "7"}},
            "resourceVersion should not be set on objects to be created",
        ),
    ],
)
async def test_bodies_that_are_no_config_map(http: Http, body: Any, message: str) -> None:
    code, status = await http.call("POST", CM, body)
    assert (code, status["reason"], status["message"]) == (400, "BadRequest", message)


async def test_yaml_tells_the_line(http: Http) -> None:
    code, status = await http.call("POST", CM, "apiVersion: v1\nkind: [", Content_Type="application/yaml")
    assert code == 400 and "error converting YAML to JSON: yaml: line 2: " in status["message"], status


async def test_a_number_of_the_wrong_size_or_form(http: Http) -> None:
    for value, got in ((1 << 40, "number 1099511627776"), (1.5, "number 1.5"), ("2", "string")):
        body = head("Deployment", "apps/v1", spec={"replicas": value})
        code, status = await http.call("POST", DEPLOYMENTS, body)
        said = f"json: cannot unmarshal {got} into Go struct field DeploymentSpec.spec.replicas of type int32"
        assert (code, status["message"].partition("as a Deployment: ")[2]) == (400, said)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("labelSelector=a%21b", "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt"),
        ("labelSelector=a,,b", "found ',', expected: identifier after ','"),
        ("labelSelector=a+in+b", "unable to parse requirement: found 'b' expected: '('"),
        ("labelSelector=%3D%3Dx", "found '==', expected: !, identifier, or 'end of string'"),
        ("labelSelector=a+b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("fieldSelector=spec", "invalid selector: 'spec'; can't understand 'spec'"),
        ("fieldSelector=data.a%3D1", '"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("limit=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        (
            "resourceVersion=x",
            'invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax',
        ),
    ],
)
async def test_bad_lists(http: Http, query: str, message: str) -> None:
    code, status = await http.call("GET", f"{CM}?{query}")
    assert (code, status["reason"], status["message"]) == (400, "BadRequest", message)


async def test_lists_that_only_look_bad(http: Http) -> None:
    assert (await http.call("GET", CM + "?limit=-1"))[0] == 200
    assert (await http.call("GET", "/api/v1/pods?fieldSelector=spec.x%3D1"))[1][
        "message"
    ] == "field label not supported: spec.x"
    async with http.watch(CM + "?timeoutSeconds=1&allowWatchBookmarks=maybe") as next_event:
        assert (await next_event())["type"] == "BOOKMARK"


async def test_unknown_and_doubled_fields(http: Http) -> None:
    body = '{"metadata":{"name":"x"},"data":{"a":"1","a":"2"},"dat":{}}'
    code, status = await http.call("POST", CM + "?fieldValidation=Strict", body)
    said = 'strict decoding error: duplicate field "data.a", unknown field "dat"'
    assert (code, status["message"]) == (400, f'ConfigMap in version "v1" cannot be handled as a ConfigMap: {said}')
    async with http.client.post(http.url + CM, data=body, headers={"Content-Type": "application/json"}) as r:
        assert r.status == 201 and r.headers.getall("Warning") == [
            '299 - "duplicate field \\"data.a\\""',
            '299 - "unknown field \\"dat\\""',
        ]
    code, status = await http.call("PATCH", CM + "/x?fieldValidation=Strict", {"dat": 1}, Content_Type=MERGE)
    assert code == 422 and status["message"].endswith('strict decoding error: unknown field "dat"')
    assert status["message"].startswith(' "" is invalid: patch: Invalid value: ')


async def test_patches_that_break_their_object(http: Http) -> None:
    await http.call("POST", CM, config_map(a="1"))
    code, status = await http.call("PATCH", CM + "/x", {"data": {"a": 5}}, Content_Type=MERGE)
    assert (code, status["reason"]) == (422, "Invalid") and "cannot unmarshal number" in status["message"]
    code, status = await http.call("PATCH", CM + "/x", {"metadata": {"name": "y"}}, Content_Type=MERGE)
    assert (code, status["message"]) == (400, "the name of the object (y) does not match the name on the URL (x)")
    code, status = await http.call("PATCH", CM + "/x", [], Content_Type=MERGE)
    assert (code, status["message"]) == (
        400,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
    )
    code, status = await http.call("PATCH", CM + "/x?force=true", {}, Content_Type=MERGE)
    assert (code, status["message"]) == (
        422,
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
    )
    code, status = await http.call("PATCH", CM + "/x", {}, Content_Type="text/plain")
    assert (code, status["message"]) == (415, "415: Unsupported Media Type")


async def test_puts_elsewhere(http: Http) -> None:
    await http.call("POST", CM, config_map(a="1"))
    for meta, message in (
        ({"name": "y"}, "the name of the object (y) does not match the name on the URL (x)"),
        ({}, "the name of the object (x based on URL) was undeterminable: name must be provided"),
        (
            {"name": "x", "namespace": "other"},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ):
        code, status = await http.call("PUT", CM + "/x", {"metadata": meta})
        assert (code, status["message"]) == (400, message)
    code, status = await http.call("PUT", CM + "/x", {"metadata": {"name": "x", "uid": "nope"}})
    assert (code, status["reason"]) == (409, "Conflict") and "Precondition failed: UID in precondition: nope" in status[
        "message"
    ]


async def test_deletes(http: Http) -> None:
    _, made = await http.call("POST", CM, config_map(a="1"))
    uid = made["metadata"]["uid"]
    code, status = await http.call("DELETE", CM + "/x", {"preconditions": {"uid": "nope"}})
    assert (code, status["message"]) == (
        409,
        f'Operation cannot be fulfilled on ConfigMap "x": the UID in the precondition (nope) does not match the UID in '
        f"record ({uid}). The object might have been deleted and then recreated",
    )
    code, status = await http.call("DELETE", CM + "/x", {"propagationPolicy": "Maybe"})
    assert (code, status["message"]) == (
        422,
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Maybe": supported values: '
        '"Foreground", "Background", "Orphan", "nil"',
    )
    code, status = await http.call("DELETE", CM + "/x", {"gracePeriodSeconds": "soon"})
    assert (
        code == 400 and "cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds" in status["message"]
    )
    code, status = await http.call("DELETE", CM + "/x?dryRun=Some")
    assert (code, status["message"]) == (
        422,
        'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"',
    )


async def test_what_a_put_makes_and_what_it_must_name(http: Http) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    code, made = await http.call("PUT", path, lease)
    assert (code, made["kind"]) == (201, "Lease")
    code, status = await http.call("PUT", path, lease)
    assert (code, status["message"]) == (
        422,
        'leases.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an '
        "update",
    )
    assert (await http.call("PUT", path, made))[0] == 200
    assert (await http.call("PUT", CM + "/none", config_map("none")))[0] == 404
