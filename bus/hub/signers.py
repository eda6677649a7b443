"""Which keys sign nodes' JWTs: the current one, and those that were replaced and are still believed (bus/hub/rotate.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from bus.identity import keys

Signer = Literal["edge", "join"]
SIGNERS: tuple[Signer, ...] = ("edge", "join")


class Rotated(BaseModel):
    """A signing key that was replaced: believed until then (seconds since 1970)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: Signer
    public: str
    until_s: int


_FILE = TypeAdapter(list[Rotated])


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
