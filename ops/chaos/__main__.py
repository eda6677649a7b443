"""`./just chaos`: every fault on real processes, and what it cost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from ops.chaos import card, faults, leftovers, page, scorecard
from ops.chaos.scorecard import Row

OUT = Path("build") / "chaos.json"


@click.command()
@click.option("--rows", default="", help="Only these faults, with commas; 'short' for one of each kind.")
@click.option(
    "--links", type=click.Choice(["", "netem", "tun", "relay"]), default="", help="Default: the best possible here."
)
@click.option(
    "--lanes",
    type=click.IntRange(1, card.LANES_MAX),
    default=2,
    show_default=True,
    help="Rows side by side, each on a hub, a cloud and nodes of its own.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT, show_default=True)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A card: its good rows are kept, the others of those asked for are measured.",
)
@click.option("--again", is_flag=True, help="With --resume: measure all that is asked for, keep the rest.")
@click.option("--page", "page_", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Write docs/CHAOS.md and docs/CHAOS.zh.md from this card, and end.")  # fmt: skip
@click.option("--list", "list_", is_flag=True, help="Print the faults and end.")
@click.option("--sweep", is_flag=True, help="Take down what killed runs left, and end.")
def main(
    rows: str,
    links: str,
    lanes: int,
    out: Path,
    resume: Path | None,
    again: bool,
    page_: Path | None,
    list_: bool,
    sweep: bool,
) -> None:
    """Faults one after the other on a real hub, cloud and two nodes; a scorecard of what each cost.

    Exit code 0 when no container was touched, nothing was lost or doubled, and nothing differs afterwards.
    """
    if list_:
        for fault in faults.FAULTS:
            click.echo(f"{fault.key:22} {fault.title}")
        return
    if sweep:
        click.echo("\n".join(leftovers.sweep()) or "nothing was left")
        return
    try:
        if page_ is not None:
            page.write(page_)
            return
        wanted = faults.chosen(",".join(faults.SHORT) if rows == "short" else rows)
        had = scorecard.read(resume) if resume is not None else []
    except KeyError as e:
        raise click.BadParameter(f"there is no fault {e}; --list names them", param_hint="--rows") from e
    except scorecard.CardError as e:
        raise click.ClickException(str(e)) from e
    if not again:
        good = {r.fault for r in had if r.ok}
        wanted = [f for f in wanted if f.key not in good]
    signal.signal(signal.SIGTERM, _interrupt)

    def kept(found: Sequence[Row]) -> None:
        scorecard.write(found, out)

    order = [f.key for f in faults.FAULTS]
    found = card.run(wanted, order=order, lanes=lanes, links=links, done=had, say=click.echo, kept=kept)
    scorecard.write(found, out)
    scorecard.show(found)
    sys.exit(0 if all(r.ok for r in found) else 1)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
