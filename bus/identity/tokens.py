"""Join tokens: what an operator hands to a node.

A token is one string: where the hub is, whom to trust (its CA), credentials that allow one subject, and a secret.  The hub
keeps a hash of the secret as an event in IDENTITY; a token is used by appending to that event's subject with the expected
sequence, so of two uses at once the log lets one win.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from typing import TYPE_CHECKING

from bus import log as buslog
from bus import stamp
from bus.identity import jwt, keys, permissions
from schemas import codec, event, identity, subjects
from schemas.joining import JoinToken

if TYPE_CHECKING:  # the hub's side needs cryptography, 8 MB that an edge daemon must not carry
    from bus.hub.init import Hub

PREFIX = "skerry1."
TOKEN_CHARS_MAX = 16_384
TTL_S_DEFAULT = 24 * 3600
TTL_S_MAX = 30 * 24 * 3600
# The bootstrap credentials live on after the token, so that a late node hears "expired" from us, and the audit log sees it,
# instead of a bare refusal by the server.
CREDENTIALS_GRACE_S = 30 * 24 * 3600


class BadToken(ValueError):
    """A text that is not a join token; the message says why, and never repeats it."""


def encode(token: JoinToken) -> str:
    return PREFIX + base64.urlsafe_b64encode(codec.encode(token)).rstrip(b"=").decode()


def decode(text: str) -> JoinToken:
    """Raises BadToken."""
    text = "".join(text.split())  # terminals and mails wrap long lines
    if not text.startswith(PREFIX):
        raise BadToken(f"a join token begins with {PREFIX!r}")
    if len(text) > TOKEN_CHARS_MAX:
        raise BadToken(f"a join token has at most {TOKEN_CHARS_MAX} characters, got {len(text)}")
    try:
        raw = base64.b64decode(text[len(PREFIX) :] + "=" * (-(len(text) - len(PREFIX)) % 4), altchars=b"-_", validate=True)
        token = codec.decode_as(JoinToken, raw)
        keys.from_seed(token.seed, "user")
    except (binascii.Error, ValueError) as e:  # DecodeError and BadKey are ValueErrors
        raise BadToken("the join token is damaged: copy it again, whole") from e
    return token


def secret_hash(secret: str) -> str:
    """The secret has 256 random bits: a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def create_token(
    log: buslog.Log,
    hub: Hub,
    *,
    node: str | None = None,
    ttl_s: int = TTL_S_DEFAULT,
    actor: str = "",
) -> str:
    """A new token, for one use.  With ``node`` only that node may use it, and a known node of that name gets a new key by
    it (a replaced machine).  Needs a CORE connection under ``log``.  Raises ValueError, LogError, HubError."""
    if not 0 < ttl_s <= TTL_S_MAX:
        raise ValueError(f"a token lives for at most {TTL_S_MAX} s, {ttl_s} were asked for")
    if node is not None:
        identity.check_node_name(node)
    token_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    now_us = stamp.now_us()
    now_s = now_us // 1_000_000
    key = keys.generate("user")
    bootstrap = jwt.sign(
        key.public,
        f"join-{token_id}",
        {**permissions.bootstrap(token_id), "issuer_account": hub.accounts.join},
        hub.key("join-signing"),
        now_s=now_s,
        expires_s=now_s + ttl_s + CREDENTIALS_GRACE_S,
    )
    state = identity.TokenState(
        secret_sha256=secret_hash(secret), expires=now_us + ttl_s * 1_000_000, node=node, bootstrap_key=key.public
    )
    ev = identity_event(identity.TOKEN_CREATED, "tokens", token_id, state.model_dump(), actor=actor)
    await log.append(subjects.identity_token(token_id), ev, expect=buslog.Expect(0))
    return encode(
        JoinToken(
            urls=hub.urls,
            leaf_urls=hub.leaf_urls,
            ca=hub.ca_path.read_text(),
            id=token_id,
            secret=secret,
            jwt=bootstrap,
            seed=key.seed,
        )
    )


def identity_event(
    type_: str,
    resource: str,
    name: str,
    data: dict[str, object],
    *,
    actor: str = "",
    cause: event.Event | None = None,
    stamps: stamp.Stamps = stamp.HOST,
) -> event.Event:
    """An event of the IDENTITY or AUDIT stream."""
    i = stamps.new_id()
    return event.Event(
        id=i,
        type=type_,
        resource=resource,
        name=name,
        time=stamps.now_us(),
        source=stamp.source("bus/identity"),
        actor=actor,
        cause=None if cause is None else cause.id,
        trace=i if cause is None else cause.trace,
        data=data,
    )
