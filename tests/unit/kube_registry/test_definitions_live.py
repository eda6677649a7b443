"""Definitions over time: names that are taken, an end that waits, versions that were stored, schemas that get stricter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bus.kube.targets import Write
from tests.unit.kube_registry.conftest import ME, NS, Api

GROUP, CRDS, G = "apiextensions.k8s.io", "customresourcedefinitions", "example.com"


def definition(plural: str = "boats", kind: str = "Boat", schema: Any = None, **spec: Any) -> dict[str, Any]:
    node = {
        "type": "object",
        "properties": {"spec": schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": node}}
    names = {"plural": plural, "kind": kind}
    base = {"group": G, "scope": "Namespaced", "names": names, "versions": [version]}
    head = {"apiVersion": f"{GROUP}/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{G}"}}
    return {**head, "spec": {**base, **spec}}


def boat(name: str = "b", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": f"{G}/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec}


async def install(api: Api, crd: dict[str, Any]) -> Any:
    return await api.create(CRDS, crd, GROUP, "")


async def replace(api: Api, crd: dict[str, Any]) -> Any:
    return await api.rules.update(GROUP, CRDS, "", crd["metadata"]["name"], crd, how=Write(ME))


def conditions(crd: Any) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in crd["status"]["conditions"]}


async def test_names_that_are_taken_wait_until_they_are_free(api: Api, refused: Callable[..., Any]) -> None:
    await install(api, definition())
    second = await install(api, definition("ships", "Boat"))
    assert conditions(second) == {"NamesAccepted": ("False", "SingularConflict"), "Established": ("False", "NotAccepted")}
    assert second["status"]["conditions"][0]["message"] == '"boat" is already in use'
    await refused(api.rules.list(G, "ships", NS), 404, "NotFound")
    await api.delete(CRDS, f"boats.{G}", GROUP, "")
    now = await api.get(CRDS, f"ships.{G}", GROUP, "")
    assert conditions(now) == {"NamesAccepted": ("True", "NoConflicts"), "Established": ("True", "InitialNamesAccepted")}
    assert (await api.rules.list(G, "ships", NS))[0] == []


async def test_a_definition_waits_for_its_last_object(api: Api, refused: Callable[..., Any]) -> None:
    await install(api, definition())
    held = boat()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("boats", held, G)
    await api.create("boats", boat("free"), G)
    done = await api.delete(CRDS, f"boats.{G}", GROUP, "")
    assert not done.gone and done.object["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    assert conditions(done.object)["Terminating"] == ("True", "InstanceDeletionPending")
    await refused(api.get("boats", "free", G), 404, "NotFound")
    await api.patch("boats", "b", {"metadata": {"finalizers": None}}, group=G)
    await refused(api.get(CRDS, f"boats.{G}", GROUP, ""), 404, "NotFound")


async def test_a_version_that_was_stored_must_stay(api: Api, refused: Callable[..., Any]) -> None:
    crd = await install(api, definition())
    newer = {**crd["spec"]["versions"][0], "name": "v2"}
    crd["spec"]["versions"] = [{**crd["spec"]["versions"][0], "storage": False}, newer]
    crd = await replace(api, crd)
    assert crd["status"]["storedVersions"] == ["v1", "v2"]
    crd["spec"]["versions"] = [newer]
    e = await refused(replace(api, crd), 422, "Invalid")
    assert "v1 was previously a storage version" in e.message
    crd["status"]["storedVersions"] = ["v2"]
    await api.rules.update(GROUP, CRDS, "", f"boats.{G}", crd, how=Write(ME), subresource="status")
    crd = await api.get(CRDS, f"boats.{G}", GROUP, "")
    crd["spec"]["versions"] = [newer]
    assert [v["name"] for v in (await replace(api, crd))["spec"]["versions"]] == ["v2"]


async def test_what_was_stored_may_stay_when_the_schema_gets_stricter(api: Api, refused: Callable[..., Any]) -> None:
    free = {"type": "object", "properties": {"size": {"type": "integer"}, "title": {"type": "string"}}}
    crd = await install(api, definition(schema=free))
    await api.create("boats", boat(size=100, title="x"), G)
    strict = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    strict["properties"]["size"]["maximum"] = 9
    await replace(api, crd)
    got = await api.patch("boats", "b", {"spec": {"title": "y"}}, group=G)
    assert got["spec"] == {"size": 100, "title": "y"}
    e = await refused(api.patch("boats", "b", {"spec": {"size": 99}}, group=G), 422, "Invalid")
    assert "spec.size in body should be less than or equal to 9" in e.message
    await refused(api.create("boats", boat("new", size=100), G), 422, "Invalid")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "uniqueItems cannot be set to true"),
        ({"type": "object", "additionalProperties": False}, "additionalProperties cannot be set to false"),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
            "must not be empty if x-kubernetes-list-type is map",
        ),
        (
            {
                "type": "array",
                "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"],
            },
            "it must have a default or be a required property",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "mutual exclusive",
        ),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": False}, "must be true or undefined"),
    ],
)
async def test_schemas_that_are_not_structural(api: Api, refused: Callable[..., Any], schema: Any, message: str) -> None:
    e = await refused(install(api, definition(schema=schema)), 422, "Invalid")
    assert message in e.message


async def test_rules_of_a_definition_itself(api: Api, refused: Callable[..., Any]) -> None:
    e = await refused(install(api, definition(preserveUnknownFields=True)), 422, "Invalid")
    assert "x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead" in e.message
    crd = definition(group="x.k8s.io")
    crd["metadata"]["name"] = "boats.x.k8s.io"
    e = await refused(install(api, crd), 422, "Invalid")
    assert 'protected groups must have approval annotation "api-approved.kubernetes.io"' in e.message


async def test_embedded_resources_are_some(api: Api, refused: Callable[..., Any]) -> None:
    inner = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    await install(api, definition(schema={"type": "object", "properties": {"template": inner}}))
    e = await refused(api.create("boats", boat(template={"kind": "Pod"}), G), 422, "Invalid")
    assert e.details["causes"] == [
        {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.template.apiVersion"}
    ]
