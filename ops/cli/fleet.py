"""``skerry fleet``: nodes that are not there, for measuring hubs and clouds that are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli import common

if TYPE_CHECKING:
    from ops.fleet.feed import Feed
    from ops.fleet.fleet import Fleet

STATUS_EVERY_S = 5.0


@click.group()
def command() -> None:
    """Hollow nodes: the real replica, outbox, reports and link of a node, thousands in a process, running nothing."""


@command.command()
@common.hub_option
@click.option("--nodes", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first: hollow-<number>.")
@click.option("--objects", type=click.IntRange(0), default=0, show_default=True,
              help="Objects to write for each into CLUSTER: a pod and its config maps; 0: none.")  # fmt: skip
@click.option("--churn", type=click.FloatRange(0), default=0.0, show_default=True, help="Changes a second to those objects.")
@click.option("--per-connection", type=click.IntRange(1), default=1, show_default=True,
              help="Nodes on one connection, under a user that may speak for all: at no hub that is relied on.")  # fmt: skip
@click.option("--beat", "beat_s", type=click.FloatRange(0.1), default=300.0, show_default=True, help="Seconds of a beat.")
@click.option("--workers", type=click.IntRange(1), help="Processes that they are spread over (default: one a core).")
@common.is_async
async def hollow(
    hub_dir: Path,
    nodes: int,
    first: int,
    objects: int,
    churn: float,
    per_connection: int,
    beat_s: float,
    workers: int | None,
) -> None:
    """Run hollow nodes against the hub in a folder, until ended.  Their credentials are minted by the hub's own key.

    \b
    Example:
      skerry fleet hollow --nodes 1000 --objects 10 --churn 50
    """
    import tempfile

    from ops import logs
    from ops.fleet import feed, fleet
    from ops.lab.processes import Processes

    if objects == 1 or (churn and objects < 2):
        raise click.BadParameter("a node has a pod and at least one config map", param_hint="--objects")
    logs.configure()
    with tempfile.TemporaryDirectory(prefix="skerry-fleet-") as folder:
        async with common.hub_log(hub_dir, "skerry fleet hollow") as (hub, _, store):
            feeding = feed.Feed(store, hub.shards, cluster=True)
            made = fleet.Fleet(
                Processes(Path(folder)), hub_dir, nodes, first=first, workers=workers, per_connection=per_connection,
                beat_s=beat_s,
            )  # fmt: skip
            async with made:
                if per_connection > 1:
                    click.echo(f"{per_connection} nodes share a connection, under one user that may speak for every node")
                if objects:
                    await feeding.load(made.names, objects)
                await made.ask("connect")
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_say(made))
                    if churn:
                        tasks.create_task(_churn(feeding, made.names, objects, churn))


async def _say(made: Fleet) -> None:
    while True:
        s = await made.status()
        await made.ask("told")  # nobody reads the latencies here
        words = f"{s['synced']} of {s['nodes']} in sync, {s['objects']} objects, {s['live_events']} live events"
        click.echo(f"{words}, {s['page_events']} by catch-up, {s['outbox']} reports waiting")
        await asyncio.sleep(STATUS_EVERY_S)


async def _churn(feeding: Feed, names: list[str], objects: int, churn: float) -> None:
    while True:
        await feeding.changes(names, objects, churn, 10.0)
