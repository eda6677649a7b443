"""``skerry cloud run``: everything between the Kubernetes API and the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from ops.cli import common


@click.group()
def command() -> None:
    """Run the cloud side: the Kubernetes API and what carries it to the nodes and back."""


@command.command()
@common.hub_option
@click.option("--listen", default="127.0.0.1:6443", show_default=True, help="HOST:PORT of the Kubernetes API; port 0: any.")
@click.option("--host", "hosts", multiple=True, help="Name under which kubectl reaches the API, beside the hub's own.")
@click.option(
    "--kubeconfig", type=click.Path(dir_okay=False, path_type=Path), help="Write an administrator's kubeconfig here."
)
@click.option("--grace", type=click.FloatRange(min=0.1), help="Seconds a node may be silent before it is NotReady.")
@click.option("--part", "parts", multiple=True, help="Only these parts (repeat): api, controllers, dispatcher, ...")
@click.option(
    "--controllers",
    default="*",
    show_default=True,
    help="Controllers to run, as kube-controller-manager reads it: all (*), by name, all but one (*,-deployment).",
)
@click.option(
    "--cluster",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Kubeconfig of a Kubernetes cluster: bridge to it instead of serving an API.",
)
@click.option("--in-cluster", is_flag=True, help="Bridge to the cluster whose pod this is, as its service account.")
@common.is_async
async def run(
    hub_dir: Path,
    listen: str,
    hosts: tuple[str, ...],
    kubeconfig: Path | None,
    grace: float | None,
    parts: tuple[str, ...],
    controllers: str,
    cluster: Path | None,
    in_cluster: bool,
) -> None:
    """Run API, controllers, dispatcher, reports, sync and join, until ended.  They keep no state: the log has it all.

    With --cluster or --in-cluster that cluster's API is the one to use, and a bridge carries it to the nodes and back.

    \b
    Example:
      skerry cloud run --listen 0.0.0.0:6443 --kubeconfig ~/.kube/skerry
      skerry cloud run --cluster ~/.kube/config
    """
    from cloud import process
    from cloud.standalone import run_controllers, switches
    from ops import logs

    logs.configure()
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    if cluster is not None and in_cluster:
        raise click.BadParameter("it is one cluster: --cluster or --in-cluster", param_hint="--cluster")
    if kubeconfig is not None and (cluster is not None or in_cluster):
        raise click.BadParameter("the cluster's own API is used: there is nothing to write", param_hint="--kubeconfig")
    settings = process.Settings(
        hub_dir,
        listen_host=host.strip("[]") or "0.0.0.0",
        listen_port=int(port),
        hosts=hosts,
        cluster=cluster,
        in_cluster=in_cluster,
    )
    unknown = sorted(set(parts) - set(settings.known_parts))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(settings.known_parts)}", param_hint="--part")
    try:
        chosen = controllers.split(",")
        switches.enabled(chosen, run_controllers.CONTROLLERS)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--controllers") from e
    settings = common.replaced(settings, controllers=chosen, kubeconfig=kubeconfig, grace_s=grace, parts=parts or None)
    cloud = process.CloudProcess(settings)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cloud.run(), name="cloud")
        await cloud.ready.wait() if not running.done() else None
        tasks.create_task(common.forever(), name="systemd")
