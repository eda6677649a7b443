"""How a node joins: the token an operator hands over, what the node asks, what it gets.  Never stored whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class JoinToken(Model):
    """``skerry1.`` + base64url(msgpack of this).  ``jwt`` and ``seed`` allow one subject."""

    urls: Annotated[list[str], Field(min_length=1)] = Field(
        description="where nodes' own connections reach the hub (tls://host:port)"
    )
    leaf_urls: list[str] = Field(default_factory=list, description="where leaf servers reach the hub")
    ca: str = Field(description="PEM of the hub's CA")
    id: str
    secret: str
    jwt: str
    seed: str


class JoinRequest(Model):
    token: str = Field(description="the token's id")
    secret: str
    node: str
    public_key: str = Field(description="the node's user nkey; its seed never leaves the node")
    labels: dict[str, str] = Field(default_factory=dict)


class NodeIdentity(Model):
    """What the node keeps beside its seed."""

    node: str
    hub: str = Field(description="the hub's id; another hub's answers are refused")
    shards: int
    jwt: str
    direct_jwt: str = Field(
        default="",
        description="as ``jwt``, for a node without a leaf server: less, and so a smaller link; empty: use ``jwt``",
    )
    late_jwt: str = Field(description="for the same key, without expiry: it may only ask for a new ``jwt``")
    expires: int = Field(description="when ``jwt`` ends, seconds since 1970")
    urls: list[str]
    leaf_urls: list[str]
    ca: str = Field(description="PEM of the authorities to trust")
    ca_generation: int = Field(default=1, ge=1, description="of ``ca``: it was changed that often")
    ca_proof: str = Field(default="", description="base64: ``ca`` signed by the node's account (bus/identity/trust.py)")


class JoinAnswer(Model):
    status: Literal["ok", "refused"]
    message: str = ""
    identity: NodeIdentity | None = None


class RenewRequest(Model):
    public_key: str
    ca_generation: int = Field(default=0, ge=0, description="of the authorities that the node trusts now; 0: not said")
