"""``skerry token``: what lets a machine become a node."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli import common

if TYPE_CHECKING:
    from bus.log import Log
    from schemas.event import Event
    from schemas.identity import TokenState

NAME = "skerry token"


@click.group()
def command() -> None:
    """Create, list and revoke join tokens.

    A token lets one machine join, once.  It holds where the hub is, its CA, and a secret: hand it over as you would a
    password.
    """


@command.command()
@click.option("--node", help="Only for a node of this name; also lets a machine replace the one that had the name.")
@click.option("--ttl", default="24h", show_default=True, help="How long it can be used: 30m, 24h, 7d.")
@common.hub_option
@common.is_async
async def create(node: str | None, ttl: str, hub_dir: Path) -> None:
    """Print a new token.

    \b
    Example:
      skerry token create --node edge-1 --ttl 1h
    """
    from bus.identity import tokens

    ttl_s = common.duration_s(ttl)
    async with common.hub_log(hub_dir, NAME) as (hub, _, store):
        try:
            click.echo(await tokens.create_token(store, hub, node=node, ttl_s=ttl_s, actor=common.actor()))
        except ValueError as e:
            raise click.ClickException(str(e)) from e


@command.command("list")
@common.hub_option
@common.json_option
@common.is_async
async def list_(hub_dir: Path, as_json: bool) -> None:
    """List the tokens that were made, used or not.  (Secrets are not kept: they can't be shown again.)

    \b
    Example:
      skerry token list
    """
    from ops.replay.entries import format_time, id_time_us
    from ops.replay.render import columns

    async with common.hub_log(hub_dir, NAME) as (_, _, store):
        found = [(ev.name, ev, state) for _, ev, state in await _tokens(store)]
    rows = [["ID", "FOR", "MADE (UTC)", "EXPIRES (UTC)", "STATE"]]
    for token_id, ev, state in found:
        if as_json:
            click.echo(
                json.dumps({"id": token_id, "node": state.node, "expires_us": state.expires, "used_by": state.used_by})
            )
        made = format_time(id_time_us(ev.trace))
        rows.append([token_id, state.node or "any", made, format_time(state.expires), _state(ev, state)])
    if not as_json:
        click.echo("\n".join(columns(rows)))


def _state(ev: Event, state: TokenState) -> str:
    from schemas.identity import TOKEN_REVOKED

    if ev.type == TOKEN_REVOKED:
        return "revoked"
    if state.used_by:
        return f"used by {state.used_by}"
    return "expired" if state.expires <= time.time_ns() // 1000 else "open"


async def _tokens(store: Log) -> list[tuple[int, Event, TokenState]]:
    from schemas import codec
    from schemas.identity import TokenState

    out, after, more = [], 0, True
    while more:
        page = await store.last("IDENTITY", ["identity.tokens.>"], after=after)
        after, more = page.up_to, page.more
        for record in page.records:
            ev = record.event()
            out.append((record.seq, ev, codec.validate(TokenState, ev.data)))
    return sorted({ev.name: (seq, ev, state) for seq, ev, state in out}.values(), key=lambda t: t[1].time)


@command.command()
@click.argument("token_id", metavar="ID")
@common.hub_option
@common.is_async
async def revoke(token_id: str, hub_dir: Path) -> None:
    """Make an unused token worthless.  (For a node that has joined: `skerry hub revoke-node`.)

    \b
    Example:
      skerry token revoke 3f9a1c22b07e
    """
    from bus import log
    from bus.identity import tokens
    from schemas import identity, subjects

    async with common.hub_log(hub_dir, NAME) as (_, _, store):
        found = {ev.name: (seq, ev, state) for seq, ev, state in await _tokens(store)}
        if token_id not in found:
            raise click.ClickException(f"there is no token {token_id}: `skerry token list` shows them")
        seq, cause, state = found[token_id]
        if state.used_by:
            raise click.ClickException(
                f"token {token_id} was used by {state.used_by} already: `skerry hub revoke-node {state.used_by}`"
            )
        ended = state.model_copy(update={"expires": min(state.expires, time.time_ns() // 1000)})
        ev = tokens.identity_event(
            identity.TOKEN_REVOKED, "tokens", token_id, ended.model_dump(), actor=common.actor(), cause=cause
        )
        try:
            await store.append(subjects.identity_token(token_id), ev, expect=log.Expect(seq))
        except log.WrongSequence as e:
            raise click.ClickException(f"token {token_id} is being used at this moment: look again with `token list`") from e
    click.echo(f"token {token_id} is revoked")
