"""Which keys sign nodes' JWTs: the current one, and those that were replaced and are still believed (bus/hub/rotate.py).

What signs for EDGE is bound to the role of a node (``permissions.node_role``) since hubs are made so; an older hub's key is
bound to nothing until ``rotate-keys`` replaces it.  Which are bound is in ``keys/scoped.json``, written before such a key
signs anything.  A server refuses a JWT that a bound key signed and that claims rights of its own; of one that claims none
and was signed by a key that is not bound the account says that it has none (``bus.hub.accounts``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from bus.identity import jwt, keys, permissions
from bus.identity.jwt import Claims

Signer = Literal["edge", "join"]
SIGNERS: tuple[Signer, ...] = ("edge", "join")


class Rotated(BaseModel):
    """A signing key that was replaced: believed until then (seconds since 1970)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: Signer
    public: str
    until_s: int


_FILE = TypeAdapter(list[Rotated])
_SCOPED = TypeAdapter(list[str])


def rotated(hub_dir: Path) -> list[Rotated]:
    """Oldest first.  Raises OSError, ValueError (pydantic's) for a file that can't be read."""
    path = hub_dir / "keys" / "rotated.json"
    return _FILE.validate_json(path.read_bytes()) if path.exists() else []


def remember(hub_dir: Path, one: Rotated) -> None:
    """Those that are over stay in the file: a server that was away may believe them still."""
    kept = [r for r in rotated(hub_dir) if r.public != one.public]
    text = json.dumps([r.model_dump() for r in [*kept, one]], indent=2)
    keys.write_private(hub_dir / "keys" / "rotated.json", text + "\n")


def over(hub_dir: Path, account: Signer, now_s: int) -> frozenset[str]:
    """Public keys that are no longer believed."""
    return frozenset(r.public for r in rotated(hub_dir) if r.account == account and r.until_s <= now_s)


def believed(hub_dir: Path, account: Signer, current: str, now_s: int) -> list[str]:
    return [current, *(r.public for r in rotated(hub_dir) if r.account == account and r.until_s > now_s)]


def scoped(hub_dir: Path) -> frozenset[str]:
    """Public keys that are bound to the role of a node.  Raises OSError, ValueError for a file that can't be read."""
    path = hub_dir / "keys" / "scoped.json"
    return frozenset(_SCOPED.validate_json(path.read_bytes())) if path.exists() else frozenset()


def scope(hub_dir: Path, public: str) -> None:
    """Binds a key that has signed nothing yet."""
    text = json.dumps(sorted({*scoped(hub_dir), public}), indent=2)
    keys.write_private(hub_dir / "keys" / "scoped.json", text + "\n")


def entry(hub_dir: Path, public: str) -> str | Claims:
    """A signing key as an account's claims name it."""
    if public not in scoped(hub_dir):
        return public
    return {"kind": "user_scope", "key": public, "role": "node", "template": permissions.node_role()}


class NodeSigner:
    """Makes nodes' JWTs with the key that is the current one now.  Raises OSError, ValueError."""

    def __init__(self, hub_dir: Path, key: keys.Key, account: str, shards: int) -> None:
        self._key, self._account, self._shards = key, account, shards
        self._bound = key.public in scoped(hub_dir)

    def sign(self, node: str, public_key: str, *, now_s: int, expires_s: int, leaf: bool = True) -> str:
        """The JWT of ``node``, whose key is ``public_key``.  ``leaf``: as in ``permissions.node``."""
        if self._bound:
            name, claims = (
                permissions.name_in_role(node),
                permissions.node_in_role(node, public_key, self._shards, leaf=leaf),
            )
        else:
            name, claims = node, permissions.node(node, public_key, self._shards, leaf=leaf)
        claims = {**claims, "issuer_account": self._account}
        return jwt.sign(public_key, name, claims, self._key, now_s=now_s, expires_s=expires_s, numbered=False)
