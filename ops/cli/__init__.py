"""The ``skerry`` command.  Each group is a module that is imported only when its command runs: an edge daemon on a small
node must not carry what other commands need (a test measures it).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

import click

from bus.stamp import VERSION

GROUPS = {  # name -> (module, one line for the list, so that the list needs no import)
    "hub": ("ops.cli.hub", "Make and run a hub: the event log, its accounts and TLS."),
    "cloud": ("ops.cli.cloud", "Run the Kubernetes API, controllers and everything that tells nodes what to do."),
    "token": ("ops.cli.token", "Create, list and revoke the tokens that nodes join with."),
    "edge": ("ops.cli.edge", "Join this machine as a node, run its daemon, ask it how it is."),
    "mapper": ("ops.cli.mapper", "Run a mapper: a driver for devices of one protocol."),
    "replay": ("ops.cli.replay", "Look into the log: what happened, why, and what a node knew."),
    "fleet": ("ops.cli.fleet", "Run hollow nodes: load for a hub and a cloud that are to be measured."),
    "schema": ("ops.cli.schema", "Write the JSON Schemas and the AsyncAPI document of the bus."),
    "status": ("ops.cli.status", "The hub's streams and the nodes at a glance."),
    "doctor": ("ops.cli.doctor", "Check what Skerry needs on this machine, and say what to do."),
    "install": ("ops.cli.install", "Install into a Kubernetes cluster, whose API then manages the edge nodes."),
    "uninstall": ("ops.cli.uninstall", "Take it out of a Kubernetes cluster again."),
    "version": ("ops.cli.version", "Which version this is, and what it was built on."),
}

ROOMS = ("bus", "cloud", "edge", "mappers", "ops", "schemas")


class Lazy(click.Group):
    """Imports a command's module when it is called, or when its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in GROUPS:
            return None
        command: click.Command = importlib.import_module(GROUPS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in GROUPS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "SKERRY"})
@click.version_option(VERSION, prog_name="skerry")
def cli() -> None:
    """Skerry: containers and devices on edge nodes from a Kubernetes API, over a log of events.

    \b
    A first hub, cloud and node on one machine:
      skerry hub init && skerry hub run &
      skerry cloud run --kubeconfig ./kubeconfig &
      skerry edge join $(skerry token create --node edge-1) --node edge-1
      skerry edge run &
      kubectl --kubeconfig ./kubeconfig get nodes

    Folders can be set in the environment: SKERRY_HUB (the hub's) and SKERRY_DATA (the node's); other options as
    SKERRY_COMMAND_OPTION, for example SKERRY_EDGE_RUN_BEAT.
    """


def ours(error: BaseException) -> bool:
    """Errors of our rooms say what to do; their message is for people.  Anything else is a bug and shows its traceback."""
    return isinstance(error, Exception) and type(error).__module__.partition(".")[0] in ROOMS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0 good, 1 an error that is said, 2 wrong usage, 130 interrupted."""
    # nats-py over TLS makes asyncio warn at every close of a connection; there is nothing that anybody could do about it.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        result = cli.main(args=args, prog_name="skerry", standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except Exception as e:  # told apart below: ours are answers, others are bugs
        if not ours(e) or os.environ.get("SKERRY_DEBUG"):
            raise
        click.echo(f"Error: {e}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def entry() -> None:
    sys.exit(main())
