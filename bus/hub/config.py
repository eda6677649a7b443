"""nats-server configuration as text: the hub's and a leaf's.  Pure; nats-server reads JSON as a form of its own format.

Limits here are the engine's; each has its reason beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.identity.permissions import TELEMETRY_STREAM
from schemas import subjects

PAYLOAD_BYTES_MAX = 1 << 20  # schemas.codec.EVENT_BYTES_MAX
_HEADER_ROOM = 64 << 10  # Nats-* headers of an event at the limit, and the sync envelope
PENDING_BYTES_MAX = 32 << 20  # what the server buffers for one slow reader before it drops it (default 64 MB)
LOG_BYTES_MAX = 10 << 20
LOG_FILES_MAX = 3
CONNECTIONS_MAX = 65_536
# Links are proved by our own beats (bus/link.py); the servers' pings only find the dead ones under them.  They are idle
# traffic on metered links: a ping and its answer are 212 bytes with TLS and TCP.  The hub pings only who was silent for that
# long, which nodes with their beats every 5 minutes are not.  A leaf always pings: every 8 minutes is 38 kB a day.
HUB_PING_INTERVAL, HUB_PINGS_MAX = "10m", 2
LEAF_PING_INTERVAL, LEAF_PINGS_MAX = "8m", 1  # a dead link that nobody uses (bus.hub.uplink) is closed after 16 minutes
# Without jitter of the engine's own.  A dial that meets silence ends after a second, so the hub is found within a pause and
# a second of its coming back; nodes that lost it together come back spread over the difference.
LEAF_RECONNECT_MS_MIN, LEAF_RECONNECT_MS_MAX = 300, 1100
# An acknowledgement says "written", not "on the platter": after a power cut the last SYNC_INTERVAL may be missing on one
# server.  The engine's default is 2 minutes; 10 s costs next to nothing, `always` a factor of seven (NATS-FACTS.md).
SYNC_INTERVAL = "10s"
# How often servers compare the accounts' JWTs that they have (a hash of 32 bytes): one that was away while a node was
# revoked lets it in for no longer than this.
RESOLVER_INTERVAL = "10s"


@dataclass(frozen=True, slots=True)
class HubConfig:
    """``dir`` has the certificates, ``data`` what is this server's own.  ``routes``: of the servers that
    have the log, none for one alone.  ``front``: a server of the cluster that holds links only."""

    dir: Path
    data: Path
    server_name: str
    listen: str
    client_port: int
    leaf_port: int
    websocket_port: int
    operator_jwt: str
    system_account: str
    route_port: int = 0
    routes: Sequence[str] = ()
    front: bool = False


@dataclass(frozen=True, slots=True)
class LeafConfig:
    """``*_key`` are public nkeys.  ``uplink``: subjects.uplink(), where the hub may create its telemetry consumer."""

    dir: Path
    server_name: str
    port: int
    domain: str
    hub_urls: Sequence[str]
    hub_ca: Path
    credentials: Path
    node_telemetry: str
    uplink: str
    daemon_key: str
    mapper_key: str
    system_key: str
    mapper_inbox: str
    store_bytes_max: int
    memory_bytes_max: int
    compression: str


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _common(directory: Path, server_name: str) -> dict[str, Any]:
    return {
        "server_name": server_name,
        "max_payload": PAYLOAD_BYTES_MAX + _HEADER_ROOM,
        "max_pending": PENDING_BYTES_MAX,
        "write_deadline": "10s",
        "lame_duck_duration": "30s",  # the least that the server takes; SIGTERM doesn't use it
        "log_file": str(directory / "log" / "nats-server.log"),
        "logfile_size_limit": LOG_BYTES_MAX,
        "logfile_max_num": LOG_FILES_MAX,
    }


def hub(c: HubConfig) -> str:
    tls = {"cert_file": str(c.dir / "tls" / "server.pem"), "key_file": str(c.dir / "tls" / "server.key"), "timeout": 10}
    return _dump(
        {
            **_common(c.data, c.server_name),
            **_cluster(c),
            "ping_interval": HUB_PING_INTERVAL,
            "ping_max": HUB_PINGS_MAX,
            "listen": f"{c.listen}:{c.client_port}",
            "tls": tls,
            "max_connections": CONNECTIONS_MAX,
            "leafnodes": {
                "listen": f"{c.listen}:{c.leaf_port}",
                "tls": tls,
                # Nodes don't talk to each other: without this, each leaf would learn the interest of all others.
                "isolate_leafnode_interest": True,
                # The leaf chooses: s2 triples the hub's memory of a link (NATS-FACTS.md), a metered link is worth it.
                "compression": "accept",
                "no_advertise": True,
            },
            "websocket": {"listen": f"{c.listen}:{c.websocket_port}", "tls": tls, "compression": True},
            **({} if c.front else _jetstream(c)),
            "operator": c.operator_jwt,
            "system_account": c.system_account,
            "resolver": {
                "type": "full",
                "dir": str(c.data / "accounts"),
                "allow_delete": False,
                "interval": RESOLVER_INTERVAL,
                "timeout": "2s",
            },
        }
    )


def _jetstream(c: HubConfig) -> dict[str, Any]:
    return {
        "jetstream": {
            "store_dir": str(c.data / "jetstream"),
            "domain": "hub",
            "max_memory_store": 256 << 20,
            "max_file_store": 1 << 40,  # the disk is the limit; `skerry doctor` watches it
            "sync_interval": SYNC_INTERVAL,
        }
    }


def _cluster(c: HubConfig) -> dict[str, Any]:
    """Routes between the servers: mutual TLS by certificates of the hub's own authority that nothing else is given."""
    if not c.routes:
        return {}
    tls = {
        "cert_file": str(c.dir / "tls" / "route.pem"),
        "key_file": str(c.dir / "tls" / "route.key"),
        "ca_file": str(c.dir / "tls" / "ca.pem"),
        "verify": True,
        "timeout": 10,
    }
    routes = {"name": "hub", "listen": f"{c.listen}:{c.route_port}", "routes": list(c.routes), "tls": tls}
    # Clients know all servers by the hub's own list, under names that the certificates have.
    return {"cluster": {**routes, "no_advertise": True}}


def private(c: HubConfig, port: int) -> str:
    """The hub's, for work on its streams that nobody else may see: loopback, another port, no other doors."""
    whole = json.loads(hub(c))
    for door in ("leafnodes", "websocket", "cluster"):
        whole.pop(door, None)
    return _dump({**whole, "listen": f"127.0.0.1:{port}"})


def leaf_reconnect_ms(server_name: str) -> int:
    """The same for a node for ever, so that its configuration stays the same."""
    spread = LEAF_RECONNECT_MS_MAX - LEAF_RECONNECT_MS_MIN
    return LEAF_RECONNECT_MS_MIN + int.from_bytes(hashlib.sha256(server_name.encode()).digest()[:4]) % spread


def leaf(c: LeafConfig) -> str:
    create = f"CONSUMER.CREATE.{TELEMETRY_STREAM}.>"
    # The last: a mapper that is in doubt what the stream has (bus.publisher) looks.
    last = f"$JS.API.STREAM.MSG.GET.{TELEMETRY_STREAM}"
    services = [c.node_telemetry, subjects.LOCAL_DEVICES, subjects.LOCAL_TWIN_REPORT]
    changed = subjects.LOCAL_DEVICES_CHANGED
    may = {"publish": [*services, subjects.LOCAL_TELEMETRY_LAST], "subscribe": [changed, f"{c.mapper_inbox}.>"]}
    return _dump(
        {
            **_common(c.dir, c.server_name),
            "ping_interval": LEAF_PING_INTERVAL,
            "ping_max": LEAF_PINGS_MAX,
            "listen": f"127.0.0.1:{c.port}",
            "max_connections": 256,
            "accounts": {
                "EDGE": {
                    "jetstream": True,
                    "users": [{"nkey": c.daemon_key}],
                    # The hub reaches one JetStream call of this leaf, and by a name that carries the leaf's life.
                    "mappings": {f"{c.uplink}.api.{create}": f"$JS.API.{create}"},
                    "exports": [*({"service": s} for s in [*services, last]), {"stream": changed}],
                },
                "DEVICES": {
                    "users": [{"nkey": c.mapper_key, "permissions": may}],
                    "imports": [
                        *({"service": {"account": "EDGE", "subject": s}} for s in services),
                        {"service": {"account": "EDGE", "subject": last}, "to": subjects.LOCAL_TELEMETRY_LAST},
                        {"stream": {"account": "EDGE", "subject": changed}},
                    ],
                },
                "SYS": {"users": [{"nkey": c.system_key}]},
            },
            "system_account": "SYS",
            "leafnodes": {
                "reconnect": f"{leaf_reconnect_ms(c.server_name)}ms",
                "remotes": [
                    {
                        "urls": list(c.hub_urls),
                        "account": "EDGE",
                        "credentials": str(c.credentials),
                        "tls": {"ca_file": str(c.hub_ca), "timeout": 10},
                        "compression": c.compression,
                        "first_info_timeout": "10s",  # default 1 s: too short for a slow radio link
                    }
                ],
            },
            "jetstream": {
                "store_dir": str(c.dir / "jetstream"),
                "domain": c.domain,
                "max_memory_store": c.memory_bytes_max,
                "max_file_store": c.store_bytes_max,
                "sync_interval": SYNC_INTERVAL,
            },
        }
    )
