"""NATS JWTs, version 2: how the operator vouches for accounts, and accounts for users.

Only what Skerry mints: operator, account and user claims, signed with Ed25519 nkeys.
Source: https://github.com/nats-io/jwt (v2), ADR-14; algorithm name ``ed25519-nkey``.
Pure: the caller passes the time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from bus.identity.keys import Key

Claims = dict[str, Any]

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
JWT_BYTES_MAX = 1 << 20  # nats-server's default max_payload, which also bounds a claims push


class BadJwt(ValueError):
    """A text that is not a NATS JWT."""


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def sign(
    subject: str, name: str, nats: Claims, signer: Key, *, now_s: int, expires_s: int | None = None, numbered: bool = True
) -> str:
    """A JWT for the public key ``subject``.  Times are seconds since 1970; ``expires_s`` None never expires.  ``numbered``:
    with an id, which is a hash of the rest and needed by nobody; a node sends its JWT whenever it connects."""
    claims: Claims = {"iat": now_s, "iss": signer.public, "name": name, "sub": subject, "nats": {**nats, "version": 2}}
    if expires_s is not None:
        claims["exp"] = expires_s
    if numbered:
        claims["jti"] = base64.b32encode(hashlib.sha256(_json(claims)).digest()).rstrip(b"=").decode()
    head = f"{_b64(_json(_HEADER))}.{_b64(_json(claims))}"
    return f"{head}.{_b64(signer.sign(head.encode()))}"


def claims_of(token: str) -> Claims:
    """The claims of a JWT, *not verified*: for reading back what we wrote or were given over TLS.  Raises BadJwt."""
    parts = token.strip().split(".")
    if len(parts) != 3 or len(token) > JWT_BYTES_MAX:
        raise BadJwt("a JWT has three parts")
    try:
        raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError) as e:
        raise BadJwt(f"the claims of a JWT are JSON in base64url: {type(e).__name__}") from e
    if not isinstance(claims, dict) or not isinstance(claims.get("nats"), dict):
        raise BadJwt("the claims of a NATS JWT are a map with a map 'nats'")
    return claims


def same_claims(a: Claims, b: Claims) -> bool:
    """Whether two JWTs say the same, whenever they were minted."""
    return {k: v for k, v in a.items() if k not in ("iat", "jti")} == {k: v for k, v in b.items() if k not in ("iat", "jti")}
