"""What others are told of the bus: a JSON Schema of every model, and one AsyncAPI 3.0 document of every subject.

Generated from the models and the list of channels below, so it can't drift; a test holds the list against the functions
of ``schemas/subjects.py``.  Pure: the ``skerry schema export`` command writes what ``documents`` returns.
Source: AsyncAPI 3.0.0 specification; JSON Schema 2020-12.  On the wire a payload is msgpack of the JSON that a schema
describes, with binary strings where a schema says ``format: binary``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from schemas import devices, event, joining, leases, reports, sync, telemetry, tunnel

Document = dict[str, Any]

MODELS: tuple[type[BaseModel], ...] = (
    event.Event,
    reports.NodeReport,
    reports.PodReport,
    reports.TwinReport,
    reports.EventReport,
    leases.LeaseRecord,
    reports.Beat,
    telemetry.Sample,
    sync.SyncRequest,
    sync.SyncAnswer,
    joining.JoinToken,
    joining.JoinRequest,
    joining.JoinAnswer,
    joining.RenewRequest,
    devices.DeviceListRequest,
    devices.DeviceList,
    devices.TwinUpdate,
    devices.TwinUpdateAnswer,
    tunnel.Open,
    tunnel.Opened,
    tunnel.Ended,
)

_OBJECT = "{group}.{resource}.{namespace}.{name}"

PARAMETERS: dict[str, str] = {
    "device": "the device's name; namespace%2Fname outside the namespace default",
    "gateway": "one life of one API server",
    "group": "API group with dots as underscores; core for the empty group",
    "kind": "what the report is about: node, pod, twin, event",
    "life": "one life of a leaf server's store",
    "name": "the object's name, escaped",
    "namespace": "the object's namespace, - when it has none",
    "node": "the node's name, escaped",
    "nonce": "any token, fresh for every request",
    "property": "the property's name, escaped",
    "protocol": "the protocol's name in the Device, e.g. modbus",
    "resource": "plural resource, e.g. configmaps",
    "scope": "who must know: a node's name, all, or a node group",
    "role": "what one process at a time does, e.g. dispatcher-0",
    "session": "one tunnel",
    "shard": "shard of the scope or node: crc32 of its name modulo the hub's number of shards",
    "token": "the join token's id",
    "verb": "what the node is asked to do",
    "what": "what happened, e.g. join",
}


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of subject.  ``models`` is what travels on it (none: an empty message), ``data`` what an event carries
    there, ``reply`` the answer to a request and ``reply_to`` its subject when it is not the asker's inbox."""

    id: str
    address: str
    who: str
    what: str
    models: tuple[type[BaseModel], ...] = ()
    data: tuple[type[BaseModel], ...] = ()
    stream: str = ""
    reply: type[BaseModel] | None = None
    reply_to: str = ""


_REPORTS = (reports.NodeReport, reports.PodReport, reports.TwinReport, reports.EventReport)

CHANNELS: tuple[Channel, ...] = (
    Channel(
        "cluster",
        f"cluster.{_OBJECT}",
        "the standalone API, or the bridge from a cluster",
        "An object as the Kubernetes API has it, or its tombstone; data is the object without resourceVersion.",
        (event.Event,),
        stream="CLUSTER",
    ),
    Channel(
        "meta",
        f"meta.{{shard}}.{{scope}}.{_OBJECT}",
        "the dispatcher",
        "An object that a scope must know, or its tombstone (also: no longer needed there).",
        (event.Event,),
        stream="META-{shard}",
    ),
    Channel(
        "live",
        f"live.{{scope}}.{_OBJECT}",
        "the hub, republishing META",
        "The same event at once, not stored: a fast hint that the chain in prev proves.",
        (event.Event,),
    ),
    Channel(
        "report",
        "report.{shard}.{node}.{kind}",
        "a node's outbox",
        "What a node says of itself; the last one counts.",
        (event.Event,),
        _REPORTS,
        "REPORT-{shard}",
    ),
    Channel(
        "report-object",
        "report.{shard}.{node}.{kind}.{namespace}.{name}",
        "a node's outbox",
        "What a node says of one pod or device; the last one counts.",
        (event.Event,),
        _REPORTS,
        "REPORT-{shard}",
    ),
    Channel(
        "telemetry",
        "telemetry.{node}.{device}.{property}",
        "mappers, through the node's own stream",
        "One sample of a device property; seq proves that none was lost or doubled.",
        (telemetry.Sample,),
        stream="TELEMETRY",
    ),
    Channel(
        "identity-token",
        "identity.tokens.{token}",
        "the hub",
        "A join token's life (its secret is not in it).",
        (event.Event,),
        stream="IDENTITY",
    ),
    Channel(
        "identity-node",
        "identity.nodes.{node}",
        "the hub",
        "Which key a node has, and whether it is revoked.",
        (event.Event,),
        stream="IDENTITY",
    ),
    Channel(
        "identity-api-keys",
        "identity.keys.api",
        "API servers and skerry hub api-keys",
        "The keys that sign tokens of service accounts (private halves sealed).",
        (event.Event,),
        stream="IDENTITY",
    ),
    Channel(
        "identity-door",
        "identity.doors.{node}",
        "the hub",
        "Until when a node that flooded the hub is shut out.",
        (event.Event,),
        stream="IDENTITY",
    ),
    Channel(
        "identity-trust",
        "identity.trust.{node}",
        "the hub",
        "Which of the hub's authorities a node trusts, by its own word.",
        (event.Event,),
        stream="IDENTITY",
    ),
    Channel(
        "audit",
        "audit.{what}.{name}",
        "the hub and the cloud",
        "What was refused or granted, and to whom.",
        (event.Event,),
        stream="AUDIT",
    ),
    Channel(
        "lease",
        "lease.{role}",
        "cloud processes",
        "Who leads a role that must not be done twice; the last one counts, renewed every other second.",
        (leases.LeaseRecord,),
        stream="LEASES",
    ),
    Channel(
        "sync",
        "sync.{node}.{nonce}",
        "a node's replica",
        "Asks for everything of its scopes since its cursor.",
        (sync.SyncRequest,),
        reply=sync.SyncAnswer,
        reply_to="answer.{node}.{nonce}",
    ),
    Channel("beat", "beat.{node}", "a node", "The sign of life of a node's link, not stored.", (reports.Beat,)),
    Channel(
        "join",
        "join.{token}",
        "a machine with a join token",
        "Asks to become a node.",
        (joining.JoinRequest,),
        reply=joining.JoinAnswer,
    ),
    Channel(
        "renew",
        "renew.{node}",
        "a node",
        "Asks for a fresh JWT.",
        (joining.RenewRequest,),
        reply=joining.JoinAnswer,
    ),
    Channel(
        "tunnel-open",
        "cmd.{node}.tunnel",
        "an API server",
        "Asks a node for logs, a command, or a connection into a pod.",
        (tunnel.Open,),
        reply=tunnel.Opened,
    ),
    Channel(
        "tunnel-down",
        "tunnel.{node}.down.{gateway}.{session}",
        "an API server",
        "Frames, not msgpack: the layout is in schemas/tunnel.py; a CLOSE frame carries an Ended.",
        (tunnel.Ended,),
    ),
    Channel(
        "tunnel-up",
        "tunnel.{node}.up.{gateway}.{session}",
        "a node",
        "Frames, not msgpack: the layout is in schemas/tunnel.py; a CLOSE frame carries an Ended.",
        (tunnel.Ended,),
    ),
    Channel(
        "device-list",
        "device.list",
        "a mapper, on the node's own bus",
        "Asks for the devices of its protocol.",
        (devices.DeviceListRequest,),
        reply=devices.DeviceList,
    ),
    Channel(
        "device-twin",
        "device.twin",
        "a mapper, on the node's own bus",
        "Hands over what it saw; answered once stored.",
        (devices.TwinUpdate,),
        reply=devices.TwinUpdateAnswer,
    ),
    Channel(
        "device-changed",
        "device.changed.{protocol}",
        "the edge daemon, on the node's own bus",
        "Empty: the list of devices of this protocol changed, ask again.",
    ),
)


def json_schema(model: type[BaseModel]) -> Document:
    """A JSON Schema that stands alone."""
    schema = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{model.__name__}.schema.json", **schema}


def documents(version: str) -> dict[str, Document]:
    """Every document by file name; ``version`` is that of the code they were generated from."""
    files = {f"{m.__name__}.schema.json": json_schema(m) for m in MODELS}
    files["asyncapi.json"] = asyncapi(version)
    return files


def asyncapi(version: str) -> Document:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Skerry",
            "version": version,
            "description": "Every subject on the bus of Skerry: NATS subjects with msgpack payloads.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/msgpack",
        "channels": {c.id: _channel(c) for c in CHANNELS}
        | {f"{c.id}-reply": _reply_channel(c) for c in CHANNELS if c.reply},
        "operations": {c.id: _operation(c) for c in CHANNELS},
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _parameters(address: str) -> Document:
    names = re.findall(r"{(\w+)}", address)
    return {"parameters": {n: {"description": PARAMETERS[n]} for n in names}} if names else {}


def _message_names(channel: Channel) -> list[str]:
    return [m.__name__ for m in channel.models] or ["Empty"]


def _channel(c: Channel) -> Document:
    stored = f"  Stored in stream {c.stream}." if c.stream else ""
    carries = f"  data of the event: {', '.join(m.__name__ for m in c.data)}, by kind." if c.data else ""
    return {
        "address": c.address,
        "description": f"{c.what}  Written by {c.who}.{stored}{carries}",
        **_parameters(c.address),
        "messages": {n: {"$ref": f"#/components/messages/{n}"} for n in _message_names(c)},
    }


def _reply_channel(c: Channel) -> Document:
    assert c.reply is not None
    name = c.reply.__name__
    return {
        "address": c.reply_to or None,  # null: the asker's inbox, named in the request (AsyncAPI 3.0, Channel Object)
        "description": f"Answers to {c.address}.",
        **_parameters(c.reply_to),
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }


def _operation(c: Channel) -> Document:
    """``send`` as seen by who writes there."""
    operation: Document = {
        "action": "send",
        "summary": c.what,
        "channel": {"$ref": f"#/channels/{c.id}"},
        "messages": [{"$ref": f"#/channels/{c.id}/messages/{n}"} for n in _message_names(c)],
    }
    if c.reply:
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{c.id}-reply"},
            "messages": [{"$ref": f"#/channels/{c.id}-reply/messages/{c.reply.__name__}"}],
        }
        if not c.reply_to:
            operation["reply"]["address"] = {"location": "$message.header#/reply", "description": "the NATS reply subject"}
    return operation


def _messages() -> Document:
    messages: Document = {
        m.__name__: {"name": m.__name__, "payload": {"$ref": f"#/components/schemas/{m.__name__}"}} for m in MODELS
    }
    return messages | {"Empty": {"name": "Empty", "payload": {"type": "null"}}}


def _schemas() -> Document:
    """Every model and what it is made of, in one flat list."""
    found: Document = {}
    for model in MODELS:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, part in schema.pop("$defs", {}).items():
            assert found.setdefault(name, part) == part, f"two models are called {name}"
        found[model.__name__] = schema
    return found
