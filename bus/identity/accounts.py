"""Changing an account while the hub runs: its claims are pushed to the server, which applies them at once.

Used for revocations.  Needs a SYS connection and the operator's key.

Two kinds of revocation: one for good is in both accounts, EDGE and JOIN (the late credentials); one for a while (a node that
floods, ``cloud/gatekeeper.py``) is in EDGE alone.  Who is out for good is written in JOIN first, so that no crash between
the two makes it look like the other kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import nats.errors

from bus import connect, stamp
from bus.hub.init import Hub
from bus.identity import jwt
from bus.identity.jwt import Claims

PUSH_TIMEOUT_S = 10.0
# An account's revocations travel in its JWT: a thousand make it 95 kB, 1 MB is the limit (NATS-FACTS.md).  A node's JWT dies
# by itself, so a revocation is forgotten once every JWT that it could concern has expired.
#
# Servers refuse JWTs that were issued up to the second that a revocation names.  It names the last one in which it counts:
# a JWT that was signed a moment later by who had not heard yet, or by a machine whose clock is ahead, is refused as well.
REVOCATION_KEPT_S = 40 * 24 * 3600

Account = Literal["edge", "join", "core", "sys"]


class PushFailed(Exception):
    """The server did not take the claims; the message has its words."""


async def revoke(hub: Hub, sys: connect.Connection, public_key: str) -> None:
    """Ends every connection of a user, in EDGE and JOIN, and refuses its JWTs.
    Raises PushFailed, HubError."""
    await change(hub, sys, "join", add=[public_key])
    await change(hub, sys, "edge", add=[public_key])


async def revocations(hub: Hub, sys: connect.Connection, account: Account) -> dict[str, int]:
    """Public key -> second up to which its JWTs are refused, as the server has it.  Raises PushFailed."""
    return dict((await _claims(hub, sys, account))["nats"].get("revocations", {}))


async def signers(hub: Hub, sys: connect.Connection, account: Account) -> list[str]:
    """Public keys whose signature under a user's JWT is believed, beside the account's own.  Raises PushFailed."""
    return list(signing_keys((await _claims(hub, sys, account))["nats"]))


def signing_keys(nats: Claims) -> dict[str, str | Claims]:
    """Of an account's claims: by public key what they say of it, the key alone or a role that it is bound to."""
    entries = nats.get("signing_keys", [])
    return {_signer(e): e for e in entries if isinstance(e, str) or (isinstance(e, dict) and isinstance(e.get("key"), str))}


def _signer(entry: str | Claims) -> str:
    return entry if isinstance(entry, str) else str(entry["key"])


async def change(
    hub: Hub,
    sys: connect.Connection,
    account: Account,
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    add_signers: Iterable[str | Claims] = (),
    remove_signers: Iterable[str] = (),
) -> None:
    """Revokes keys from now on, takes revocations back, believes signing keys or no longer.  Raises PushFailed, HubError."""
    claims = await _claims(hub, sys, account)
    now_s = stamp.now_us() // 1_000_000
    new = dict(claims["nats"])
    new["revocations"] = changed(new.get("revocations", {}), now_s, forget=account == "edge", add=add, remove=remove)
    gone = set(remove_signers)
    believed = signing_keys(new) | {_signer(e): e for e in add_signers}
    new["signing_keys"] = [entry for key, entry in believed.items() if key not in gone]
    nats_claims = {k: v for k, v in new.items() if v or k not in ("revocations", "signing_keys")}
    # Newer than what it replaces, also within a second: of two versions servers keep the one that was issued later.
    issued_s = max(now_s, int(claims.get("iat", 0)) + 1)
    token = jwt.sign(_public(hub, account), claims["name"], nats_claims, hub.key("operator"), now_s=issued_s)
    await push(sys, token)


def changed(
    old: Mapping[str, int], now_s: int, *, forget: bool, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> dict[str, int]:
    """Revocations as they should be after a change.  Pure."""
    kept = {k: t for k, t in old.items() if not forget or t > now_s}
    kept.update((k, now_s + REVOCATION_KEPT_S) for k in add)
    for k in remove:
        kept.pop(k, None)
    return kept


async def push(sys: connect.Connection, token: str) -> None:
    """An account's JWT to the servers' resolvers.  Raises PushFailed."""
    answer = json.loads(await _request(sys, "$SYS.REQ.CLAIMS.UPDATE", token.encode()))
    if "error" in answer:
        raise PushFailed(f"the hub did not take the claims: {answer['error']}")


def _public(hub: Hub, account: Account) -> str:
    return str(getattr(hub.accounts, account))


async def _claims(hub: Hub, sys: connect.Connection, account: Account) -> dict[str, Any]:
    token = (await _request(sys, f"$SYS.REQ.ACCOUNT.{_public(hub, account)}.CLAIMS.LOOKUP", b"")).decode()
    try:
        return jwt.claims_of(token)
    except jwt.BadJwt as e:
        raise PushFailed(f"the hub's resolver has no claims of {account}: {e}") from e


async def _request(sys: connect.Connection, subject: str, payload: bytes) -> bytes:
    try:
        return (await sys.request(subject, payload, timeout_s=PUSH_TIMEOUT_S)).data
    except (nats.errors.Error, TimeoutError, OSError, connect.NotConnected) as e:
        raise PushFailed(f"no answer from the hub's resolver: {type(e).__name__}: {e}") from e
