"""``skerry mapper run``: devices of one protocol, on a node."""

from __future__ import annotations

from pathlib import Path

import click

from ops.cli import common


@click.group()
def command() -> None:
    """Run a mapper: the process that speaks a device protocol.  Devices come from the Kubernetes API (kind Device)."""


@command.command()
@click.argument("protocol")
@common.data_option(common.EDGE_DIR, "the node")
@common.is_async
async def run(protocol: str, data_dir: Path) -> None:
    """Serve all devices of PROTOCOL on this node until ended: poll, publish telemetry, write desired values.

    \b
    Example:
      skerry mapper run modbus
    """
    from mappers import run as mapper
    from ops import logs
    from ops.cli.edge import node_leaf

    logs.configure()
    mapper.driver_class(protocol)  # an unknown protocol is said before anything is connected
    await mapper.run_mapper(protocol, node_leaf(data_dir).mapper(f"mapper {protocol}", wait_s=None))


@command.command("list")
def list_() -> None:
    """List the protocols that a driver is installed for.

    \b
    Example:
      skerry mapper list
    """
    from mappers import run as mapper

    for protocol in mapper.protocols():
        click.echo(protocol)
