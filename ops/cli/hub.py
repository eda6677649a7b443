"""``skerry hub``: the log and who may touch it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli import api_keys, common
from schemas import times

if TYPE_CHECKING:
    from bus.connect import Connection
    from bus.hub.authority import Holders
    from bus.hub.init import Hub
    from bus.log import Log

ENSURE_RETRY_S = 1.0
NAME = "skerry hub run"
READY_S = 20.0  # for the streams; systemd waits 90 s for READY=1
_data = common.data_option(common.HUB_DIR, "the hub", "SKERRY_HUB")
_number = click.option("--server", "number", type=click.IntRange(1), default=1, help="Which one, of a cluster.")


@click.group()
def command() -> None:
    """Make and run a hub.

    A hub is a nats-server with JetStream, its accounts (CORE for the cloud, EDGE for nodes), its TLS, and the streams of
    the log.  Everything is in one folder; back that up.
    """


@command.command()
@_data
@click.option("--host", "hosts", multiple=True, help="Name or address under which nodes reach it; repeat for several.")
@click.option("--listen", help="Address to listen on (default 0.0.0.0).")
@click.option("--port", type=click.IntRange(0, 65535), help="Clients (default 4222; 0: a free one, kept).")
@click.option("--leaf-port", type=click.IntRange(0, 65535), help="Nodes' leaf servers (default 7422).")
@click.option("--websocket-port", type=click.IntRange(0, 65535), help="Sites that allow only HTTPS (default 8443).")
@click.option("--shards", type=click.IntRange(1), help="Streams that nodes are spread over (default 4); fixed for ever.")
@click.option("--server", "servers", multiple=True, help="Address of one server of a cluster: give three (or five).")
@click.option("--front", "fronts", multiple=True,
              help="Address of a server beside the cluster that holds nodes' links and no log; repeat.")  # fmt: skip
@click.option("--route-port", type=click.IntRange(0, 65535), default=6222, show_default=True, help="Between the servers.")
def init(
    data_dir: Path, hosts: tuple[str, ...], listen: str | None, port: int | None, leaf_port: int | None,
    websocket_port: int | None, shards: int | None, servers: tuple[str, ...],
    fronts: tuple[str, ...], route_port: int,
) -> None:  # fmt: skip
    """Make a hub: keys, accounts, certificates.  Again: change host names or ports of the one that is there.

    A hub of three servers goes on when one is lost.  Make it once, copy the folder to each, and run each with its number.
    Fronts, numbered after the servers, are for more nodes than three servers have open files for.

    \b
    Example:
      skerry hub init --host hub.example.com
      skerry hub init --server hub-1.example.com --server hub-2.example.com --server hub-3.example.com
    """
    from bus.hub import init as hubs

    ports = None
    if not (port is None and leaf_port is None and websocket_port is None):
        known = hubs.load_hub(data_dir).file.ports if (data_dir / "hub.json").exists() else hubs.HubPorts()
        asked = {"client": port, "leaf": leaf_port, "websocket": websocket_port}
        ports = known.model_copy(update={k: v for k, v in asked.items() if v is not None})
    every = [hubs.HubServer(host=s, ports=ports or hubs.HubPorts(), route=route_port) for s in (*servers, *fronts)]
    hub = hubs.init_hub(
        data_dir, hosts=hosts or None, ports=ports, listen=listen, shards=shards, servers=every[: len(servers)],
        fronts=every[len(servers) :],
    )  # fmt: skip
    click.echo(f"hub {hub.id} in {hub.dir}: {hub.shards} shards")
    for name, urls in (("clients", hub.urls), ("leaf servers", hub.leaf_urls), ("WebSocket", hub.websocket_urls)):
        click.echo(f"  {name}: {' '.join(urls)}")
    click.echo(f"next: skerry hub run --data {hub.dir}")


@command.command()
@_data
@_number
@common.is_async
async def run(data_dir: Path, number: int) -> None:
    """Run the hub until it is ended: nats-server, supervised, with its streams as they should be.

    A server that dies or hangs is started again, and what we want of it is asked again until it answers.

    \b
    Example:
      skerry hub run --data /var/lib/skerry/hub
    """
    from bus.hub import init as hubs
    from bus.hub import supervise
    from ops import logs

    logs.configure()
    hub = hubs.load_hub(data_dir)
    server = supervise.hub_server(hub, number)
    await server.start()
    try:
        # Nothing below may end us because the server is away: bringing it back is what we are for.
        ready = asyncio.Event()
        async with common.hub_log(data_dir, NAME, wait_s=None) as (_, _, store), asyncio.TaskGroup() as tasks:
            tasks.create_task(_tended(store, hub, number, ready), name="streams and refusals")
            with contextlib.suppress(TimeoutError):  # a first server of three can't have its streams before the others run
                async with asyncio.timeout(READY_S):
                    await ready.wait()
            await common.forever()
    finally:
        await server.stop()


async def _tended(store: Log, hub: Hub, number: int, ready: asyncio.Event) -> None:
    """The streams as they should be, which is ``ready``; then who is refused is written down, and the disk is looked at, for
    ever."""
    import structlog

    from bus import connect
    from bus.hub import refusals, room

    server_dir = hub.members[number - 1].dir
    await ensure(store, hub)
    ready.set()
    structlog.get_logger("hub").info("hub.ready", id=hub.id, urls=hub.urls, leaf_urls=hub.leaf_urls)
    system = await connect.connect(common.sys_settings(hub, NAME, wait_s=None))
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = refusals.Refusals(system, store, server_dir / "log" / "nats-server.log")
            tasks.create_task(reading.run(), name="refusals")
            if number <= max(1, len(hub.file.servers)):  # a front has no log
                tasks.create_task(room.RoomKeeper(store, server_dir, number).run(), name="room")
    finally:
        await system.close()


@command.command()
@_data
@_number
@common.is_async
async def stop(data_dir: Path, number: int) -> None:
    """End a nats-server that was left running, e.g. after `hub run` was killed.

    \b
    Example:
      skerry hub stop
    """
    from bus.hub import init as hubs
    from bus.hub import supervise

    server = supervise.hub_server(hubs.load_hub(data_dir), number)
    click.echo("ended" if await server.stop_left_behind() else "none runs")


@command.command()
@_data
@common.json_option
@common.is_async
async def status(data_dir: Path, as_json: bool) -> int:
    """Whether the hub answers, where, and what its streams hold.  Exit code 1 when something is missing.

    \b
    Example:
      skerry hub status
    """
    from bus.hub import room, streams

    async with common.hub_log(data_dir, "skerry hub status") as (hub, _, store):
        rows = [await stream_row(store, c["name"]) for c in streams.wanted(hub.shards)]
        missing = [r["name"] for r in rows if "messages" not in r]
        level = "ok" if "CLUSTER" in missing else await room.told(store)
    wrong = 1 if missing or level == "full" else 0
    if as_json:
        click.echo(json.dumps({"id": hub.id, "urls": hub.urls, "leaf_urls": hub.leaf_urls, "room": level, "streams": rows}))
        return wrong
    click.echo(f"hub {hub.id}: {'missing ' + ', '.join(missing) if missing else room.WORDS[level]}")
    click.echo(f"  clients: {' '.join(hub.urls)}\n  leaf servers: {' '.join(hub.leaf_urls)}")
    from ops.replay.render import columns

    table = [["STREAM", "MESSAGES", "LAST", "BYTES"]]
    table += [[r["name"], str(r["messages"]), str(r["last_seq"]), str(r["bytes"])] for r in rows if "messages" in r]
    click.echo("\n".join(columns(table)))
    return wrong


async def ensure(store: Log, hub: Hub) -> None:
    """The streams as they should be.  A server that can't make them now (it is away, its disk is full, a cluster without a
    majority yet) is asked again until it can.  Raises StreamsError: they are there and can't be changed."""
    import structlog

    from bus import log
    from bus.hub import streams

    told = ""
    while True:
        try:
            await streams.ensure_streams(store, shards=hub.shards, limits=streams.limits_of(hub.replicas))
            return
        except log.LogError as e:
            if str(e) != told:
                told = str(e)
                structlog.get_logger("hub").warning("hub.streams_not_ready", reason=told)
        await asyncio.sleep(ENSURE_RETRY_S)


async def stream_row(store: Log, name: str) -> dict[str, Any]:
    """``{"name": ...}`` alone for a stream that is not there; raises LogUnavailable."""
    from bus import log

    try:
        info = await store.info(name)
    except log.LogUnavailable:
        raise
    except log.LogError:
        return {"name": name}
    return {"name": name, "messages": info.messages, "last_seq": info.last_seq, "bytes": info.bytes, "epoch": info.epoch}


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_data
@click.option("--without-history", is_flag=True, help="Leave the histories out: the debugger then begins at the restore.")
@click.option("--without-telemetry", is_flag=True, help="Leave TELEMETRY out (by far the largest, and kept by age).")
@common.is_async
async def backup(file: Path, data_dir: Path, without_history: bool, without_telemetry: bool) -> None:
    """Write everything about a running hub to one FILE: keys, accounts, certificates, streams.  Keep it like a key.

    \b
    Example:
      skerry hub backup /backup/hub-$(date +%F).tar.gz
    """
    from bus.hub import backup as backups
    from bus.hub import streams

    async with common.hub_log(data_dir, "skerry hub backup") as (hub, connection, store):
        names = {c["name"] for c in streams.wanted(hub.shards)}
        without = {n for n in names if (without_history and n.startswith("HISTORY-"))}
        without |= {n for n in names if without_telemetry and n in ("TELEMETRY", "HISTORY-TELEMETRY")}
        made = await backups.backup(hub, connection, store, file, without=without)
    messages = sum(int(s.state["messages"]) for s in made.streams)
    click.echo(f"hub {made.hub}: {len(made.streams)} streams, {messages} messages, {file.stat().st_size} bytes in {file}")


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_data
@click.option(
    "--replace", is_flag=True, help="Move the hub that is there aside.  Revocations made after the backup are kept."
)
@common.is_async
async def restore(file: Path, data_dir: Path, replace: bool) -> None:
    """Make the hub of a backup FILE again.  It must not run; nothing is changed unless all of it succeeds.

    The log begins a new epoch: nodes read their slice anew and say everything again, by themselves.  What happened after
    the backup is gone from the log: nodes that joined since must join again, tokens made since are unknown.

    \b
    Example:
      skerry hub restore /backup/hub-2026-11-23.tar.gz
    """
    from bus.hub import backup as backups

    hub, made, aside = await backups.restore(file, data_dir, replace=replace)
    click.echo(f"hub {hub.id} in {hub.dir}: {len(made.streams)} streams as of {times.rfc3339(made.time)}, in new epochs")
    if aside is not None:
        click.echo(f"  what was there: {aside}")
    click.echo(f"next: skerry hub run --data {hub.dir}")


@command.command()
@click.option("--older-than", default="30d", help="How long it must be over, e.g. 12h or 30d; at least an hour.")
@_data
@common.is_async
async def compact(older_than: str, data_dir: Path) -> None:
    """Take out of the log what is over for long: tombstones of deleted objects, last words of pods that are gone.

    The hub works on meanwhile.  It takes some minutes, because the server must have written its index in between.

    \b
    Example:
      skerry hub compact --older-than 30d
    """
    from bus import stamp
    from bus.hub import compact as compacting

    age_s = common.duration_s(older_than)
    if age_s < compacting.AGE_S_MIN:
        raise click.BadParameter("at least an hour", param_hint="--older-than")
    async with common.hub_log(data_dir, "skerry hub compact") as (hub, _, store):
        before_us = stamp.now_us() - int(age_s * 1e6)
        for done in await compacting.compact(store, shards=hub.shards, before_us=before_us, say=click.echo):
            click.echo(f"{done.stream}: {done.removed} subjects removed")


command.add_command(api_keys.command)


@command.command("rotate-keys")
@click.option(
    "--grace", default="30d", show_default=True, help="How long nodes' present credentials are believed; 0s: not at all."
)
@click.option("--users", is_flag=True, help="New users of the cloud's processes and of SYS, too; the old ones end now.")
@_data
@common.is_async
async def rotate_keys(grace: str, users: bool, data_dir: Path) -> None:
    """Replace the keys that sign nodes' credentials.  The hub runs on, and nodes renew by themselves within a day.

    A node that is away for the whole grace must join again.  Copies of the folder on other machines must be copied again:
    with --users at once, else within the grace.

    \b
    Example:
      skerry hub rotate-keys --grace 30d
    """
    from bus import connect
    from bus.hub import rotate

    grace_s = common.duration_s(grace)
    async with common.hub_log(data_dir, "skerry hub rotate-keys") as (hub, _, _):
        system = await connect.connect(common.sys_settings(hub, "skerry hub rotate-keys"))
        try:
            for done in await rotate.signing_keys(hub, system, grace_s=grace_s):
                click.echo(f"{done.account}: signed by {done.new} from now on, {done.old} is believed for {grace}")
            if users:
                await rotate.users(hub, system)
                click.echo("core, sys: new users")
        finally:
            await system.close()


@command.command("rotate-ca")
@click.option("--wait", default="2m", show_default=True, help="How long nodes that are there have to fetch the new one.")
@click.option("--without-the-rest", is_flag=True, help="Go on though some nodes have not: they find back by themselves.")
@_data
@common.is_async
async def rotate_ca(wait: str, without_the_rest: bool, data_dir: Path) -> int:
    """Replace the authority that signs the hub's certificates.  The hub runs on, and nodes learn of it by themselves.

    Nodes are given the new one beside the old; when all have it (or --without-the-rest), the servers' certificates are made
    anew, and the old one is given up.  Exit code 3 when nodes lack it: call it again later, it goes on where it was.
    A hub of several servers does one step a call: copy the folder's tls to the other machines after each.
    The API's own certificate changes when the cloud's processes are started again; give out its kubeconfig then.

    \b
    Example:
      skerry hub rotate-ca --wait 10m
    """
    from bus import connect
    from bus.hub import authority, init

    wait_s = common.duration_s(wait)
    async with common.hub_log(data_dir, "skerry hub rotate-ca") as (hub, core, store):
        now = authority.state(hub)
        if now.phase == "stable":
            now = authority.announce(hub)
            click.echo("a new authority is made, and nodes are told of it beside the old one")
            if hub.file.servers:
                click.echo(f"copy {hub.dir / 'tls'} to the other machines, then call this again")
                return 0
        if now.phase == "announced":
            having = await _until_trusted(core, store, now.generation, wait_s)
            if having.lacking:
                some = ", ".join(having.lacking[:10]) + (" ..." if len(having.lacking) > 10 else "")
                click.echo(f"{len(having.lacking)} of {having.nodes} nodes have not fetched it yet: {some}")
                if not without_the_rest:
                    click.echo("call this again when they are back, or with --without-the-rest")
                    return 3
            else:
                click.echo(f"all {having.nodes} nodes have it")
            now = authority.switch(hub)
            if hub.file.servers:
                click.echo(f"copy {hub.dir / 'tls'} to the other machines, then call this again")
                return 0
        system = await connect.connect(common.sys_settings(hub, "skerry hub rotate-ca"))
        try:
            count = await authority.reload(system)
        finally:
            await system.close()
        if old := await authority.served(hub):
            raise init.HubError(f"{', '.join(old)} does not show a certificate of the new authority: call this again")
        click.echo(f"{count} servers show certificates of the new authority")
        now = authority.drop(hub)
        await authority.prompt(core, (await authority.holders(store, now.generation)).lacking)
        click.echo("the old authority is given up; start the cloud's processes again for the API's certificate")
        if hub.file.servers:
            click.echo(f"copy {hub.dir / 'tls'} to the other machines once more")
    return 0


async def _until_trusted(core: Connection, store: Log, generation: int, wait_s: float) -> Holders:
    from bus.hub import authority

    until = time.monotonic() + wait_s
    found = await authority.holders(store, generation)
    asked: set[str] = set()
    while found.lacking and time.monotonic() < until:
        await authority.prompt(core, [n for n in found.lacking if n not in asked])
        asked.update(found.lacking)
        await asyncio.sleep(1.0)
        found = await authority.holders(store, generation)
    return found


@command.command("revoke-node")
@click.argument("node")
@click.option("--reason", required=True, help="Why, for the audit log and for whoever reads the node's log.")
@_data
@common.is_async
async def revoke_node(node: str, reason: str, data_dir: Path) -> None:
    """Take a node's access away, now: its connections end and its key is refused for ever.

    \b
    Example:
      skerry hub revoke-node edge-7 --reason "stolen"
    """
    from bus import connect
    from cloud import joining

    async with common.hub_log(data_dir, "skerry hub revoke-node") as (hub, _, store):
        system = await connect.connect(common.sys_settings(hub, "skerry hub revoke-node"))
        try:
            await joining.revoke_node(store, hub, system, node, reason=reason, actor=common.actor())
        except LookupError as e:
            raise click.ClickException(str(e)) from e
        finally:
            await system.close()
    click.echo(f"{node} is revoked")
