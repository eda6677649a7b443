"""What a user may say and hear at the hub.  Pure; the one place to read when asking "can a node ...?".

A node has no JetStream rights.  Its whole world at the hub is the lists below, and each subject names the node itself,
so that what a message claims and who may send it are the same thing.
"""

from __future__ import annotations

from bus.identity.jwt import Claims
from schemas import subjects
from schemas.reports import REPORT_BYTES_MAX

ALL = "all"  # the scope that every node hears
TELEMETRY_STREAM = "TELEMETRY"  # on the leaf and at the hub

# A command's answer may come in parts and late (a long `exec`), but not for ever.
RESPONSES_MAX = 1024
RESPONSE_TTL_S = 300

# Answers to commands, seen from a node: `_R_.<account's random>.<request's random>`.  A client does with `resp` below, a
# leaf link can't (the leaf needs to hear of interest in advance).  It lets a node answer a request it did not get only by
# guessing 36 random bits while the request waits.
_ANSWERS = "_R_"
RESPONSES = f"{_ANSWERS}.>"

_FLOW = "FC"  # the hub's word to a leaf's stream that it may go on: $JS.FC.<stream>...

_UNLIMITED: Claims = {"subs": -1, "data": -1, "payload": -1}
# A report or sample at its limit, and headers.  The server ends the connection of whoever sends more, client or leaf.
NODE_PAYLOAD_MAX = REPORT_BYTES_MAX + (64 << 10)
NODE_SUBS_MAX = 500  # a replica holds one per scope and some services; a leaf adds its local interest
_CONNECTIONS = ["STANDARD", "WEBSOCKET", "LEAFNODE", "LEAFNODE_WS"]


def life_of(public_key: str) -> str:
    """The life of a node's leaf store (``subjects.uplink``): a wiped node makes a new key, so the key tells lives apart."""
    return public_key[1:17]


def node(name: str, public_key: str, shards: int, *, leaf: bool = True) -> Claims:
    """The ``nats`` part of a node's user JWT, spelled out: for a hub whose signing key is not bound to the role below.

    ``leaf``: for a leaf server, from whose store the hub fetches telemetry.  A node without one is served as well by less,
    and each subject here is some hundred bytes of the hub's memory for as long as the link is there."""
    tags = dict(tag.split(":", 1) for tag in _tags(name, public_key, shards, leaf))
    filled = (tags["shard"], *(tags.get(tag, "") for tag in ("life", "flow", "answers")))
    claims = _node(subjects.escape(name), *filled)
    for way in ("pub", "sub"):
        claims[way]["allow"] = [s for s in claims[way]["allow"] if all(s.split("."))]
    return {"type": "user", **claims}


def node_role() -> Claims:
    """The same for every node at once: a template that the server fills in from the JWT (its name and tags).

    The account binds the key that signs nodes' JWTs to it (ADR-14, scoped signing keys).  A JWT then says only who the node
    is, which is a third of the bytes; and whoever steals that key can make nodes, and nothing that is more than a node."""
    return _node("{{name()}}", "{{tag(shard)}}", "{{tag(life)}}", "{{tag(flow)}}", "{{tag(answers)}}")


def node_in_role(name: str, public_key: str, shards: int, *, leaf: bool = True) -> Claims:
    """The ``nats`` part of a JWT under the role.  Its ``name`` must be ``name_in_role``.

    A subject of the role for which the JWT has no tag is left out by the server, so the tags say also what it is *not* for:
    ``leaf`` as in ``node``."""
    return {"type": "user", "tags": _tags(name, public_key, shards, leaf)}


def _tags(name: str, public_key: str, shards: int, leaf: bool) -> list[str]:
    of_leaf = [f"life:{life_of(public_key)}", f"flow:{_FLOW}", f"answers:{_ANSWERS}"] if leaf else []
    return [f"shard:{subjects.shard_of(name, shards)}", *of_leaf]


def name_in_role(name: str) -> str:
    """What the role's subjects have where a node stands: a token, so no wildcard and no further token."""
    return subjects.escape(name)


def _node(token: str, shard: str, life: str, flow: str, answers: str) -> Claims:
    up = f"up.{token}.{life}"
    return {
        **_UNLIMITED,
        "subs": NODE_SUBS_MAX,
        "payload": NODE_PAYLOAD_MAX,
        "allowed_connection_types": _CONNECTIONS,
        "pub": {
            "allow": [
                f"sync.{token}.*",
                f"report.{shard}.{token}.>",
                f"beat.{token}",
                f"renew.{token}",
                f"{up}.deliver.>",
                f"tunnel.{token}.up.>",
                f"{answers}.>",
            ]
        },
        "sub": {
            "allow": [
                f"live.{token}.>",
                subjects.live_scope(ALL),
                f"answer.{token}.*",
                f"cmd.{token}.>",
                f"tunnel.{token}.down.>",
                f"_INBOX.{token}.>",
                f"{up}.api.CONSUMER.CREATE.{TELEMETRY_STREAM}.>",
                f"$JS.{flow}.{TELEMETRY_STREAM}.>",
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
