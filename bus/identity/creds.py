"""Credentials files: a user's JWT and seed in the text form that every NATS client and the leaf server read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from bus.identity import keys

_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s+([A-Za-z0-9_.\-]+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-----BEGIN USER NKEY SEED-----\s+([A-Z2-7]+)\s+-+END USER NKEY SEED-+")


class BadCredentials(ValueError):
    """A file that is no credentials file; the message names it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    jwt: str = field(repr=False)
    seed: str = field(repr=False)

    @property
    def key(self) -> keys.Key:
        return keys.from_seed(self.seed, "user")

    def text(self) -> str:
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            "Keep this file secret: whoever has it is this user.\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )

    def write(self, path: Path) -> None:
        keys.write_private(path, self.text())


def read(path: Path) -> Credentials:
    """Raises BadCredentials, also when the file can't be read."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise BadCredentials(f"can't read the credentials in {path}: {e}") from e
    return parse(text, str(path))


def parse(text: str, what: str = "what was given") -> Credentials:
    """Raises BadCredentials, which says ``what`` it is."""
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if not jwt or not seed:
        raise BadCredentials(f"{what} is not a credentials file: a JWT and a seed are needed")
    return Credentials(jwt[1], seed[1])
