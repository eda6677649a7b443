"""A leaf link without a leaf server: what the hub holds for a node behind its own nats-server, in some kilobytes here.

It says what a node's leaf says (``bus.hub.leaf``): one link under the node's credentials, and the same interest.
``tests/contract/fleet`` compares that with a real one's.  Source: nats-server, server/leafnode.go (``sendLeafConnect``).
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from bus.connect import Callback
from bus.slim import protocol
from bus.slim.connection import SlimConnection

_SERVER_ID_CHARS = 28  # hex of it is as long as a server's nkey


class SlimLeaf(SlimConnection):
    """``settings.name`` is the node's; ``settings.urls`` are the hub's for leafs."""

    def _hello(self, transport: Any, info: dict[str, Any]) -> None:
        name = f"leaf-{self.settings.name}-{secrets.token_hex(10)}"  # a leaf's own name has as much behind the node's
        options = {
            "version": info["version"],  # a leaf of the hub's own version
            "server_id": secrets.token_hex(_SERVER_ID_CHARS).upper(),
            "domain": f"edge-{self.settings.name}",
            "name": name,
            "cluster": name,
            "headers": True,
            "jetstream": True,
            "compression": "off",
            "remote_account": "EDGE",
            "proto": 1,
            **self._proof_of(info),
        }
        transport.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        loop = b"LS+ $LDS.%s\r\n" % secrets.token_hex(11).encode()  # by which two servers notice one
        transport.write(b"".join([loop, *self._sub_lines()]))

    def _pub(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> bytes:
        return protocol.publish("LMSG", subject, reply, payload, headers)

    def _sub_line(self, subject: str, sid: bytes) -> bytes:
        return b"LS+ %s\r\n" % subject.encode()

    def _unsub_line(self, subject: str, sid: bytes) -> bytes:
        return b"LS- %s\r\n" % subject.encode()

    def _callback_of(self, words: list[bytes]) -> Callback | None:
        subject = words[0].decode()
        return next((callback for of, callback in self._subscribed.values() if matches(of, subject)), None)

    def _reply_of(self, words: list[bytes]) -> str:
        return words[1].decode() if len(words) == 2 else ""


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to ``pattern`` hears ``subject``."""
    wanted, found = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(found) <= len(wanted):
            return False
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(w in ("*", f) for w, f in zip(wanted, found, strict=True))
