"""What integrators are given says what the code does: every model, every subject, every reference."""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given

from schemas import event, export, subjects, telemetry
from tests.recorded import samples
from tests.unit.schemas_room import strategies

DOCUMENTS = export.documents("0.1.0")
ASYNCAPI = DOCUMENTS["asyncapi.json"]
KEY = subjects.ObjectKey("apps", "deployments", "default", "web")

# Every function that makes a subject, with what it makes; filters and prefixes are not addresses.
MADE = {
    "cluster": subjects.cluster(KEY),
    "meta": subjects.meta("edge-1", KEY, 4),
    "live_scope": subjects.live_scope("edge-1").removesuffix(">") + KEY.tokens(),
    "report": subjects.report("edge-1", "node", 4),
    "report ": subjects.report("edge-1", "pod", 4, "default", "web"),
    "telemetry": subjects.telemetry("edge-1", "plant", "pump", "temperature"),
    "sync_request": subjects.sync_request("edge-1", "n1"),
    "sync_answer": subjects.sync_answer("edge-1", "n1"),
    "beat": subjects.beat("edge-1"),
    "join_request": subjects.join_request("t1"),
    "renew_request": subjects.renew_request("edge-1"),
    "identity_token": subjects.identity_token("t1"),
    "identity_node": subjects.identity_node("edge-1"),
    "identity_door": subjects.identity_door("edge-1"),
    "identity_trust": subjects.identity_trust("edge-1"),
    "lease": subjects.lease("dispatcher-0"),
    "audit": subjects.audit("join", "edge-1"),
    "tunnel_down": subjects.tunnel_down("edge-1", "0f", "1e"),
    "tunnel_up": subjects.tunnel_up("edge-1", "0f", "1e"),
    "local_devices_changed": subjects.local_devices_changed("modbus"),
}
NOT_ADDRESSES = {
    "meta_scope": "a filter",
    "report_node": "a filter",
    "telemetry_node": "a filter",
    "inbox": "a prefix",
    "tunnels_down": "a filter",
    "tunnels_up": "a filter",
    "tunnels_of": "a filter",
    "uplink": "a prefix, between servers",
    "command": "NATS micro describes its endpoints itself",
    "stream_of": "not a subject",
    "device_token": "not a subject",
    "escape": "not a subject",
    "escape_group": "not a subject",
}


def _addresses() -> list[re.Pattern[str]]:
    found = [c["address"] for c in ASYNCAPI["channels"].values() if c["address"]]
    return [re.compile(re.sub(r"{\w+}", r"[^.\\s]+", re.escape(a).replace(r"\{", "{").replace(r"\}", "}"))) for a in found]


@pytest.mark.parametrize("name", MADE)
def test_every_subject_is_a_channel(name: str) -> None:
    assert any(p.fullmatch(MADE[name]) for p in _addresses()), MADE[name]


def test_no_subject_is_forgotten() -> None:
    makers = {
        name
        for name, f in inspect.getmembers(subjects, inspect.isfunction)
        if inspect.signature(f).return_annotation == "str" and not name.startswith(("parse_", "unescape", "_"))
    }
    assert makers - {n.strip() for n in MADE} - set(NOT_ADDRESSES) == set()
    local = {subjects.LOCAL_DEVICES, subjects.LOCAL_TWIN_REPORT}
    assert local <= {c["address"] for c in ASYNCAPI["channels"].values()}


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for v in node.values():
            yield from _refs(v)
    elif isinstance(node, list):
        for v in node:
            yield from _refs(v)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    document = json.loads(json.dumps(DOCUMENTS[name]))
    for ref in _refs(document):
        target = document
        assert ref.startswith("#/")
        for part in ref.removeprefix("#/").split("/"):
            target = target[part]


def test_the_document_has_the_shape_of_asyncapi_3() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNCAPI["info"])
    for channel in ASYNCAPI["channels"].values():
        named = set(re.findall(r"{(\w+)}", channel["address"] or ""))
        assert named == set(channel.get("parameters", {}))
        assert channel["messages"]
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel_ref = operation["channel"]["$ref"]
        assert all(m["$ref"].startswith(f"{channel_ref}/messages/") for m in operation["messages"])
    for message in ASYNCAPI["components"]["messages"].values():
        assert message["payload"]


@pytest.mark.parametrize("model", export.MODELS, ids=lambda m: m.__name__)
def test_every_schema_is_one(model: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENTS[f"{model.__name__}.schema.json"])


def test_the_schema_takes_what_the_model_takes() -> None:
    validator = jsonschema.Draft202012Validator(DOCUMENTS["Event.schema.json"])
    for ev in samples.SAMPLES.values():
        if ev.resource != "twin":  # carries bytes, which JSON has not
            validator.validate(ev.model_dump())
    good = telemetry.Sample(value=1.5, time=1, seq=1, boot="b").model_dump()
    sample = jsonschema.Draft202012Validator(DOCUMENTS["Sample.schema.json"])
    sample.validate(good)
    for bad in (good | {"seq": 0}, good | {"extra": 1}, {k: v for k, v in good.items() if k != "boot"}):
        assert not sample.is_valid(bad)


@given(strategies.events.map(lambda e: e.model_copy(update={"data": None})))
def test_any_event_fits_the_schema(ev: event.Event) -> None:
    jsonschema.validate(ev.model_dump(), DOCUMENTS["Event.schema.json"])
