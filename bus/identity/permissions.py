"""What a user may say and hear at the hub.  Pure; the one place to read when asking "can a node ...?".

A node has no JetStream rights.  Its whole world at the hub is the lists below, and each subject names the node itself,
so that what a message claims and who may send it are the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence

from bus.identity.jwt import Claims
from schemas import subjects
from schemas.reports import REPORT_BYTES_MAX

ALL = "all"  # the scope that every node hears
TELEMETRY_STREAM = "TELEMETRY"  # on the leaf and at the hub

# A command's answer may come in parts and late (a long `exec`), but not for ever.
RESPONSES_MAX = 1024
RESPONSE_TTL_S = 300

# Answers to commands, seen from a node: `_R_.<account's random>.<request's random>`.  A client could do with `resp` below, a
# leaf link can't (the leaf needs to hear of interest in advance).  It lets a node answer a request it did not get only by
# guessing 36 random bits while the request waits.
RESPONSES = "_R_.>"

_UNLIMITED: Claims = {"subs": -1, "data": -1, "payload": -1}
# A report or sample at its limit, and headers.  The server ends the connection of whoever sends more, client or leaf.
NODE_PAYLOAD_MAX = REPORT_BYTES_MAX + (64 << 10)
NODE_SUBS_MAX = 500  # a replica holds one per scope and some services; a leaf adds its local interest
_CONNECTIONS = ["STANDARD", "WEBSOCKET", "LEAFNODE", "LEAFNODE_WS"]


def life_of(public_key: str) -> str:
    """The life of a node's leaf store (``subjects.uplink``): a wiped node makes a new key, so the key tells lives apart."""
    return public_key[1:17]


def node(name: str, public_key: str, shards: int, scopes: Sequence[str] = ()) -> Claims:
    """The ``nats`` part of a node's user JWT.  ``scopes`` are node groups it belongs to, beside its name and ``all``."""
    token = subjects.escape(name)
    up = subjects.uplink(name, life_of(public_key))
    return {
        "type": "user",
        **_UNLIMITED,
        "subs": NODE_SUBS_MAX,
        "payload": NODE_PAYLOAD_MAX,
        "allowed_connection_types": _CONNECTIONS,
        "pub": {
            "allow": [
                f"sync.{token}.*",
                subjects.report_node(name, shards),
                subjects.beat(name),
                subjects.renew_request(name),
                f"{up}.deliver.>",
                subjects.tunnels_up(name),
                RESPONSES,
            ]
        },
        "sub": {
            "allow": [
                subjects.live_scope(name),
                subjects.live_scope(ALL),
                *(subjects.live_scope(s) for s in scopes),
                f"answer.{token}.*",
                f"cmd.{token}.>",
                subjects.tunnels_down(name),
                "$SRV.>",
                f"{subjects.inbox(name)}.>",
                f"{up}.api.CONSUMER.CREATE.{TELEMETRY_STREAM}.>",
                f"$JS.FC.{TELEMETRY_STREAM}.>",
            ]
        },
        "resp": {"max": RESPONSES_MAX, "ttl": RESPONSE_TTL_S * 1_000_000_000},
    }


def bootstrap(token: str) -> Claims:
    """The user inside a join token: it may ask to join with this token, and hear the answer."""
    return {
        "type": "user",
        **_UNLIMITED,
        "subs": 4,
        "allowed_connection_types": ["STANDARD", "WEBSOCKET"],
        "pub": {"allow": [subjects.join_request(token)]},
        "sub": {"allow": [f"{bootstrap_inbox(token)}.>"]},
    }


def bootstrap_inbox(token: str) -> str:
    return f"_INBOX.join-{subjects.escape(token)}"


def late_renewal(name: str) -> Claims:
    """The user that a node falls back to when its JWT expired while it was out of reach: it may only ask for a new one."""
    return {
        "type": "user",
        **_UNLIMITED,
        "subs": 4,
        "allowed_connection_types": ["STANDARD", "WEBSOCKET"],
        "pub": {"allow": [subjects.renew_request(name)]},
        "sub": {"allow": [f"{subjects.inbox(name)}.>"]},
    }


def everything() -> Claims:
    """A user of CORE or SYS: the whole account."""
    return {"type": "user", **_UNLIMITED}
