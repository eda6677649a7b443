"""What we read of KubeEdge's devices, held to its definitions in both directions.

Every field that we read is there, under that name and of that type; and every field that is there is read, or named here as
one that we don't act on."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from bus.kube.catalog import shipped_definitions
from schemas import devices, kubeedge

UNREAD = {
    "Device": {
        "spec.methods",  # calls of a device's own, for mappers over DMI
        "spec.stateReport",
        "spec.properties.pushMethod",  # mappers pushing by themselves: telemetry is subjects here
        "spec.properties.desired.metadata",
    },
    "DeviceModel": {"spec.properties.description"},
}
MODELS: dict[str, type[BaseModel]] = {"Device": kubeedge.DeviceSpec, "DeviceModel": kubeedge.DeviceModelSpec}
JSON_TYPES = {str: "string", int: "integer", bool: "boolean", dict: "object", list: "array"}


def schema(kind: str) -> dict[str, Any]:
    for definition in shipped_definitions():
        if definition["spec"]["names"]["kind"] == kind:
            version = next(v for v in definition["spec"]["versions"] if v["storage"])
            found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            return found
    raise LookupError(kind)


def plain(annotation: Any) -> Any:
    """Without None."""
    if get_origin(annotation) is types.UnionType:
        (only,) = [a for a in get_args(annotation) if a is not type(None)]
        return only
    return annotation


def differences(model: type[BaseModel], theirs: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """(path, what) of every field that is on one side only, or of another type."""
    fields = {str(f.alias): plain(f.annotation) for f in model.model_fields.values()}
    known = theirs.get("properties", {})
    for name in sorted(known.keys() - fields.keys()):
        yield f"{where}.{name}", "unread"
    for name, ours in fields.items():
        path = f"{where}.{name}"
        if name not in known:
            yield path, "unknown"
            continue
        outer = get_origin(ours) or ours
        inner = (get_args(ours) or (ours,))[0]
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        wanted = "object" if nested and outer is not list else JSON_TYPES[outer]
        if known[name]["type"] != wanted:
            yield path, f"{known[name]['type']}, read as {wanted}"
        elif nested:
            yield from differences(inner, known[name]["items"] if outer is list else known[name], path)


@pytest.mark.parametrize("kind", MODELS)
def test_models_and_definitions_agree(kind: str) -> None:
    assert set(differences(MODELS[kind], schema(kind), "spec")) == {(path, "unread") for path in UNREAD[kind]}


def test_a_difference_would_be_seen() -> None:
    class Wrong(kubeedge.Lenient):
        node_name: int = 0
        nodes: str = ""

    found = dict(differences(Wrong, schema("Device"), "spec"))
    assert found["spec.nodeName"] == "string, read as integer" and found["spec.nodes"] == "unknown"


def test_words_of_properties_are_theirs() -> None:
    item = schema("DeviceModel")["properties"]["properties"]["items"]["properties"]
    assert set(item["type"]["enum"]) == set(get_args(devices.PropertyType))
    assert kubeedge.ModelProperty().access_mode in item["accessMode"]["enum"]
