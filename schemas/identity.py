"""What the hub knows about tokens and nodes: the ``data`` of events in IDENTITY and AUDIT.

``identity.tokens.<id>``, ``identity.nodes.<node>``, ``identity.doors.<node>``, ``identity.trust.<node>`` and
``identity.keys.api`` hold whole states: the last event of a subject counts.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TOKEN_CREATED = "identity.token.created"
TOKEN_USED = "identity.token.used"
TOKEN_REVOKED = "identity.token.revoked"  # ``expires`` is then in the past
NODE_JOINED = "identity.node.joined"
NODE_REVOKED = "identity.node.revoked"
API_KEYS_CHANGED = "identity.apikeys.changed"  # made, rotated or retired
NODE_TRUSTS = "identity.node.trusts"
DOOR_SHUT = "identity.door.shut"
DOOR_OPENED = "identity.door.opened"
AUDIT_JOIN_ACCEPTED = "audit.join.accepted"
AUDIT_JOIN_REFUSED = "audit.join.refused"
AUDIT_RENEW_REFUSED = "audit.renew.refused"
AUDIT_REVOKED = "audit.revoked"
AUDIT_REFUSED = "audit.refused"  # by the server: a subject, a login, a limit
AUDIT_FLOOD = "audit.flood"  # a node asked more than its share
AUDIT_CLONE = "audit.clone"  # two daemons live on one identity

Micros = Annotated[int, Field(ge=0)]

NODE_NAME_MAX = 253
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NODE_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\Z")
RESERVED_NAMES = frozenset({"all"})  # a scope of its own


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class TokenState(Model):
    secret_sha256: str
    expires: Micros
    node: str | None = Field(default=None, description="the only node that may use it")
    bootstrap_key: str
    used_by: str | None = None
    used_key: str | None = Field(default=None, description="public key of the node that used it")


class NodeState(Model):
    public_key: str
    token: str
    labels: dict[str, str] = Field(default_factory=dict)
    revoked: bool = False
    reason: str = ""
    former: dict[str, Micros] = Field(
        default_factory=dict, description="keys that this one took the place of, and when: refused like revoked ones"
    )


class DoorState(Model):
    """The door of a node that flooded the hub: it is shut for a while."""

    public_key: str
    until: Micros = Field(description="by the cloud's clock; 0 when it was opened")
    opened: Micros = Field(default=0, description="when it was opened last")
    times: Annotated[int, Field(ge=0)] = Field(description="how often it was shut, so that the next time is longer")
    reason: str = ""


class TrustState(Model):
    """Which authorities a node trusts, as it said itself."""

    public_key: str
    generation: Annotated[int, Field(ge=0)]


class ApiKey(Model):
    """A key that signs tokens of service accounts (ES256)."""

    kid: str = Field(min_length=1, max_length=64)
    public: str = Field(description="PEM, SubjectPublicKeyInfo")
    sealed: str = Field(description="the private key, encrypted with a key that only the hub's folder has; base64")
    created: Micros
    signs_from: Micros = Field(description="later than created: by then every API server knows it")
    verifies_until: Micros | None = Field(default=None, description="None while it may still sign; then its tokens' end")


class ApiKeys(Model):
    """All keys whose tokens count, the oldest first."""

    keys: list[ApiKey] = Field(min_length=1, max_length=64)


class Audited(Model):
    """One decision about access, whichever way it went."""

    reason: str = ""
    node: str = ""
    token: str = ""
    public_key: str = ""
    count: int = Field(default=1, description="how often, when it was not told each time")


def check_node_name(name: str) -> str:
    """A node is a Kubernetes object: RFC 1123 subdomain (Kubernetes, Object Names and IDs).  Raises ValueError."""
    if len(name) > NODE_NAME_MAX or not _NODE_NAME.match(name):
        raise ValueError(f"{name[:80]!r} is not a node name: lower-case letters, digits, '-' and '.', as in DNS")
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved: it means every node")
    return name
