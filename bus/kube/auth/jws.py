"""Signed claims as text: JWT in compact form with ES256, and the JSON Web Key Set by which others check it.

One algorithm and nothing of a token decides how it is checked: ``alg`` must be ES256, ``kid`` must be one of the keys that
the caller names.  (What goes wrong with JWTs is mostly a header that is believed.)
Source: RFC 7515 (JWS), RFC 7518 3.4 (ES256: the signature is r and s, 32 bytes each), RFC 7517 (JWK), RFC 7519 (JWT).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

ALGORITHM = "ES256"
TOKEN_CHARS_MAX = 16 << 10
_COORDINATE_BYTES = 32
_SIGNATURE = ec.ECDSA(hashes.SHA256())

Claims = dict[str, Any]


class BadToken(ValueError):
    """No token of ours; the message says why and never repeats it."""


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    if "=" in text or "+" in text or "/" in text:
        raise BadToken("a part of it is not base64url")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as e:
        raise BadToken("a part of it is not base64url") from e


def _map(data: bytes) -> Claims:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise BadToken("a part of it is not JSON") from e
    if not isinstance(found, dict):
        raise BadToken("a part of it is not a JSON object")
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def sign(claims: Claims, kid: str, key: ec.EllipticCurvePrivateKey) -> str:
    """``key`` is on P-256."""
    head = f"{_b64(_json({'alg': ALGORITHM, 'kid': kid}))}.{_b64(_json(claims))}"
    r, s = utils.decode_dss_signature(key.sign(head.encode(), _SIGNATURE))
    return f"{head}.{_b64(r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES))}"


def looks_like(text: str) -> bool:
    """Whether it has the form of a token, so that it is worth reading."""
    return text.count(".") == 2 and text.startswith("eyJ")


def key_of(token: str) -> str:
    """The key that a token says it was signed with, unproved; raises BadToken."""
    return str(_map(_unb64(token.split(".", 1)[0])).get("kid") or "")


def verify(token: str, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> tuple[str, Claims]:
    """(kid, claims) of a token that one of ``keys`` signed; times and meaning are for the caller to check.

    Raises BadToken."""
    if len(token) > TOKEN_CHARS_MAX or not token.isascii():
        raise BadToken("it is too long, or no token at all")
    parts = token.split(".")
    if len(parts) != 3:
        raise BadToken("it has not three parts")
    header = _map(_unb64(parts[0]))
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or "crit" in header or not isinstance(kid, str):
        raise BadToken(f"its header is none of ours ({ALGORITHM} and a key's id)")
    key = keys.get(kid)
    if key is None:
        raise BadToken("the key that signed it is unknown, or was retired")
    signature = _unb64(parts[2])
    if len(signature) != 2 * _COORDINATE_BYTES:
        raise BadToken("its signature has the wrong length")
    r, s = int.from_bytes(signature[:_COORDINATE_BYTES]), int.from_bytes(signature[_COORDINATE_BYTES:])
    try:
        key.verify(utils.encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), _SIGNATURE)
    except InvalidSignature as e:
        raise BadToken("its signature is wrong") from e
    return kid, _map(_unb64(parts[1]))


def key_set(keys: Mapping[str, ec.EllipticCurvePublicKey]) -> dict[str, Any]:
    """The JSON Web Key Set."""
    listed = []
    for kid, key in keys.items():
        point = key.public_numbers()
        x, y = (_b64(n.to_bytes(_COORDINATE_BYTES)) for n in (point.x, point.y))
        listed.append({"use": "sig", "kty": "EC", "kid": kid, "crv": "P-256", "alg": ALGORITHM, "x": x, "y": y})
    return {"keys": listed}
