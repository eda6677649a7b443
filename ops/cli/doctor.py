"""``skerry doctor``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli import common

if TYPE_CHECKING:
    from ops.doctor import Check

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command()
@common.hub_option
@common.data_option(common.EDGE_DIR, "the node")
@common.json_option
@common.is_async
async def command(hub_dir: Path, data_dir: Path, as_json: bool) -> int:
    """Check what Skerry needs on this machine, and say what to do about what is wrong.

    Looks at the machine, and at a hub or a node when there is one in its folder.  Exit code 1 when something fails.

    \b
    Examples:
      skerry doctor
      skerry doctor --hub ./hub --data ./edge-1
    """
    from ops import doctor
    from ops.cli import edge

    has_hub, has_node = (hub_dir / "hub.json").exists(), data_dir.is_dir() and any(data_dir.iterdir())
    checks = list(doctor.machine([f for f, there in ((hub_dir, has_hub), (data_dir, has_node)) if there]))
    if has_node or not has_hub:
        checks.append(doctor.container_engine())
    if has_hub:
        checks += [c async for c in doctor.hub(hub_dir, common.HUB_WAIT_S)]
    if has_node:
        checks += [(mine := doctor.identity(data_dir)), doctor.store(data_dir)]
        if not mine.saw.startswith(str(data_dir)):
            checks += doctor.daemon(await edge.ask_status(data_dir))
    _show(checks, as_json)
    if not (has_hub or has_node) and not as_json:
        click.echo("no hub and no node is set up here: skerry hub init, or skerry edge join")
    return 1 if any(c.level == "fail" for c in checks) else 0


def _show(checks: list[Check], as_json: bool) -> None:
    for c in checks:
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(c)))
            continue
        click.echo(f"{_MARKS[c.level]}  {c.name}: {c.saw}")
        if c.do:
            click.echo(f"      -> {c.do}")
