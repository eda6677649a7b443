"""The keys that sign service account tokens: one ring in the log, so that every API server of a hub has the same.

A ring is one state (``identity.keys.api``) that changes by expectation: of two servers that start at once one makes the
first key, the other finds it.  The private half is sealed (XSalsa20-Poly1305) with a key derived from the hub's CORE seed:
who reads the log, a history or one stream of a backup, without the hub's folder, can't sign.

A rotation adds a key.  It signs after a pause in which every server hears of it; the one before signs no more, and its
tokens count until the last of them has ended.  Retiring ends a key and its tokens now.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from bus import log as buslog
from bus import stamp
from bus.identity import tokens
from schemas import codec, identity, subjects
from schemas.identity import ApiKey, ApiKeys

if TYPE_CHECKING:
    from bus.hub.init import Hub

logger = structlog.get_logger(__name__)

STREAM: Final = "IDENTITY"
SETTLE_US = 10 * 1_000_000  # from a key's making to its first signature: servers follow the log within milliseconds
LIFE_US_MAX = 365 * 86_400 * 1_000_000  # of a token: how long a key that signs no more is kept
KEYS_MAX = 16  # rotated ones that still have tokens; each costs a line in the key set
RETRY_S, RETRY_S_MAX = 0.2, 5.0


class KeyProblem(Exception):
    """A key can't be used or changed as asked; the message says what to do."""


# --- the ring, pure --------------------------------------------------------------------------------------------------


class Seal:
    """Encrypts private keys for the log."""

    def __init__(self, secret: str) -> None:
        derived = hashlib.blake2b(secret.encode(), digest_size=SecretBox.KEY_SIZE, person=b"skerry api keys").digest()
        self._box = SecretBox(derived)

    def make(self, now_us: int, *, signs_from: int) -> ApiKey:
        """A new key."""
        private = ec.generate_private_key(ec.SECP256R1())
        public = private.public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        der = public.public_bytes(serialization.Encoding.DER, form)
        kid = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        plain = private.private_bytes(serialization.Encoding.DER, pkcs8, serialization.NoEncryption())
        return ApiKey(
            kid=kid,
            public=public.public_bytes(pem, form).decode(),
            sealed=base64.b64encode(bytes(self._box.encrypt(plain))).decode(),
            created=now_us,
            signs_from=signs_from,
        )

    def open(self, key: ApiKey) -> ec.EllipticCurvePrivateKey:
        """Raises KeyProblem for a key of another hub, or a damaged one."""
        try:
            plain = self._box.decrypt(base64.b64decode(key.sealed))
            private = serialization.load_der_private_key(plain, None)
        except (CryptoError, ValueError) as e:
            raise KeyProblem(f"the signing key {key.kid} can't be opened with this hub's folder: is it this log's?") from e
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise KeyProblem(f"the signing key {key.kid} is no P-256 key")
        return private


def public(key: ApiKey) -> ec.EllipticCurvePublicKey:
    """Raises KeyProblem."""
    try:
        found = serialization.load_pem_public_key(key.public.encode())
    except ValueError as e:
        raise KeyProblem(f"the public part of the signing key {key.kid} can't be read") from e
    if not isinstance(found, ec.EllipticCurvePublicKey):
        raise KeyProblem(f"the signing key {key.kid} is no P-256 key")
    return found


def signing(ring: ApiKeys, now_us: int) -> ApiKey:
    """The key that signs now: the newest whose time has come, or the newest at all."""
    begun = [k for k in ring.keys if k.signs_from <= now_us] or ring.keys
    return max(begun, key=lambda k: (k.signs_from, k.kid))


def verifying(ring: ApiKeys, now_us: int) -> list[ApiKey]:
    """The keys whose tokens count now."""
    return [k for k in ring.keys if k.verifies_until is None or k.verifies_until > now_us]


def rotated(ring: ApiKeys, new: ApiKey, now_us: int) -> ApiKeys:
    """With one more key, which signs from its time on.  Raises KeyProblem for too many."""
    until = new.signs_from + LIFE_US_MAX
    kept = [k if k.verifies_until is not None else k.model_copy(update={"verifies_until": until}) for k in ring.keys]
    kept = [k for k in kept if (k.verifies_until or 0) > now_us]
    if len(kept) >= KEYS_MAX:
        raise KeyProblem(f"there are {len(kept)} keys whose tokens may still live: retire some first")
    return ApiKeys(keys=[*kept, new])


def retired(ring: ApiKeys, kid: str, now_us: int) -> ApiKeys:
    """Without a key: what it signed counts no more.  Raises KeyProblem: no such key, or it is the one that signs."""
    found = [k for k in ring.keys if k.kid == kid or k.kid.startswith(kid)] if kid else []
    if len(found) != 1:
        known = ", ".join(k.kid for k in ring.keys)
        raise KeyProblem(f"{'several keys begin' if found else 'no key begins'} with {kid[:64]!r}; there are {known}")
    if not any(k.verifies_until is None for k in ring.keys if k is not found[0]):
        raise KeyProblem(f"{found[0].kid} is the key that signs: rotate first, then retire it")
    return ApiKeys(keys=[k for k in ring.keys if k is not found[0]])


# --- the ring in the log ---------------------------------------------------------------------------------------------


async def read(store: buslog.Log) -> tuple[ApiKeys | None, int]:
    """(the ring, its sequence); (None, 0) before the first key.  Raises LogError, DecodeError."""
    record = await store.last_of(STREAM, subjects.IDENTITY_API_KEYS)
    return (None, 0) if record is None else (_ring(record), record.seq)


def _ring(record: buslog.Recorded) -> ApiKeys:
    return codec.validate(ApiKeys, record.event().data or {})


async def write(store: buslog.Log, ring: ApiKeys, expect: int, actor: str) -> None:
    """Raises WrongSequence when somebody else was faster, LogError."""
    ev = tokens.identity_event(identity.API_KEYS_CHANGED, "keys", "api", ring.model_dump(), actor=actor)
    await store.append(subjects.IDENTITY_API_KEYS, ev, expect=buslog.Expect(expect))


async def ensure(store: buslog.Log, seal: Seal, actor: str) -> ApiKeys:
    """The ring, with a first key when there is none.  Raises LogError, DecodeError."""
    while True:
        ring, seq = await read(store)
        if ring is not None:
            return ring
        now_us = stamp.now_us()
        with contextlib.suppress(buslog.WrongSequence):  # another server's first key is as good
            await write(store, ApiKeys(keys=[seal.make(now_us, signs_from=now_us)]), seq, actor)


async def rotate(store: buslog.Log, seal: Seal, actor: str) -> ApiKey:
    """A new key; it signs after SETTLE_US.  Raises KeyProblem, LogError."""
    while True:
        ring, seq = await read(store)
        now_us = stamp.now_us()
        new = seal.make(now_us, signs_from=now_us + (SETTLE_US if ring is not None else 0))
        changed = rotated(ring, new, now_us) if ring is not None else ApiKeys(keys=[new])
        with contextlib.suppress(buslog.WrongSequence):
            await write(store, changed, seq, actor)
            return new


async def retire(store: buslog.Log, kid: str, actor: str) -> None:
    """Raises KeyProblem, LogError."""
    while True:
        ring, seq = await read(store)
        if ring is None:
            raise KeyProblem("there is no key yet: an API server makes the first one")
        with contextlib.suppress(buslog.WrongSequence):
            await write(store, retired(ring, kid, stamp.now_us()), seq, actor)
            return


def seal_of(hub: Hub) -> Seal:
    """Raises HubError."""
    return Seal(hub.key("core").seed)


def lone() -> Ring:
    """A ring of one key that is in no log: for an API over memory."""
    seal, now_us = Seal(os.urandom(16).hex()), stamp.now_us()
    ring = Ring(seal)
    ring.take(ApiKeys(keys=[seal.make(now_us, signs_from=now_us)]))
    return ring


class Ring:
    """The keys in use by one process: ``bus.kube.auth.account_tokens.Keys``."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._ring: ApiKeys | None = None
        self._private: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._public: dict[str, ec.EllipticCurvePublicKey] = {}

    def take(self, ring: ApiKeys) -> None:
        """Raises KeyProblem, and then nothing is changed."""
        private = {k.kid: self._private.get(k.kid) or self._seal.open(k) for k in ring.keys}
        self._public = {k.kid: self._public.get(k.kid) or public(k) for k in ring.keys}
        self._ring, self._private = ring, private

    def signing(self, now_us: int) -> tuple[str, ec.EllipticCurvePrivateKey]:
        assert self._ring is not None, "start() comes first"
        key = signing(self._ring, now_us)
        return key.kid, self._private[key.kid]

    def verifying(self, now_us: int) -> Mapping[str, ec.EllipticCurvePublicKey]:
        assert self._ring is not None, "start() comes first"
        return {k.kid: self._public[k.kid] for k in verifying(self._ring, now_us)}

    async def start(self, store: buslog.Log) -> None:
        """A hub that is away is waited for.  Raises KeyProblem, DecodeError."""
        wait_s, said = RETRY_S, False
        while True:
            try:
                self.take(await ensure(store, self._seal, "system:apiserver"))
                return
            except buslog.LogError as e:
                if not said:
                    logger.warning("api_keys.waiting", reason=str(e))
                    said = True
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    async def run(self, store: buslog.Log) -> None:
        """Follows the ring until cancelled.  What can't be read is said; the keys that we have go on."""
        while True:
            try:
                batches = store.follow(STREAM, [subjects.IDENTITY_API_KEYS], last_per_subject=True)
                async with contextlib.aclosing(batches):
                    async for batch in batches:
                        for record in batch.records:
                            self._heard(record)
            except buslog.LogError as e:  # another epoch, a stream that is being restored
                logger.warning("api_keys.read_again", reason=str(e))
            await asyncio.sleep(RETRY_S_MAX)

    def _heard(self, record: buslog.Recorded) -> None:
        try:
            self.take(_ring(record))
        except (codec.DecodeError, KeyProblem) as e:
            logger.error("api_keys.refused", seq=record.seq, reason=str(e))
