"""A store whose values are encrypted: a node's disk that is stolen shows names, not Secrets.

Wraps another store.  XChaCha20-Poly1305 (libsodium through PyNaCl, which the node has loaded for its nkeys anyway); a random
nonce a value, table and key are authenticated with it, so a value can't be moved to another object.  Keys of the tables stay
readable: they are addresses, and they must be sorted.  The key is a file of its own that no copy of the store contains,
and a TPM may have sealed it (bus/stores/tpm.py).

A store from before is sealed when it is first opened with a key: what waits in the outbox must not be lost.  A wrong key is
no damage: the store is left alone, and it is said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from nacl import bindings
from nacl.exceptions import CryptoError

from bus.stores import base

KEY_BYTES = 32
_NONCE_BYTES = 24
_SEAL = b"\x00sealed"  # in ``state``: proves the key, and that every value is sealed
_PROOF = b"skerry store, sealed"

Kept = Literal["file", "tpm"]


class BadStoreKey(base.StoreError):
    """The key file is missing, readable for others, malformed, or not this store's."""


def load_key(path: Path, *, make: bool = False, kept: Kept | None = None, pcrs: str = "") -> bytes:
    """The key in a file of mode 0600: 64 hexadecimal digits, or what a TPM sealed (bus/stores/tpm.py).  With ``make`` a
    missing one is made.  ``kept``: how it should be kept from now on; a file that is kept otherwise is written anew, whole
    or not at all.  Raises BadStoreKey, TpmError."""
    from bus.stores import tpm  # of no use to a node without

    try:
        if make and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, os.urandom(KEY_BYTES), kept or "file", pcrs)
        found = path.stat()
        text = path.read_bytes()[: tpm.FILE_BYTES_MAX].decode().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise BadStoreKey(f"the key of the store can't be read: {e}") from e
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise BadStoreKey(f"{path} must be a file of ours that nobody else can read: chmod 600 (and chown) it")
    now: Kept = "tpm" if tpm.is_sealed(text) else "file"
    try:
        key = tpm.unseal(text) if now == "tpm" else bytes.fromhex(text)
    except ValueError:
        key = b""
    except tpm.TpmError as e:
        raise tpm.TpmError(f"{path}: {e}") from e
    if len(key) != KEY_BYTES:
        raise BadStoreKey(f"{path} is no key of a store: {2 * KEY_BYTES} hexadecimal digits are")
    if kept is not None and (kept != now or (kept == "tpm" and pcrs and pcrs != tpm.pcrs_of(text))):
        try:
            _write(path, key, kept, pcrs)
        except OSError as e:
            raise BadStoreKey(f"the key of the store can't be written anew: {e}") from e
    return key


def _write(path: Path, key: bytes, kept: Kept, pcrs: str) -> None:
    """In the place of what there is.  What the TPM sealed it has given back once.  Raises OSError, TpmError."""
    from bus.stores import tpm

    text = tpm.seal(key, pcrs) if kept == "tpm" else key.hex() + "\n"
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_sealed(store: base.Reading) -> bool:
    return store.get("state", _SEAL) is not None


class SealedStore:
    """Raises BadStoreKey when the store was sealed with another key, StoreCorrupt for a value that was tampered with."""

    def __init__(self, inner: base.Store, key: bytes) -> None:
        self._inner = inner
        self._box = _Box(key)
        proof = inner.get("state", _SEAL)
        if proof is None:
            self._seal_all()
        elif self._box.opens("state", _SEAL, proof) != _PROOF:
            raise BadStoreKey(
                "the store was sealed with another key: give that one, or remove the store (it is synced again)"
            )

    def _seal_all(self) -> None:
        with self._inner.transact() as txn:
            for table in base.TABLES:
                for k, v in txn.items(table):
                    txn.put(table, k, self._box.seal(table, k, v))
            txn.put("state", _SEAL, self._box.seal("state", _SEAL, _PROOF))

    def get(self, table: str, key: bytes) -> bytes | None:
        return _get(self._inner, self._box, table, key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return _items(self._inner, self._box, table, prefix)

    def count(self, table: str) -> int:
        return self._inner.count(table) - (table == "state")

    @contextmanager
    def transact(self) -> Iterator[base.Transaction]:
        with self._inner.transact() as txn:
            yield _SealedTransaction(txn, self._box)

    def close(self) -> None:
        self._inner.close()


class _SealedTransaction:
    def __init__(self, inner: base.Transaction, box: _Box) -> None:
        self._inner, self._box = inner, box

    def get(self, table: str, key: bytes) -> bytes | None:
        return _get(self._inner, self._box, table, key)

    def items(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return _items(self._inner, self._box, table, prefix)

    def count(self, table: str) -> int:
        return self._inner.count(table) - (table == "state")

    def put(self, table: str, key: bytes, value: bytes) -> None:
        base.check(table, key, value)
        self._inner.put(table, key, self._box.seal(table, key, value))

    def delete(self, table: str, key: bytes) -> bool:
        return self._inner.delete(table, key)


class _Box:
    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_BYTES
        self._key = key

    def seal(self, table: str, key: bytes, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        about = table.encode() + b"\0" + key
        return nonce + bytes(bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(value, about, nonce, self._key))

    def opens(self, table: str, key: bytes, sealed: bytes) -> bytes | None:
        """None: not what was sealed here with this key."""
        about = table.encode() + b"\0" + key
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return bytes(bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(text, about, nonce, self._key))
        except (CryptoError, ValueError, TypeError):
            return None

    def open(self, table: str, key: bytes, sealed: bytes) -> bytes:
        value = self.opens(table, key, sealed)
        if value is None:
            raise base.StoreCorrupt(f"the value of {key[:80]!r} in {table} was changed by somebody else, or is damaged")
        return value


def _get(inner: base.Reading, box: _Box, table: str, key: bytes) -> bytes | None:
    sealed = inner.get(table, key)
    return None if sealed is None else box.open(table, key, sealed)


def _items(inner: base.Reading, box: _Box, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    for k, sealed in inner.items(table, prefix):
        if (table, k) != ("state", _SEAL):
            yield k, box.open(table, k, sealed)
