"""``skerry edge``: this machine as a node."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ops.cli import common

if TYPE_CHECKING:
    from bus.hub.leaf import Leaf
    from schemas.node_status import DaemonStatus

NAME = "skerry edge"
ANSWER_S = 3.0
SETTINGS = "edge.json"  # what join or run were told, so that every later command finds the same leaf server

_data = common.data_option(common.EDGE_DIR, "the node")


@click.group()
def command() -> None:
    """Join this machine as a node, run its daemon, ask it how it is."""


def settings_of(data_dir: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((data_dir / SETTINGS).read_text())
        if isinstance(found, dict):
            return found
    return {}


def _remember(data_dir: Path, **told: Any) -> dict[str, Any]:
    known = settings_of(data_dir)
    new = known | {k: v for k, v in told.items() if v not in (None, ())}
    if new != known:
        (data_dir / SETTINGS).write_text(json.dumps(new, indent=1) + "\n")
    return new


@command.command()
@click.argument("token")
@click.option(
    "--node", default=lambda: socket.gethostname().lower(), show_default="this machine's name", help="The node's name."
)
@click.option("--label", "labels", multiple=True, help="KEY=VALUE for the Node object; repeat for several.")
@click.option(
    "--leaf-url", "leaf_urls", multiple=True, help="Another way to the hub than the token's, e.g. through a relay."
)
@click.option("--leaf-port", type=click.IntRange(0, 65535), help="Port of the node's own bus (default 4222; 0: a free one).")
@_data
@common.is_async
async def join(
    token: str, node: str, labels: tuple[str, ...], leaf_urls: tuple[str, ...], leaf_port: int | None, data_dir: Path
) -> None:
    """Become a node: make a key (its secret part never leaves this machine) and have the hub sign it.

    \b
    Example:
      skerry edge join skerry1.AbC... --node edge-1 --label site=north
    """
    from bus.identity import join as joining

    pairs = dict(label.partition("=")[::2] for label in labels)
    try:
        identity = await joining.join(token, node, data_dir, labels=pairs)
    except ValueError as e:  # the token or the name
        raise click.ClickException(str(e)) from e
    _remember(data_dir, leaf_urls=list(leaf_urls) or None, leaf_port=leaf_port, labels=pairs or None)
    click.echo(f"joined hub {identity.hub} as {identity.node}; next: skerry edge run --data {data_dir}")


@command.command()
@click.option("--link", type=click.Choice(["leaf", "direct"]), default="leaf", show_default=True,
              help="leaf: a bus of the node's own, for devices.  direct: none, less memory.")  # fmt: skip
@click.option("--beat", type=click.FloatRange(min=0.1), help="Seconds between signs of life (default: for metered links).")
@click.option("--leaf-url", "leaf_urls", multiple=True, help="As for join.")
@click.option("--leaf-port", type=click.IntRange(0, 65535), help="As for join.")
@click.option("--store-key", type=click.Path(dir_okay=False, path_type=Path), envvar="SKERRY_STORE_KEY",
              help="Encrypt what the node stores with the key in this file (made when missing, mode 0600).")  # fmt: skip
@click.option("--store-key-in", type=click.Choice(["file", "tpm"]), envvar="SKERRY_STORE_KEY_IN",
              help="How that file keeps the key from now on: plain, or sealed by this machine's TPM 2.0.")  # fmt: skip
@click.option("--store-key-pcrs", default="", envvar="SKERRY_STORE_KEY_PCRS", metavar="BANK:LIST",
              help="With tpm: only while these PCRs are as they were, e.g. sha256:7 (Secure Boot).")  # fmt: skip
@_data
@common.is_async
async def run(
    link: str,
    beat: float | None,
    leaf_urls: tuple[str, ...],
    leaf_port: int | None,
    store_key: Path | None,
    store_key_in: Literal["file", "tpm"] | None,
    store_key_pcrs: str,
    data_dir: Path,
) -> None:
    """Run the node's daemon until it is ended.  Containers and the node's bus go on without it.

    \b
    Example:
      skerry edge run --data /var/lib/skerry/edge
    """
    from ops import logs  # before structlog is imported by the daemon's modules: it keeps them small

    logs.configure()
    if (store_key_in or store_key_pcrs) and store_key is None:
        raise click.UsageError("--store-key-in and --store-key-pcrs say how a file keeps the key: name it (--store-key)")
    if store_key_pcrs and store_key_in != "tpm":
        raise click.UsageError("--store-key-pcrs is for a key that the TPM keeps: --store-key-in tpm")
    from edge import memory

    with memory.without_public_cas():
        from bus.identity import join as joining
        from edge import daemon

    joining.load(data_dir)  # says at once when this machine has not joined
    told = _remember(data_dir, leaf_urls=list(leaf_urls) or None, leaf_port=leaf_port)
    settings = daemon.Settings(data_dir)
    settings = common.replaced(
        settings,
        link_mode=link,
        beat_s=beat,
        leaf_urls=tuple(told.get("leaf_urls", ())) or None,
        leaf_port=told.get("leaf_port"),
        store_key=store_key,
        store_key_in=store_key_in,
        store_key_pcrs=store_key_pcrs,
    )
    await daemon.run(settings)


def node_leaf(data_dir: Path) -> Leaf:
    """The node's leaf server as its daemon has set it up.  Raises NotJoined, LeafError."""
    from bus.hub import leaf
    from edge import daemon

    told = settings_of(data_dir)
    port = told.get("leaf_port", daemon.Settings(data_dir).leaf_port)
    return leaf.prepare(leaf.LeafSettings(data_dir, port=port, hub_urls=tuple(told.get("leaf_urls", ()))))


async def ask_status(data_dir: Path) -> DaemonStatus | None:
    """What the daemon says of itself, None when it does not answer.  Raises NotJoined."""
    from bus import connect, local
    from schemas import codec, node_status

    try:
        connection = await connect.connect(node_leaf(data_dir).daemon(NAME, wait_s=ANSWER_S))
    except connect.ConnectFailed:
        return None
    try:
        answer = await local.ask(connection, node_status.LOCAL_NODE_STATUS, b"", ANSWER_S)
        return codec.decode_as(node_status.DaemonStatus, answer)
    except local.BusUnavailable:
        return None
    finally:
        await connection.close()


@command.command()
@_data
@common.json_option
@common.is_async
async def status(data_dir: Path, as_json: bool) -> int:
    """Ask the daemon on this machine how it is.  Exit code 1 when it does not answer.

    \b
    Example:
      skerry edge status
    """
    from ops.replay.entries import format_time

    said = await ask_status(data_dir)
    if said is None:
        click.echo(f"the daemon of {data_dir} does not answer: is `skerry edge run` running?", err=True)
        return 1
    if as_json:
        click.echo(said.model_dump_json())
        return 0
    click.echo(f"node {said.node}, daemon {said.version}, process {said.pid}, since {format_time(said.started)} UTC")
    click.echo(f"link {said.link} since {format_time(said.link_since)} UTC ({said.link_mode})")
    if said.fenced:
        click.echo(
            "FENCED: another daemon holds this node's identity; give the true one a token made for it, and purge the other"
        )
    click.echo(f"engine {'ready' if said.runtime_ready else 'NOT ready: ' + said.runtime_reason}")
    r = said.replica
    state = "in sync" if r.synced else "complete, not in sync now" if r.complete else "not complete yet"
    click.echo(f"replica {state}; refused {r.refused}{': ' + r.last_refused if r.last_refused else ''}")
    for scope, s in r.scopes.items():
        click.echo(f"  scope {scope}: {s.objects} objects, {s.bytes} bytes, at #{s.cursor}")
    if r.trouble:
        click.echo(f"store: {r.trouble}")
    click.echo(f"outbox {said.outbox_pending} waiting, {said.outbox_sent} sent")
    return 0


@command.command()
@_data
@common.is_async
async def stop(data_dir: Path) -> None:
    """End the node's own bus, which otherwise goes on without the daemon.  (The daemon: systemctl stop skerry-edge.)

    \b
    Example:
      skerry edge stop
    """
    await _not_running(data_dir)
    click.echo("ended" if await node_leaf(data_dir).server().stop_left_behind() else "none runs")


def _empty(folder: Path) -> None:
    """Removes a folder; one that is a file system of its own stays, empty."""
    if not folder.is_mount():
        shutil.rmtree(folder)
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def _not_running(data_dir: Path) -> None:
    said = await ask_status(data_dir)
    if said is not None:
        raise click.ClickException(f"the daemon of {said.node} is running (process {said.pid}): end it first")


@command.command()
@_data
@click.option("--yes", is_flag=True, help="Don't ask.")
@common.is_async
async def purge(data_dir: Path, yes: bool) -> None:
    """Remove the node from this machine: its containers, its bus, and its folder with key and replica.

    \b
    Example:
      skerry edge purge --yes
    """
    from bus.identity import join as joining
    from ops import node_containers

    identity = joining.load(data_dir)
    await _not_running(data_dir)
    if not yes:
        click.confirm(f"remove all containers of {identity.node} and {data_dir}?", abort=True)
    await node_leaf(data_dir).server().stop_left_behind()
    removed = node_containers.remove(identity.node, identity.hub)
    node_containers.unmount(data_dir)
    _empty(data_dir)
    click.echo(f"{identity.node} is gone from this machine: {removed} containers, {data_dir}")
