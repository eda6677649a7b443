"""Changing an account while the hub runs: its claims are pushed to the server, which applies them at once.

Used for revocations.  Needs a SYS connection and the operator's key.
"""

from __future__ import annotations

import json

import nats.errors

from bus import connect, stamp
from bus.hub.init import Hub
from bus.identity import jwt

PUSH_TIMEOUT_S = 10.0
# An account's revocations travel in its JWT: a thousand make it 95 kB, 1 MB is the limit (NATS-FACTS.md).  A node's JWT dies
# by itself, so a revocation is forgotten once every JWT that it could concern has expired.
REVOCATION_KEPT_S = 40 * 24 * 3600


class PushFailed(Exception):
    """The server did not take the claims; the message has its words."""


async def revoke(hub: Hub, sys: connect.Connection, account: str, public_key: str) -> None:
    """Ends every connection of a user of ``account`` (``edge`` or ``join``) and refuses its JWTs issued until now.
    Raises PushFailed, HubError."""
    public = {"edge": hub.accounts.edge, "join": hub.accounts.join}[account]
    claims = jwt.claims_of((await _request(sys, f"$SYS.REQ.ACCOUNT.{public}.CLAIMS.LOOKUP", b"")).decode())
    now_s = stamp.now_us() // 1_000_000
    old: dict[str, int] = claims["nats"].get("revocations", {})
    revocations = {k: t for k, t in old.items() if t > now_s - REVOCATION_KEPT_S} if account == "edge" else dict(old)
    revocations[public_key] = now_s
    nats_claims = {**claims["nats"], "revocations": revocations}
    token = jwt.sign(public, claims["name"], nats_claims, hub.key("operator"), now_s=now_s)
    answer = json.loads(await _request(sys, "$SYS.REQ.CLAIMS.UPDATE", token.encode()))
    if "error" in answer:
        raise PushFailed(f"the hub did not take the claims of {account}: {answer['error']}")


async def _request(sys: connect.Connection, subject: str, payload: bytes) -> bytes:
    try:
        return (await sys.client.request(subject, payload, timeout=PUSH_TIMEOUT_S)).data
    except (nats.errors.Error, TimeoutError, OSError) as e:
        raise PushFailed(f"no answer from the hub's resolver: {type(e).__name__}: {e}") from e
