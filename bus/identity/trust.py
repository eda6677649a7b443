"""Which authorities a node trusts, and by what else than an authority it would believe in a new one.

The hub's certificates lead to an authority of its own, which a node has from its join token.  The hub can replace it
(bus/hub/authority.py): for a while nodes are given the old and the new one, and each such bundle has a generation.  A node
that was away meanwhile trusts only what is no longer used, and must not believe whoever answers at the hub's address.  But
it knows the public key of the account that it belongs to: its own JWT names it.  So the hub signs each bundle with the
account's key, and a bundle of a later generation that is signed so is the hub's word, whoever carried it.  One of an earlier
generation is not: it may trust an authority that was given up because it was stolen.
"""

from __future__ import annotations

import base64
import binascii
import re

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from bus.identity import jwt, keys
from schemas.joining import NodeIdentity

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def certificates(bundle: str) -> list[str]:
    """PEM of each, as they stand."""
    return _PEM.findall(bundle)


def share(one: str, other: str) -> bool:
    """Whether two bundles have an authority in common."""
    return not {*map(_bare, certificates(one))}.isdisjoint(map(_bare, certificates(other)))


def _bare(pem: str) -> str:
    return "".join(pem.split())


def _statement(hub: str, generation: int, ca: str) -> bytes:
    return f"skerry trusts\n{hub}\n{generation}\n{ca}".encode()


def sign(account: keys.Key, hub: str, generation: int, ca: str) -> str:
    return base64.b64encode(account.sign(_statement(hub, generation, ca))).decode()


def account_of(identity: NodeIdentity) -> str:
    """The account that the node belongs to; "" when its JWT does not say.  Raises BadJwt."""
    return str(jwt.claims_of(identity.jwt)["nats"].get("issuer_account", ""))


def proves(identity: NodeIdentity, known: NodeIdentity) -> bool:
    """Whether the bundle in ``identity``, which came from anywhere, is the word of the hub of ``known``, and a later one."""
    if identity.hub != known.hub or identity.ca_generation <= known.ca_generation or not certificates(identity.ca):
        return False
    try:
        account = keys.check_public(account_of(known), "account")
        raw = base64.b32decode(account)[1:33]
        proof = base64.b64decode(identity.ca_proof, validate=True)
        VerifyKey(raw).verify(_statement(identity.hub, identity.ca_generation, identity.ca), proof)
    except (jwt.BadJwt, keys.BadKey, BadSignatureError, binascii.Error, ValueError, TypeError):
        return False
    return True
