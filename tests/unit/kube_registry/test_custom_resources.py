"""Definitions, and what they make of objects."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bus.kube.catalog import shipped_definitions
from bus.kube.targets import Write
from tests.unit.kube_registry.conftest import ME, NS, Api

GROUP, CRDS, G = "apiextensions.k8s.io", "customresourcedefinitions", "example.com"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "maybe": {"type": "string", "nullable": True},
                "list": {
                    "type": "array",
                    "maxItems": 2,
                    "items": {"type": "object", "properties": {"a": {"type": "boolean"}}},
                },
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "replicas": {"type": "integer"},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}},
    },
}


def definition(**version: Any) -> dict[str, Any]:
    v = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}, **version}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": G,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [v],
        },
    }


def widget(name: str = "w", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 1, **spec}}


@pytest.fixture
async def widgets(api: Api) -> Api:
    await api.create(CRDS, definition(), GROUP, "")
    return api


async def test_a_definition_is_established_and_serves(api: Api, refused: Any) -> None:
    await refused(api.create("widgets", widget(), G), 404, "NotFound")
    made = await api.create(CRDS, definition(), GROUP, "")
    assert {c["type"]: c["status"] for c in made["status"]["conditions"]} == {"NamesAccepted": "True", "Established": "True"}
    assert made["spec"]["names"]["listKind"] == "WidgetList" and made["status"]["storedVersions"] == ["v1"]
    got = await api.create("widgets", widget(), G)
    assert got["spec"] == {"size": 1, "color": "red"} and got["metadata"]["generation"] == 1


async def test_pruning_keeps_what_is_specified(widgets: Api) -> None:
    got = await widgets.create("widgets", {**widget(extra=1, free={"any": [1]}, list=[{"a": True, "b": 1}]), "top": 1}, G)
    assert got["spec"] == {"size": 1, "color": "red", "free": {"any": [1]}, "list": [{"a": True}]} and "top" not in got


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"size": 0}, "spec.size", "FieldValueInvalid"),
        ({"size": 10}, "spec.size", "FieldValueInvalid"),
        ({"size": "1"}, "spec.size", "FieldValueTypeInvalid"),
        ({"color": "green"}, "spec.color", "FieldValueNotSupported"),
        ({"code": "A"}, "spec.code", "FieldValueInvalid"),
        ({"code": "abcdef"}, "spec.code", "FieldValueTooLong"),
        ({"port": True}, "spec.port", "FieldValueTypeInvalid"),
        ({"list": [{}, {}, {}]}, "spec.list", "FieldValueTooMany"),
        ({"list": [{"a": "x"}]}, "spec.list[0].a", "FieldValueTypeInvalid"),
        ({"map": {"k": "x"}}, "spec.map.k", "FieldValueTypeInvalid"),
    ],
)
async def test_validation(widgets: Api, refused: Any, spec: dict[str, Any], field: str, reason: str) -> None:
    error = await refused(widgets.create("widgets", widget(**spec), G), 422, "Invalid")
    assert (error.details["causes"][0]["field"], error.details["causes"][0]["reason"]) == (field, reason)


async def test_required_and_null(widgets: Api, refused: Any) -> None:
    error = await refused(widgets.create("widgets", {"metadata": {"name": "w"}, "spec": {}}, G), 422, "Invalid")
    assert error.details["causes"][0]["reason"] == "FieldValueRequired"
    got = await widgets.create("widgets", widget(color=None, code=None, maybe=None), G)
    assert got["spec"] == {"size": 1, "color": "red", "maybe": None}  # null is absent unless it may be null


async def test_without_a_status_subresource_status_is_a_field(widgets: Api, refused: Any) -> None:
    got = await widgets.create("widgets", {**widget(), "status": {"phase": "a"}}, G)
    assert got["status"] == {"phase": "a"}
    await refused(widgets.patch("widgets", "w", {"status": {"phase": "b"}}, group=G, sub="status"), 404, "NotFound")
    assert (await widgets.patch("widgets", "w", {"status": {"phase": "b"}}, group=G))["metadata"]["generation"] == 2


async def test_status_and_scale_subresources(api: Api) -> None:
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    await api.create(CRDS, definition(subresources={"status": {}, "scale": paths}), GROUP, "")
    got = await api.create("widgets", {**widget(), "status": {"phase": "a"}}, G)
    assert "status" not in got
    got = await api.patch("widgets", "w", {"status": {"replicas": 2, "no": 1}, "spec": {"size": 5}}, group=G, sub="status")
    assert got["status"] == {"replicas": 2} and got["spec"]["size"] == 1 and got["metadata"]["generation"] == 1
    scale = await api.patch("widgets", "w", {"spec": {"replicas": 4}}, group=G, sub="scale")
    assert scale["spec"]["replicas"] == 4 and scale["status"]["replicas"] == 2
    assert (await api.get("widgets", "w", G))["spec"]["replicas"] == 4


async def test_strategic_patch_is_for_built_in_kinds(widgets: Api, refused: Any) -> None:
    await widgets.create("widgets", widget(), G)
    await refused(widgets.patch("widgets", "w", {"spec": {}}, "strategic", G), 415, "UnsupportedMediaType")


async def test_versions_convert_by_pruning(api: Api, refused: Any) -> None:
    old = copy.deepcopy(SCHEMA)
    old["properties"]["spec"]["properties"] = {"size": {"type": "integer"}, "legacy": {"type": "string"}}
    crd = definition()
    crd["spec"]["versions"].append(
        {"name": "v1alpha1", "served": True, "storage": False, "schema": {"openAPIV3Schema": old}}
    )
    crd["spec"]["versions"].append({"name": "v0", "served": False, "storage": False, "schema": {"openAPIV3Schema": old}})
    await api.create(CRDS, crd, GROUP, "")
    body = {
        "apiVersion": "example.com/v1alpha1",
        "kind": "Widget",
        "metadata": {"name": "w"},
        "spec": {"size": 2, "legacy": "x"},
    }
    how = Write(ME)
    got = await api.rules.create(G, "widgets", NS, body, how=how, version="v1alpha1")
    assert got["apiVersion"] == "example.com/v1alpha1" and got["spec"] == {"size": 2}  # the stored version has no legacy
    assert (await api.get("widgets", "w", G))["apiVersion"] == "example.com/v1"
    await refused(api.rules.get(G, "widgets", NS, "w", version="v0"), 404, "NotFound")
    resource, _ = api.rules.resource(G, "widgets")
    assert resource.preferred == ["v1", "v1alpha1"]


async def test_deleting_a_definition_deletes_its_objects(widgets: Api, refused: Any) -> None:
    await widgets.create("widgets", widget(), G)
    await widgets.delete(CRDS, "widgets.example.com", GROUP, "")
    await refused(widgets.get("widgets", "w", G), 404, "NotFound")
    await widgets.create(CRDS, definition(), GROUP, "")
    assert (await widgets.rules.list(G, "widgets"))[0] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c["metadata"].update(name="other.example.com"),
        lambda c: c["spec"].update(scope="Galaxy"),
        lambda c: c["spec"].update(group="example"),
        lambda c: c["spec"]["versions"][0].update(storage=False),
        lambda c: c["spec"]["versions"][0].update(schema=None),
        lambda c: c["spec"]["versions"][0].update(schema={"openAPIV3Schema": {"type": "string"}}),
        lambda c: c["spec"]["versions"][0].update(schema={"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}),
        lambda c: c["spec"]["versions"][0].update(
            schema={"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}}
        ),
        lambda c: c["spec"]["versions"][0].update(
            schema={"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}}
        ),
        lambda c: c["spec"]["versions"][0].update(schema={"openAPIV3Schema": {"type": "object", "properties": []}}),
        lambda c: c["spec"]["versions"][0].update(
            schema={"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": "x"}}}}
        ),
        lambda c: c["spec"].update(conversion={"strategy": "Webhook"}),
        lambda c: c["spec"]["versions"].clear(),
    ],
)
async def test_bad_definitions_are_422(api: Api, refused: Any, spoil: Any) -> None:
    crd = copy.deepcopy(definition())
    spoil(crd)
    await refused(api.create(CRDS, crd, GROUP, ""), 422, "Invalid")
    assert api.rules.catalog.find(G, "widgets") is None


async def test_definitions_keep_their_identity(widgets: Api, refused: Any) -> None:
    for change in ({"scope": "Cluster"}, {"names": {"kind": "Other"}}):
        await refused(widgets.patch(CRDS, "widgets.example.com", {"spec": change}, group=GROUP), 422, "Invalid")


async def test_device_kinds_are_served_without_a_stored_definition(api: Api) -> None:
    """As on a node, whose replica has devices but perhaps no definitions."""
    for crd in shipped_definitions():
        await api.delete(CRDS, crd["metadata"]["name"], GROUP, "")
    model = {"metadata": {"name": "m"}, "spec": {"properties": [{"name": "t", "type": "INT", "accessMode": "ReadOnly"}]}}
    got = await api.create("devicemodels", model, "devices.kubeedge.io")
    assert got["apiVersion"] == "devices.kubeedge.io/v1beta1"


async def test_device_model_enums(api: Api, refused: Any) -> None:
    model = {"metadata": {"name": "m"}, "spec": {"properties": [{"name": "t", "type": "NOPE", "accessMode": "ReadOnly"}]}}
    error = await refused(api.create("devicemodels", model, "devices.kubeedge.io"), 422, "Invalid")
    assert error.details["causes"][0]["field"] == "spec.properties[0].type"
