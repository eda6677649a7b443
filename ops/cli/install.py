"""``skerry install``: into a Kubernetes cluster, whose API then manages the edge nodes."""

from __future__ import annotations

from pathlib import Path

import click

from ops.cli import common
from ops.install import values

kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KUBECONFIG",
    required=True,
    help="Of an administrator of the cluster.",
)
context_option = click.option("--context", help="Another context than the kubeconfig's current one.")
namespace_option = click.option("--namespace", default=values.NAMESPACE, show_default=True, help="Where it is installed.")


@click.command()
@kubeconfig_option
@context_option
@namespace_option
@click.option("--host", required=True, help="Name or address under which edge nodes reach the hub's Service.")
@click.option("--image", default=values.IMAGE, show_default=True, help="Of the Containerfile, in your registry.")
@click.option("--storage", default="10Gi", show_default=True, help="Of the volume that holds the log.")
@click.option("--storage-class", default="", help="Default: the cluster's.")
@click.option("--service-type", type=click.Choice(values.SERVICE_TYPES), default=values.SERVICE_TYPES[0], show_default=True,
              help="How the cluster opens the hub's ports to the nodes.")  # fmt: skip
@click.option(
    "--kubelet-csr",
    type=click.Choice(values.CSR_WAYS),
    default="none",
    show_default=True,
    help="The kubelets' certificate, signed by the cluster: an administrator approves it, or it is approved here.",
)
@click.option("--force-conflicts", is_flag=True, help="Take over fields that others have set.")
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=300.0, show_default=True,
              help="Seconds to wait until it runs; 0: don't.")  # fmt: skip
@click.option("--print", "only_print", is_flag=True, help="Print the manifests and change nothing.")
@common.is_async
async def command(
    kubeconfig: Path, context: str | None, namespace: str, host: str, image: str, storage: str, storage_class: str,
    service_type: str, kubelet_csr: str, force_conflicts: bool, wait_s: float, only_print: bool,
) -> None:  # fmt: skip
    """Install Skerry into a Kubernetes cluster, or upgrade it: definitions, rights, hub and cloud.

    Everything is tried first: a cluster that would refuse one object gets none.  The log, and with it every node, is kept.

    \b
    Examples:
      skerry install --kubeconfig ~/.kube/config --host hub.example.com
      skerry install --kubeconfig ~/.kube/config --host hub.example.com --print
    """
    from ops.install import cluster, objects, render

    try:
        chosen = values.checked(values.Values(host, namespace, image, storage, storage_class, service_type, kubelet_csr))
    except values.BadValue as e:
        raise click.ClickException(str(e)) from e
    if only_print:
        click.echo(render.documents([*objects.definitions(), *objects.objects(chosen)]), nl=False)
        return
    installer = cluster.Installer(kubeconfig, context, say=click.echo)
    try:
        await installer.install(chosen, force=force_conflicts, wait_s=wait_s)
    finally:
        await installer.close()
    click.echo(f"installed in {installer.url}; next, for each machine that is to be an edge node:")
    click.echo(f"  kubectl -n {namespace} exec deploy/skerry -c cloud -- skerry token create --node edge-1 --ttl 1h")
