"""``skerry hub api-keys``: the keys that sign tokens of service accounts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli import common
from schemas import times

if TYPE_CHECKING:
    from schemas.identity import ApiKeys

_data = common.data_option(common.HUB_DIR, "the hub", "SKERRY_HUB")


@click.group("api-keys")
def command() -> None:
    """The keys that sign tokens of service accounts, the same for every API server of the hub.

    The first one is made when an API server first runs.  Rotate now and then; retire what got into wrong hands.
    """


@command.command("list")
@_data
@common.json_option
@common.is_async
async def list_(data_dir: Path, as_json: bool) -> None:
    """Which keys there are, and what each does.

    \b
    Example:
      skerry hub api-keys list
    """
    from bus import stamp
    from bus.identity import api_keys
    from ops.replay.render import columns

    async with common.hub_log(data_dir, "skerry hub api-keys list") as (_, _, store):
        ring, _ = await api_keys.read(store)
    rows = _rows(ring, stamp.now_us()) if ring is not None else []
    if as_json:
        click.echo(json.dumps({"keys": rows}))
    elif not rows:
        click.echo("no key yet: an API server makes the first one")
    else:
        table = [["KEY", "CREATED", "STATE"], *([r["kid"], r["created"], _state(r)] for r in rows)]
        click.echo("\n".join(columns(table)))


def _rows(ring: ApiKeys, now_us: int) -> list[dict[str, Any]]:
    from bus.identity import api_keys

    signs = api_keys.signing(ring, now_us).kid
    counted = {k.kid for k in api_keys.verifying(ring, now_us)}
    return [
        {
            "kid": k.kid,
            "created": times.rfc3339(k.created),
            "signs": k.kid == signs,
            "verifies": k.kid in counted,
            "signs_from": times.rfc3339(k.signs_from),
            "verifies_until": None if k.verifies_until is None else times.rfc3339(k.verifies_until),
        }
        for k in ring.keys
    ]


def _state(row: dict[str, Any]) -> str:
    if row["signs"]:
        return "signs"
    if not row["verifies"]:
        return "over"
    until = row["verifies_until"]
    return f"its tokens count until {until}" if until else f"signs from {row['signs_from']}"


@command.command()
@_data
@common.is_async
async def rotate(data_dir: Path) -> None:
    """Make a new key.  It signs in a few seconds; tokens that the one before signed count until they end.

    \b
    Example:
      skerry hub api-keys rotate
    """
    from bus.identity import api_keys

    async with common.hub_log(data_dir, "skerry hub api-keys rotate") as (hub, _, store):
        try:
            made = await api_keys.rotate(store, api_keys.seal_of(hub), common.actor())
        except api_keys.KeyProblem as e:
            raise click.ClickException(str(e)) from e
    click.echo(f"{made.kid} signs from {times.rfc3339(made.signs_from)}")


@command.command()
@click.argument("key")
@_data
@common.is_async
async def retire(key: str, data_dir: Path) -> None:
    """End KEY (or the one key that begins so) now: tokens that it signed are refused.  The one that signs must be rotated
    first.

    Pods on nodes get new tokens within minutes, nodes that are cut off when they are back.

    \b
    Example:
      skerry hub api-keys retire 3Vbq
    """
    from bus.identity import api_keys

    async with common.hub_log(data_dir, "skerry hub api-keys retire") as (_, _, store):
        try:
            await api_keys.retire(store, key, common.actor())
        except api_keys.KeyProblem as e:
            raise click.ClickException(str(e)) from e
    click.echo(f"{key} is retired")
