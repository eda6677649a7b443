"""The four accounts of a hub and the few doors between them.  Pure.

CORE  owns the streams; cloud processes live here.
EDGE  holds the nodes.  No JetStream: a reply that a node aims at ``$JS.API...`` reaches nobody (confused deputy).  What a
      node may do is in the role that the key which signs for it is bound to (``bus.hub.signers``).  A user of whom
      neither a role nor its JWT says what it may do may do nothing: without this, it might do everything.
JOIN  holds who has only a join token, or an expired JWT: they may ask to join or renew, nothing else.
SYS   the server's own: account claims and revocations are pushed here.

EDGE -> CORE  requests: sync, report (the stream's ack comes back), beat, renew; messages: telemetry deliveries, tunnels
CORE -> EDGE  messages: live, answer, tunnels; requests: cmd, the two that fetch a leaf's telemetry
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bus.identity.jwt import Claims
from bus.identity.permissions import TELEMETRY_STREAM

_Kind = Literal["service", "stream"]

# Requests that nodes (or joiners) make of CORE.
_SYNC = ("sync.*.*", "report.>", "beat.*", "renew.*")
_JOIN = ("join.*", "renew.*")
# Messages of CORE that nodes hear.
_LIVE = ("live.>", "answer.>", "tunnel.*.down.>")
# Requests that CORE makes of nodes; Stream: many answers to one request.
_COMMANDS = (
    ("cmd.>", "Stream"),
    (f"up.*.*.api.CONSUMER.CREATE.{TELEMETRY_STREAM}.>", "Singleton"),
    (f"$JS.FC.{TELEMETRY_STREAM}.>", "Singleton"),
)
# Messages of nodes that CORE hears.
_NODES = ("up.*.*.deliver.>", "tunnel.*.up.>")

# CORE imports this one call from itself under another name, so that a history can mirror its stream as if that were
# elsewhere (why: bus.hub.streams).  JetStream's own second name, by domain, is not mapped for what the server itself sends.
_CREATE_CONSUMER = "CONSUMER.CREATE.>"
MIRROR_API = "mirror.api"

_LIMITS: Claims = {
    "subs": -1,
    "data": -1,
    "payload": -1,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "conn": -1,
    "leaf": -1,
}
_JETSTREAM: Claims = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


@dataclass(frozen=True, slots=True)
class Accounts:
    """Public account keys."""

    core: str
    edge: str
    join: str
    sys: str


def _export(subject: str, kind: _Kind, response: str = "Singleton") -> Claims:
    claims: Claims = {"name": subject, "subject": subject, "type": kind}
    if kind == "service":
        claims["response_type"] = response
    return claims


def _import(subject: str, kind: _Kind, account: str) -> Claims:
    return {"name": subject, "subject": subject, "account": account, "type": kind}


def _account(limits: Claims, exports: list[Claims], imports: list[Claims], signing_keys: Sequence[str | Claims]) -> Claims:
    claims: dict[str, Any] = {"type": "account", "limits": limits, "default_permissions": {"pub": {}, "sub": {}}}
    if exports:
        claims["exports"] = exports
    if imports:
        claims["imports"] = imports
    if signing_keys:
        claims["signing_keys"] = list(signing_keys)
    return claims


def core(accounts: Accounts) -> Claims:
    services = dict.fromkeys(_SYNC + _JOIN)
    return _account(
        {**_LIMITS, **_JETSTREAM},
        [_export(s, "service") for s in (*services, f"$JS.API.{_CREATE_CONSUMER}")] + [_export(s, "stream") for s in _LIVE],
        [_import(s, "service", accounts.edge) for s, _ in _COMMANDS]
        + [_import(s, "stream", accounts.edge) for s in _NODES]
        + [
            {
                **_import(f"$JS.API.{_CREATE_CONSUMER}", "service", accounts.core),
                "local_subject": f"{MIRROR_API}.{_CREATE_CONSUMER}",
            }
        ],
        [],
    )


def edge(accounts: Accounts, signing_keys: Sequence[str | Claims]) -> Claims:
    claims = _account(
        dict(_LIMITS),
        [_export(s, "service", response) for s, response in _COMMANDS] + [_export(s, "stream") for s in _NODES],
        [_import(s, "service", accounts.core) for s in _SYNC] + [_import(s, "stream", accounts.core) for s in _LIVE],
        signing_keys,
    )
    return {**claims, "default_permissions": {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}}


def join(accounts: Accounts, signing_keys: Sequence[str | Claims]) -> Claims:
    return _account({**_LIMITS, "leaf": 0}, [], [_import(s, "service", accounts.core) for s in _JOIN], signing_keys)


def sys() -> Claims:
    return _account(dict(_LIMITS), [], [], [])
