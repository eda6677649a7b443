"""A hostile leaf: the protocol between servers by hand over TLS, with a node's stolen credentials.  No nats-server of ours.

What a leaf says is not what a client says: LS+ is interest, LMSG and HMSG are messages that "somebody behind it" published,
with any subject, reply, queue and account that it likes.
Source: nats-server's server/leafnode.go (leafConnectInfo, LS+, LMSG), read; nothing documents it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from tests.contract.isolation.raw import Heard, Raw, Refused, dial


class RawLeaf(Raw):
    """``heard`` has the messages that the hub routed to it, ``interest`` the subjects that it was told of."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: dict[str, Any]) -> None:
        super().__init__(reader, writer, info)
        self.interest: list[str] = []
        self.infos: list[dict[str, Any]] = []

    def lmsg(
        self, subject: str, payload: bytes = b"", *, reply: str = "", queues: tuple[str, ...] = (), headers: str = ""
    ) -> None:
        to = f"+ {reply} {' '.join(queues)}" if reply and queues else f"| {' '.join(queues)}" if queues else reply
        if headers:
            head = f"NATS/1.0\r\n{headers}\r\n\r\n".encode()
            self.send(f"HMSG {subject} {to} {len(head)} {len(head) + len(payload)}\r\n".encode() + head + payload + b"\r\n")
        else:
            self.send(f"LMSG {subject} {to} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def interested(self, *subjects: str, queue: str = "") -> None:
        for subject in subjects:
            self.send(f"LS+ {subject} {queue + ' 1' if queue else ''}".strip().encode() + b"\r\n")

    async def _take(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "LS+":
                self.interest.append(rest.split()[0])
            case "INFO":
                self.infos.append(json.loads(rest))
            case "LMSG":
                await self._message(rest.split(), 1)
            case "HMSG":
                await self._message(rest.split(), 2)
            case _:
                await super()._take(line)

    async def _message(self, parts: list[str], sizes: int) -> None:
        body = (await self.reader.readexactly(int(parts[-1]) + 2))[:-2]
        head = int(parts[-2]) if sizes == 2 else 0
        reply = parts[1] if len(parts) == 2 + sizes else parts[2] if len(parts) > 2 + sizes and parts[1] == "+" else ""
        self.heard.append(Heard(parts[0], reply, body[head:], body[:head]))


async def connect(url: str, creds: Path | str, ca: Path, **claims: object) -> RawLeaf:
    """``claims`` are added to what a leaf says of itself in CONNECT.  Raises Refused."""
    reader, writer, info, jwt, signature = await dial(url, creds, ca)
    leaf = {"version": "2.15.1", "jwt": jwt, "sig": signature, "tls_required": True, "server_id": "N" + "A" * 55,
            "name": "hostile-leaf", "headers": True, "jetstream": True, "compression": "off", "protocol": 1}  # fmt: skip
    raw = RawLeaf(reader, writer, info)
    raw._task = asyncio.create_task(raw._listen(), name="hostile leaf")
    raw.send(f"CONNECT {json.dumps({**leaf, **claims})}\r\n".encode())
    try:
        await raw.flush()
    except (Refused, TimeoutError):
        await raw.close()
        raise
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            while not raw.interest:
                await asyncio.sleep(0.01)
    return raw
