"""NATS nkeys (ADR-14): Ed25519 key pairs whose text says what they are for.  Seeds live in files of mode 0600 only."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nkeys
from nacl.exceptions import CryptoError

Role = Literal["operator", "account", "user"]

_PREFIX: dict[Role, int] = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_LETTER: dict[str, Role] = {"O": "operator", "A": "account", "U": "user"}
_PUBLIC_CHARS = 56  # one prefix byte, 32 key bytes and a CRC-16, in base32


class BadKey(ValueError):
    """A text that is not a key of the role asked for."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair.  ``seed`` is secret and never printed."""

    public: str
    seed: str = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        return bytes(nkeys.from_seed(self.seed.encode()).sign(data))


def generate(role: Role) -> Key:
    return from_raw(os.urandom(32), role)


def from_raw(raw: bytes, role: Role) -> Key:
    """The pair of 32 random bytes."""
    return from_seed(nkeys.encode_seed(raw, _PREFIX[role]).decode(), role)


def from_seed(seed: str, role: Role) -> Key:
    """The pair of a seed; raises BadKey when the text is no seed, or one for another role."""
    try:
        pair = nkeys.from_seed(seed.strip().encode())
        public = bytes(pair.public_key).decode()
    except (nkeys.NkeysError, CryptoError, ValueError, IndexError) as e:
        raise BadKey(f"not an nkey seed: {type(e).__name__}") from e
    check_public(public, role)
    return Key(public, seed.strip())


def check_public(public: str, role: Role) -> str:
    """``public`` itself if it is a well-formed public key of that role; raises BadKey."""
    if len(public) != _PUBLIC_CHARS or _LETTER.get(public[0]) != role:
        raise BadKey(f"{public[:60]!r} is not a public {role} nkey")
    try:
        raw = nkeys.base64.b32decode(public)
    except ValueError as e:
        raise BadKey(f"{public!r} is not base32") from e
    if int.from_bytes(raw[-2:], "little") != nkeys.crc16(bytearray(raw[:-2])):
        raise BadKey(f"{public!r} has a wrong checksum")
    return public


def write_private(path: Path, text: str) -> None:
    """A whole file of mode 0600 or none: written beside, synced, renamed."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "w") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        tmp.replace(path)
    except OSError:
        tmp.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself must survive a power cut: a node without its seed must join again
    finally:
        os.close(directory)
