"""One stream to a file and back, by JetStream's own snapshot and restore.  Source: NATS ADR-1 and nats-server's
``JSApiStreamSnapshot``: chunks come to a subject of ours, each is answered so that the server sends on (flow control).

Why not a copy of the store's folder: the server must be down for it to be consistent, its layout is the server's own
affair and differs between releases, and on a hub of three servers no single folder is the log.  A snapshot is taken while
the hub works, is whole by itself (block checksums are verified before it is sent), and keeps every sequence number.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors

from bus import log as buslog
from bus.connect import Connection, Message, NotConnected

CHUNK_BYTES = 256 << 10  # within max_payload, few round trips
SILENCE_S_MAX = 60.0  # between chunks; the server checks every block before the first
RESTORE_S_MAX = 120.0  # after the last chunk the server reads the whole stream


class SnapshotError(Exception):
    """A stream could not be written out or brought back; the message names it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A stream as it was: ``config`` and ``state`` as the server tells them (STREAM.INFO), and its file's checksum."""

    name: str
    config: dict[str, Any]
    state: dict[str, Any]
    bytes: int
    sha256: str


async def take(connection: Connection, log_: buslog.Log, stream: str, path: Path) -> Taken:
    """Writes a stream's snapshot to ``path`` (0600, must not exist).  Raises SnapshotError, LogError."""
    chunks: asyncio.Queue[Message] = asyncio.Queue()

    async def on_chunk(msg: Message) -> None:
        await chunks.put(msg)

    inbox = f"{connection.settings.inbox}.snapshot.{os.urandom(9).hex()}"
    subscription = await connection.subscribe(inbox, on_chunk)
    try:
        asked = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES, "jsck": True}
        answer = await log_.request(f"STREAM.SNAPSHOT.{stream}", asked)
        size, digest = 0, hashlib.sha256()
        # Blocking writes: between two chunks, in a command that does nothing else.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            while data := await _next(connection, chunks, stream):
                size += len(data)
                digest.update(data)
                f.write(data)
    finally:
        await subscription.unsubscribe()
    return Taken(stream, answer["config"], answer["state"], size, digest.hexdigest())


async def _next(connection: Connection, chunks: asyncio.Queue[Message], stream: str) -> bytes:
    """The next chunk, acknowledged; empty at the end."""
    try:
        async with asyncio.timeout(SILENCE_S_MAX):
            msg = await chunks.get()
        if msg.reply and msg.data:
            await connection.publish(msg.reply, b"")
    except (TimeoutError, NotConnected) as e:
        raise SnapshotError(f"stream {stream}: its snapshot broke off: {e!r}") from e
    status = (msg.headers or {}).get("Status")
    if status is not None and status not in ("204", "200"):
        raise SnapshotError(f"stream {stream}: {status} {(msg.headers or {}).get('Description', '')}")
    return bytes(msg.data)


async def give_back(connection: Connection, log_: buslog.Log, taken: Taken, path: Path, metadata: dict[str, str]) -> None:
    """Makes the stream anew from its snapshot, with this metadata.  Raises SnapshotError, LogError: it exists, for one."""
    config = {**taken.config, "metadata": metadata}
    answer = await log_.request(f"STREAM.RESTORE.{taken.name}", {"config": config, "state": taken.state})
    to = answer["deliver_subject"]
    try:
        with path.open("rb") as f:
            while data := f.read(CHUNK_BYTES):
                await _chunk(connection, to, data, taken.name, SILENCE_S_MAX)
        await _chunk(connection, to, b"", taken.name, RESTORE_S_MAX)
    except (nats.errors.Error, NotConnected, TimeoutError, OSError) as e:
        raise SnapshotError(f"stream {taken.name} could not be brought back: {e!r}") from e


async def _chunk(connection: Connection, to: str, data: bytes, stream: str, timeout_s: float) -> None:
    answer = (await connection.request(to, data, timeout_s=timeout_s)).data
    if b'"error"' in answer:
        raise SnapshotError(f"stream {stream} was not brought back: {answer[:300].decode(errors='replace')}")
