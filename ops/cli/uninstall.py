"""``skerry uninstall``: out of a Kubernetes cluster again."""

from __future__ import annotations

from pathlib import Path

import click

from ops.cli import common
from ops.cli.install import context_option, kubeconfig_option, namespace_option


@click.command()
@kubeconfig_option
@context_option
@namespace_option
@click.option("--data", is_flag=True, help="The volume with the log, and the namespace, too: every node must join anew.")
@click.option("--definitions", is_flag=True, help="The resource definitions too: all devices, node groups and rules go.")
@common.is_async
async def command(kubeconfig: Path, context: str | None, namespace: str, data: bool, definitions: bool) -> None:
    """Take Skerry out of a Kubernetes cluster.  The log stays, and so do devices, unless you say otherwise.

    Containers on edge nodes go on; end them by deleting their pods before.

    \b
    Example:
      skerry uninstall --kubeconfig ~/.kube/config
    """
    from ops.install import cluster

    installer = cluster.Installer(kubeconfig, context, say=click.echo)
    try:
        await installer.uninstall(namespace, data=data, definitions=definitions)
    finally:
        await installer.close()
