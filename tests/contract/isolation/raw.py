"""A hostile NATS client: the protocol by hand over TLS, with a node's stolen credentials.  None of our client code.

Source of the protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol, ADR-14 (JWT), nkeys.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Heard:
    subject: str
    reply: str
    payload: bytes
    headers: bytes = b""


class Refused(Exception):
    """The server hung up; the message has its last words."""


def stolen(creds: str) -> tuple[str, Ed25519PrivateKey]:
    """(JWT, key) of a creds file's text."""
    jwt = re.search(r"-----BEGIN NATS USER JWT-----\s+(\S+)", creds)
    seed = re.search(r"-----BEGIN USER NKEY SEED-----\s+(\S+)", creds)
    assert jwt and seed
    raw = base64.b32decode(seed[1] + "=" * (-len(seed[1]) % 8))
    return jwt[1], Ed25519PrivateKey.from_private_bytes(raw[2:34])


@dataclass
class Raw:
    """``heard`` and ``errors`` fill up by themselves until ``close``."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    info: dict[str, Any]
    heard: list[Heard] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    _pongs: list[asyncio.Future[None]] = field(default_factory=list)
    _sids: int = 0
    _task: asyncio.Task[None] | None = None

    def send(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)

    def pub(self, subject: str, payload: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None) -> None:
        if headers is None:
            self.send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")
            return
        head = ("NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode()
        self.send(f"HPUB {subject} {reply} {len(head)} {len(head) + len(payload)}\r\n".encode() + head + payload + b"\r\n")

    def sub(self, *subjects: str, queue: str = "") -> None:
        for subject in subjects:
            self._sids += 1
            self.send(f"SUB {subject} {queue} {self._sids}\r\n".encode())

    async def flush(self) -> None:
        """The server has seen all of it.  Raises Refused when it hung up instead."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self.send(b"PING\r\n")
        async with asyncio.timeout(TIMEOUT_S):
            await self.writer.drain()
            await pong

    async def ask(self, subject: str, payload: bytes = b"", *, inbox: str, wait_s: float = 0.3) -> list[Heard]:
        """Everything that comes to ``inbox`` within ``wait_s`` (which must be subscribed)."""
        before = len(self.heard)
        self.pub(subject, payload, reply=inbox)
        await self.flush()
        await asyncio.sleep(wait_s)
        return [h for h in self.heard[before:] if h.subject == inbox]

    async def close(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    async def _listen(self) -> None:
        try:
            while line := await self.reader.readline():
                await self._take(line.decode().strip())
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError, ValueError):
            pass
        finally:
            self.closed.set()
            for pong in self._pongs:
                if not pong.done():
                    pong.set_exception(Refused(self.errors[-1] if self.errors else "closed"))
                    pong.exception()  # who doesn't wait doesn't have to look

    async def _take(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "PING":
                self.send(b"PONG\r\n")
            case "PONG":
                self._pongs.pop(0).set_result(None)
            case "-ERR":
                self.errors.append(rest.strip("'"))
            case "MSG" | "HMSG":
                parts = rest.split()
                sizes = 1 if verb.upper() == "MSG" else 2
                reply = parts[2] if len(parts) == 3 + sizes else ""
                body = (await self.reader.readexactly(int(parts[-1]) + 2))[:-2]
                head = int(parts[-2]) if sizes == 2 else 0
                self.heard.append(Heard(parts[0], reply, body[head:], body[:head]))


async def dial(
    url: str, creds: Path | str, ca: Path
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any], str, str]:
    """A TLS connection, what the server said of itself, the stolen JWT, and the server's nonce signed.  Raises Refused."""
    host, port = url.rpartition("/")[2].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), limit=4 << 20)
    try:
        info = json.loads((await reader.readline()).decode().partition(" ")[2])
        await writer.start_tls(ssl.create_default_context(cafile=str(ca)), server_hostname=host)
    except (OSError, ValueError) as e:
        writer.transport.abort()
        raise Refused(f"before anything was said: {e!r}") from e
    jwt, key = stolen(creds if isinstance(creds, str) else creds.read_text())
    signature = base64.urlsafe_b64encode(key.sign(info["nonce"].encode())).rstrip(b"=").decode()
    return reader, writer, info, jwt, signature


async def connect(url: str, creds: Path | str, ca: Path, *, name: str = "hostile") -> Raw:
    """Raises Refused."""
    reader, writer, info, jwt, signature = await dial(url, creds, ca)
    options = {"jwt": jwt, "sig": signature, "verbose": False, "pedantic": False, "tls_required": True, "name": name,
               "lang": "raw", "version": "0", "protocol": 1, "headers": True, "no_responders": True}  # fmt: skip
    raw = Raw(reader, writer, info)
    raw._task = asyncio.create_task(raw._listen(), name="hostile client")
    raw.send(f"CONNECT {json.dumps(options)}\r\n".encode())
    try:
        await raw.flush()
    except Refused:
        await raw.close()
        raise
    return raw
