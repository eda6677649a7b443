"""`./just chaos`: every fault on real processes, and what it cost."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click
import structlog

from ops.chaos import faults, netns, run, scorecard
from ops.chaos.scorecard import Row

OUT = Path("build") / "chaos.json"


@click.command()
@click.option("--rows", default="", help="Only these faults, with commas; 'short' for one of each kind.")
@click.option(
    "--links", type=click.Choice(["", "netem", "tun", "relay"]), default="", help="Default: the best possible here."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT, show_default=True)
@click.option("--list", "list_", is_flag=True, help="Print the faults and end.")
@click.option("--sweep", is_flag=True, help="Remove namespaces and devices that a killed run left, and end.")
def main(rows: str, links: str, out: Path, list_: bool, sweep: bool) -> None:
    """Faults one after the other on a real hub, cloud and two nodes; a scorecard of what each cost.

    Exit code 0 when no container was touched, nothing was lost or doubled, and nothing differs afterwards.
    """
    if list_:
        for fault in faults.FAULTS:
            click.echo(f"{fault.key:18} {fault.title}")
        return
    if sweep:
        click.echo("\n".join(netns.sweep()) or "nothing was left")
        return
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # warns at each TLS connection that nats-py ends
    # Our own looks at nodes that are being hurt find them away: no news.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        wanted = faults.chosen(",".join(faults.SHORT) if rows == "short" else rows)
    except KeyError as e:
        raise click.BadParameter(f"there is no fault {e}; --list names them", param_hint="--rows") from e

    def kept(rows: Sequence[Row], words: str, kind: str) -> None:
        scorecard.write(rows, words, kind, out)

    sys.exit(0 if run.main_report(*run.run(wanted, links=links, say=click.echo, kept=kept), out) else 1)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
