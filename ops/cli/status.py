"""``skerry status``: the whole at a glance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli import common

if TYPE_CHECKING:
    from bus.log import Log


@click.command()
@common.hub_option
@common.json_option
@common.is_async
async def command(hub_dir: Path, as_json: bool) -> None:
    """The hub's streams, and what the API says of the nodes.

    \b
    Example:
      skerry status --hub /var/lib/skerry/hub
    """
    from bus.hub import streams
    from ops.cli.hub import stream_row
    from ops.replay.render import columns

    async with common.hub_log(hub_dir, "skerry status") as (hub, _, store):
        rows = [
            await stream_row(store, c["name"]) for c in streams.wanted(hub.shards) if not c["name"].startswith("HISTORY")
        ]
        nodes = await _nodes(store)
    if as_json:
        click.echo(json.dumps({"hub": hub.id, "urls": hub.urls, "streams": rows, "nodes": nodes}))
        return
    click.echo(f"hub {hub.id} at {' '.join(hub.urls)}")
    table = [["STREAM", "MESSAGES", "BYTES"]]
    click.echo(
        "\n".join(columns(table + [[r["name"], str(r.get("messages", "missing")), str(r.get("bytes", ""))] for r in rows]))
    )
    if nodes:
        click.echo(
            "\n".join(["", *columns([["NODE", "READY", "WHY"], *([n["name"], n["ready"], n["message"]] for n in nodes)])])
        )


async def _nodes(store: Log) -> list[dict[str, Any]]:
    from schemas import codec

    out: dict[str, dict[str, Any]] = {}
    after, more = 0, True
    while more:
        page = await store.last("CLUSTER", ["cluster.core.nodes.*.*"], after=after)
        after, more = page.up_to, page.more
        for record in page.records:
            try:
                ev = record.event()
            except codec.DecodeError as e:
                click.echo(f"note: {e}", err=True)
                continue
            out.pop(ev.name, None)
            if not ev.deleted:
                out[ev.name] = _node(ev.name, ev.data or {})
    return [out[name] for name in sorted(out)]


def _node(name: str, obj: dict[str, Any]) -> dict[str, Any]:
    conditions = (obj.get("status") or {}).get("conditions") or []
    ready: dict[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    return {"name": name, "ready": ready.get("status", "Unknown"), "message": ready.get("message", "")}
