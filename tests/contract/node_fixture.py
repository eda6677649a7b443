"""A node of the test hub: joined by a real token, with a leaf server of its own and the daemon's connection through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bus import connect, log
from bus.hub import leaf, supervise, telemetry
from bus.identity import join, tokens
from cloud import joining
from schemas.joining import NodeIdentity
from tests.contract.hub_fixture import RunningHub


@dataclass
class RunningNode:
    identity: NodeIdentity
    directory: Path
    leaf: leaf.Leaf
    server: supervise.NatsServer
    daemon: connect.Connection
    log: log.Log  # of the leaf's own JetStream


@asynccontextmanager
async def join_service(hub: RunningHub, **more: object) -> AsyncIterator[joining.JoinService]:
    sys = await connect.connect(
        connect.ConnectSettings(tuple(hub.hub.urls), "sys", credentials=hub.hub.sys_creds, ca=hub.hub.ca_path)
    )
    service = joining.JoinService(hub.core, hub.log, hub.hub, sys=sys, **more)  # type: ignore[arg-type]
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
        await sys.close()


async def join_node(hub: RunningHub, directory: Path, name: str) -> NodeIdentity:
    return await join.join(await tokens.create_token(hub.log, hub.hub), name, directory)


@asynccontextmanager
async def running_node(
    hub: RunningHub, directory: Path, name: str, *, hub_urls: tuple[str, ...] = ()
) -> AsyncIterator[RunningNode]:
    """Joins (a join service must run), has the hub fetch its telemetry as if it had a device, and starts the leaf."""
    identity = await join_node(hub, directory, name)
    await telemetry.add_telemetry_source(hub.log, name, join.public_key(directory))
    made = leaf.prepare(leaf.LeafSettings(directory, port=0, hub_urls=hub_urls, compression="off"))
    server = made.server()
    await server.start()
    try:
        daemon = await connect.connect(made.daemon("daemon"))
        store = log.Log(daemon)
        await leaf.ensure_leaf_streams(store, name)
        yield RunningNode(identity, directory, made, server, daemon, store)
        await store.close()
        await daemon.close()
    finally:
        await server.stop()


def direct_settings(directory: Path, *, inbox: str, wait_s: float = 10) -> connect.ConnectSettings:
    """A node's credentials used straight at the hub, as an attacker with the node's disk would."""
    identity = join.load(directory)
    return connect.ConnectSettings(
        tuple(identity.urls),
        f"direct {identity.node}",
        credentials=join.creds_path(directory),
        ca=join.ca_path(directory),
        inbox=inbox,
        wait_s=wait_s,
    )
