"""Credentials of many nodes at once, by the hub's own signing key: what the join service would have answered each of them.

A node that joins makes three round trips and four writes; a fleet of a benchmark takes the short way, unless joining is what
is measured (``ops.fleet.joining``).  The claims are those of ``bus.identity.permissions``, so what a hollow node may do is
what a node may do.
"""

from __future__ import annotations

import time

from bus.hub.init import Hub
from bus.identity import creds, jwt, keys
from bus.identity.jwt import Claims
from schemas import subjects

JWT_S = 24 * 3600
CROWD = "fleet-crowd"  # name of the user that is many nodes on one connection


class Mint:
    """``node(name)`` is the text of a credentials file, in about 0.3 ms."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._signer = hub, hub.node_signer()

    def node(self, name: str, *, leaf: bool = False) -> str:
        """``leaf``: for a node that has a leaf server."""
        key = keys.generate("user")
        now_s = int(time.time())
        token = self._signer.sign(name, key.public, now_s=now_s, expires_s=now_s + JWT_S, leaf=leaf)
        return creds.Credentials(token, key.seed).text()

    def crowd(self) -> str:
        """A user that may speak for *every* node: for many nodes on one connection, and for no hub that anybody relies on.

        A list that names each node doesn't fit: a client's first message is at most 4 kB (``max_control_line``), and
        subjects have no wildcard within a token."""
        key, now_s = keys.generate("user"), int(time.time())
        # Signed by the account itself: what signs for nodes can make nothing but nodes.
        token = jwt.sign(key.public, CROWD, crowd_claims(), self._hub.key("edge"), now_s=now_s, expires_s=now_s + JWT_S)
        return creds.Credentials(token, key.seed).text()


def crowd_claims() -> Claims:
    return {
        "type": "user",
        "subs": -1,
        "data": -1,
        "payload": -1,
        "pub": {"allow": ["sync.*.*", "report.>", "beat.*"]},
        "sub": {"allow": ["live.>", "answer.*.*", "cmd.>", "tunnel.*.down.>", f"{subjects.inbox(CROWD)}.>"]},
    }
