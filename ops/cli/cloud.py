"""``skerry cloud run``: everything between the Kubernetes API and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli import common

if TYPE_CHECKING:
    from cloud.kubelet import serving_cert


@click.group()
def command() -> None:
    """Run the cloud side: the Kubernetes API and what carries it to the nodes and back."""


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def kubelet_options(f: Callable[..., Any]) -> Callable[..., Any]:
    """Where a cluster's API server finds the kubelets of edge nodes."""
    for option in (
        click.option("--kubelet-key", type=_file, help="Its private key."),
        click.option(
            "--kubelet-csr",
            type=click.Choice(["none", "request", "approve"]),
            default="none",
            show_default=True,
            help="Ask the cluster for the certificate, signed by its kubelet-serving signer.  request: an administrator "
            "approves it; approve: it is approved here.",
        ),
        click.option("--kubelet-cert", type=_file, help="Certificate to serve there [default: one of the hub's authority]."),
        click.option(
            "--kubelet-client-ca",
            type=_file,
            help="CA of the API server's client certificate [default: what the cluster publishes in kube-system].",
        ),
        click.option(
            "--kubelet-ports",
            metavar="A-B",
            help="Ports for one node each, beside the one for all: needed for metrics-server, which names no pod.",
        ),
        click.option("--kubelet-address", default="", help="What Node objects name [default: the listening one]."),
        click.option(
            "--kubelet",
            metavar="HOST:PORT",
            help="Serve the edge nodes' kubelets there, for a cluster's API server: kubectl logs, exec, port-forward.",
        ),
    ):
        f = option(f)
    return f


@command.command()
@common.hub_option
@click.option("--listen", default="127.0.0.1:6443", show_default=True, help="HOST:PORT of the Kubernetes API; port 0: any.")
@click.option("--host", "hosts", multiple=True, help="Name under which kubectl reaches the API, beside the hub's own.")
@click.option(
    "--kubeconfig", type=click.Path(dir_okay=False, path_type=Path), help="Write an administrator's kubeconfig here."
)
@click.option("--grace", type=click.FloatRange(min=0.1), help="Seconds a node may be silent before it is NotReady.")
@click.option(
    "--credentials-life",
    help="How long a node's credentials live; it renews them at two thirds of that [default: 24h, at least 1m].",
)
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
@click.option(
    "--service-account-issuer",
    "issuers",
    multiple=True,
    metavar="URL",
    help="Issuer of service account tokens, for those who check them by OpenID Connect; repeat for former ones that count.",
)
@click.option("--in-cluster", is_flag=True, help="Bridge to the cluster whose pod this is, as its service account.")
@kubelet_options
@common.is_async
async def run(
    hub_dir: Path,
    listen: str,
    hosts: tuple[str, ...],
    kubeconfig: Path | None,
    grace: float | None,
    credentials_life: str | None,
    parts: tuple[str, ...],
    controllers: str,
    cluster: Path | None,
    in_cluster: bool,
    issuers: tuple[str, ...],
    **kubelet: Any,
) -> None:
    """Run API, controllers, dispatcher, reports, sync and join, until ended.  They keep no state: the log has it all.

    With --cluster or --in-cluster that cluster's API is the one to use, and a bridge carries it to the nodes and back.

    \b
    Example:
      skerry cloud run --listen 0.0.0.0:6443 --kubeconfig ~/.kube/skerry
      skerry cloud run --cluster ~/.kube/config --kubelet 10.0.0.7:10250
    """
    from cloud import process
    from cloud.standalone import run_controllers, switches
    from ops import logs

    logs.configure()
    host, port = _host_port(listen, "--listen")
    if cluster is not None and in_cluster:
        raise click.BadParameter("it is one cluster: --cluster or --in-cluster", param_hint="--cluster")
    if kubeconfig is not None and (cluster is not None or in_cluster):
        raise click.BadParameter("the cluster's own API is used: there is nothing to write", param_hint="--kubeconfig")
    settings = process.Settings(
        hub_dir,
        listen_host=host,
        listen_port=port,
        hosts=hosts,
        cluster=cluster,
        in_cluster=in_cluster,
        issuers=_issuers(issuers, bridged=cluster is not None or in_cluster),
        kubelet=_kubelet(cluster is not None or in_cluster, **kubelet),
    )
    unknown = sorted(set(parts) - set(settings.known_parts))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(settings.known_parts)}", param_hint="--part")
    try:
        chosen = controllers.split(",")
        switches.enabled(chosen, run_controllers.CONTROLLERS)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--controllers") from e
    life_s = None if credentials_life is None else common.duration_s(credentials_life)
    if life_s == 0:
        raise click.BadParameter("at least 1m", param_hint="--credentials-life")
    settings = common.replaced(
        settings, controllers=chosen, kubeconfig=kubeconfig, grace_s=grace, credentials_s=life_s, parts=parts or None
    )
    cloud = process.CloudProcess(settings, whole=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cloud.run(), name="cloud")
        await cloud.ready.wait() if not running.done() else None
        tasks.create_task(common.forever(), name="systemd")


def _issuers(given: tuple[str, ...], *, bridged: bool) -> tuple[str, ...]:
    """As OpenID Connect wants them (Discovery 1.0, section 2).  Raises BadParameter."""
    hint = "--service-account-issuer"
    if given and bridged:
        raise click.BadParameter("the cluster's own API issues tokens", param_hint=hint)
    for url in given:
        if not url.startswith("https://") or len(url) < len("https://a") or set("?# ") & set(url):
            raise click.BadParameter(f"{url[:200]!r} is no https URL without query and fragment", param_hint=hint)
    return given


def _host_port(text: str, option: str) -> tuple[str, int]:
    """Raises BadParameter."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint=option)
    return host.strip("[]") or "0.0.0.0", int(port)


def _kubelet(
    bridged: bool,
    kubelet: str | None,
    kubelet_address: str,
    kubelet_ports: str | None,
    kubelet_client_ca: Path | None,
    kubelet_cert: Path | None,
    kubelet_key: Path | None,
    kubelet_csr: serving_cert.How,
) -> Any:
    """Raises BadParameter."""
    from cloud.kubelet import settings

    if kubelet is None:
        if kubelet_address or kubelet_ports or kubelet_client_ca or kubelet_cert or kubelet_key or kubelet_csr != "none":
            raise click.BadParameter("is missing: where shall the kubelets be served?", param_hint="--kubelet")
        return None
    if not bridged:
        raise click.BadParameter("needs --cluster or --in-cluster: our own API reaches nodes itself", param_hint="--kubelet")
    host, port = _host_port(kubelet, "--kubelet")
    first, dash, last = (kubelet_ports or "").partition("-")
    ports = range(0)
    if kubelet_ports:
        if not dash or not (first.isdigit() and last.isdigit()) or not 0 < int(first) <= int(last) <= 65535:
            raise click.BadParameter(f"{kubelet_ports!r} is not A-B with ports", param_hint="--kubelet-ports")
        ports = range(int(first), int(last) + 1)
    files = (kubelet_client_ca, kubelet_cert, kubelet_key)
    made = settings.Settings(host, port, kubelet_address, ports, *files, csr=kubelet_csr)
    try:
        made.check()
    except settings.BadSettings as e:
        raise click.BadParameter(str(e), param_hint="--kubelet") from e
    return made
