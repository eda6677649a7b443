"""A node's leaf server: its local bus, and its one link to the hub.

Local users, each with an nkey of its own (0600).  ``daemon`` is in the account that the link is bound to.  ``mapper``
is in another, DEVICES: a mapper is code from elsewhere, and in one account the acknowledgement of its telemetry could be
aimed at the JetStream API (NATS-FACTS.md, confused deputy).  Through explicit imports it may publish its node's telemetry
and talk to the daemon about devices, nothing else.

What may cross the link is decided at the hub, by the node's JWT (``bus.identity.permissions``); JetStream stays local.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus import connect
from bus import log as buslog
from bus.hub import config, ports, supervise
from bus.identity import join, keys, permissions
from schemas import subjects
from schemas.joining import NodeIdentity
from schemas.reports import REPORT_BYTES_MAX

PORT_DEFAULT = 4222
STORE_BYTES_DEFAULT = 1 << 30  # JetStream's share of the node's disk
MEMORY_BYTES_MAX = 8 << 20
TELEMETRY_BYTES_DEFAULT = 256 << 20  # what a node keeps while the hub is out of reach; the oldest goes first
TELEMETRY_DAYS_DEFAULT = 7  # at most the hub's: what the hub has forgotten must not be fetched again
SAMPLE_BYTES_MAX = REPORT_BYTES_MAX  # one that is larger would end the link (bus.identity.permissions)
MAPPER_INBOX = "_INBOX.mapper"
SYSTEM_WAIT_S = 5.0  # to a server on the same machine


@dataclass(frozen=True, slots=True)
class LeafSettings:
    """``directory`` is the node's (where ``join`` put the identity).  ``port`` 0 takes a free one once and keeps it.

    ``hub_urls`` instead of the identity's, e.g. through a relay.  ``compression``: ``off``, ``s2_auto`` (by round-trip
    time), ``s2_fast``, ``s2_better``; it triples what the link costs the hub in memory.
    """

    directory: Path
    port: int = PORT_DEFAULT
    hub_urls: tuple[str, ...] = ()
    store_bytes_max: int = STORE_BYTES_DEFAULT
    compression: str = "s2_auto"


class LeafError(Exception):
    """The leaf's folder can't be used; the message says what to do."""


class Leaf:
    """A leaf's configuration on disk, made by ``prepare``."""

    def __init__(self, directory: Path, identity: NodeIdentity, port: int, server_name: str) -> None:
        self.directory = directory
        self.identity = identity
        self.port = port
        self.server_name = server_name

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def server(self) -> supervise.NatsServer:
        """Its supervised server; adopts the one that a predecessor left running."""
        return supervise.NatsServer(
            self.directory / "nats.conf",
            directory=self.directory,
            url=self.url,
            server_name=self.server_name,
            role="leaf",
            port=self.port,
            system=self.system(f"{self.server_name}: health"),
        )

    def daemon(self, name: str, *, wait_s: float | None = 30.0) -> connect.ConnectSettings:
        """How the edge daemon connects: everything on the node's bus, and its slice of the hub."""
        inbox = subjects.inbox(self.identity.node)
        seed = self.directory / "daemon.seed"
        return connect.ConnectSettings((self.url,), name, nkey_seed=seed, inbox=inbox, wait_s=wait_s)

    def mapper(self, name: str, *, wait_s: float | None = 30.0) -> connect.ConnectSettings:
        """How a mapper connects."""
        seed = self.directory / "mapper.seed"
        return connect.ConnectSettings((self.url,), name, nkey_seed=seed, inbox=MAPPER_INBOX, wait_s=wait_s)

    def system(self, name: str) -> connect.ConnectSettings:
        """How the daemon connects as the leaf's own account, for a moment, to end a dead link (``bus.hub.uplink``)."""
        return connect.ConnectSettings((self.url,), name, nkey_seed=self.directory / "system.seed", wait_s=SYSTEM_WAIT_S)


def prepare(settings: LeafSettings) -> Leaf:
    """Writes the leaf's configuration under ``<directory>/leaf``; the same again for the same settings and identity.

    Raises join.NotJoined, LeafError."""
    identity = join.load(settings.directory)
    directory = (settings.directory / "leaf").absolute()
    try:
        for d in (directory, directory / "log", directory / "jetstream"):
            d.mkdir(mode=0o700, parents=True, exist_ok=True)
        port = _port(directory, settings.port)
        users = {name: _local_key(directory / f"{name}.seed") for name in ("daemon", "mapper", "system")}
        life = permissions.life_of(join.public_key(settings.directory))
        server_name = _server_name(identity.node, join.secret_name(settings.directory))
        text = config.leaf(
            config.LeafConfig(
                dir=directory,
                server_name=server_name,
                port=port,
                domain=f"edge-{subjects.escape(identity.node)}",
                hub_urls=settings.hub_urls or tuple(identity.leaf_urls),
                hub_ca=join.ca_path(settings.directory).absolute(),
                credentials=join.creds_path(settings.directory).absolute(),
                node_telemetry=subjects.telemetry_node(identity.node),
                uplink=subjects.uplink(identity.node, life),
                daemon_key=users["daemon"],
                mapper_key=users["mapper"],
                system_key=users["system"],
                mapper_inbox=MAPPER_INBOX,
                store_bytes_max=settings.store_bytes_max,
                memory_bytes_max=MEMORY_BYTES_MAX,
                compression=settings.compression,
            )
        )
        path = directory / "nats.conf"
        if not path.exists() or path.read_text() != text:
            keys.write_private(path, text)
    except (OSError, keys.BadKey, ports.NoFreePort) as e:
        raise LeafError(f"can't write the leaf server's configuration in {directory}: {e}") from e
    return Leaf(directory, identity, port, server_name)


def _server_name(node: str, secret: str) -> str:
    """The hub ends the link of a leaf when another one comes that calls itself the same, whoever that is: a name that others
    can guess is a way to keep a node out."""
    return f"leaf-{subjects.escape(node)}-{secret}"


def _local_key(path: Path) -> str:
    """The public key of a local user, made at first."""
    if not path.exists():
        keys.write_private(path, keys.generate("user").seed + "\n")
    return keys.from_seed(path.read_text(), "user").public


def _port(directory: Path, asked: int) -> int:
    if asked:
        return asked
    path = directory / "port.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads(path.read_text())["port"])
    port = ports.free_ports(1)[0]
    keys.write_private(path, json.dumps({"port": port}))
    return port


async def ensure_leaf_streams(
    log: buslog.Log, node: str, *, bytes_max: int = TELEMETRY_BYTES_DEFAULT, days: int = TELEMETRY_DAYS_DEFAULT
) -> None:
    """The node's own TELEMETRY stream, over the daemon's connection.  Idempotent.  Raises LogError, LogUnavailable."""
    name = permissions.TELEMETRY_STREAM
    wanted: dict[str, Any] = {
        "name": name,
        "subjects": [subjects.telemetry_node(node)],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": days * 86_400 * 10**9,
        "max_bytes": bytes_max,
        "max_msg_size": SAMPLE_BYTES_MAX,
        "max_consumers": 64,
        "num_replicas": 1,
        "allow_direct": True,
        "compression": "s2",
        "duplicate_window": 120 * 10**9,
    }
    try:
        current = (await log.info(name)).config
    except buslog.LogUnavailable:
        raise
    except buslog.LogError:
        await log.request(f"STREAM.CREATE.{name}", {**wanted, "metadata": {buslog.EPOCH_METADATA: secrets.token_hex(8)}})
        return
    if any(current.get(k) != v for k, v in wanted.items()):
        await log.request(f"STREAM.UPDATE.{name}", {**current, **wanted})
