"""``skerry replay``: the debugger's commands.  They need the hub's folder and write nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli import common

if TYPE_CHECKING:
    from ops.replay.reading import Reader
    from ops.replay.slices import Verdict

NAME = "skerry replay"
TRACE_SLACK_US = 300_000_000  # a node's clock may be off: a trace is looked for from five minutes before its id says


@click.group()
def command() -> None:
    """Look into the log: what happened, why, and what a node knew.

    Every change is an event that names its cause, so a chain can be followed over every hop, and the state of a node at
    any moment can be made again.
    """


_namespace = click.option("-n", "--namespace", default=None, help="Namespace of the object (default: any).")


@command.command()
@click.argument("object_", metavar="[OBJECT]", required=False)
@_namespace
@click.option("--subject", default="", help="A NATS subject filter, e.g. 'cluster.core.pods.>'.")
@click.option("--node", help="Only what is for, from or about this node.")
@click.option("--actor", help="Only what was done by (or on behalf of) this user or component.")
@click.option("--trace", help="Only this trace.")
@click.option("--type", "type_", help="Only this type of event, e.g. report or object.deleted.")
@click.option("--since", default="1h", show_default=True, help="From when on: 10m, 2h, 7d, or a time. 'start' for all.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1), help="At most the last so many.")
@common.hub_option
@common.json_option
@common.is_async
async def log(
    object_: str | None, namespace: str | None, subject: str, node: str | None, actor: str | None, trace: str | None,
    type_: str | None, since: str, limit: int, hub_dir: Path, as_json: bool,
) -> None:  # fmt: skip
    """Print events in the order in which they were stored, the last ones last.

    \b
    Examples:
      skerry replay log pods/web-1 --since 10m
      skerry replay log --node edge-1 --type report --json
    """
    from ops.replay import entries, render
    from schemas import subjects

    since_us = 0 if since == "start" else entries.parse_time(since, _now_us())
    target = entries.parse_target(object_, namespace) if object_ else None
    wanted = entries.Filter(target, node, actor, trace, type_, since_us)
    async with common.hub_log(hub_dir, NAME) as (hub, _, store):
        reader = _reader(store, hub.shards)
        streams = [subjects.stream_of(subject)] if _stored(subject) else reader.streams()
        found = await reader.entries(streams, [subject] if subject else [], since_us=since_us)
    shown = [e for e in found if wanted.matches(e)]
    for line in (
        [render.dumps(render.entry_json(e)) for e in shown[-limit:]] if as_json else render.log_lines(shown[-limit:])
    ):
        click.echo(line)
    if len(shown) > limit and not as_json:
        click.echo(f"({len(shown) - limit} earlier ones are not shown: --limit)", err=True)


def _stored(subject: str) -> bool:
    """Whether a filter lies in one stream; a wildcard in the shard spans several."""
    parts = subject.split(".")
    return (
        bool(subject)
        and parts[0] not in ("*", ">")
        and (parts[0] not in ("meta", "report") or parts[1:2] not in (["*"], [">"]))
    )


@command.command()
@click.argument("what", metavar="EVENT|TRACE|OBJECT")
@_namespace
@click.option("--whole", is_flag=True, help="Everything of the trace, not only what is about the object.")
@common.hub_option
@common.json_option
@common.is_async
async def story(what: str, namespace: str | None, whole: bool, hub_dir: Path, as_json: bool) -> None:
    """Tell the causal chain of one change over every hop, with times.

    WHAT is the id of an event or of a trace, or an object: then its last change is told.  Times are those of whoever did a
    step; a step is never shown before its cause, even when a node's clock is wrong.

    \b
    Examples:
      skerry replay story pods/web-1
      skerry replay story deployments.apps/web --whole
    """
    from ops.replay import entries, render
    from ops.replay import story as stories

    async with common.hub_log(hub_dir, NAME) as (hub, _, store):
        reader = _reader(store, hub.shards)
        target = None
        if "/" in what:
            target = entries.parse_target(what, namespace)
            trace = await _trace_of_object(reader, target)
        else:
            trace = await _trace_of_id(reader, what)
        found = await reader.entries(reader.streams(), since_us=_from(trace))
    chain = stories.chain_of(found, trace, None if whole else target)
    told = stories.build(trace, chain)
    if as_json:
        click.echo(render.dumps(render.story_json(told)))
    else:
        click.echo("\n".join(render.story_lines(told, str(target) if target else "trace")))


async def _trace_of_object(reader: Reader, target: Any) -> str:
    from ops.replay import entries
    from ops.replay import story as stories
    from schemas import subjects

    if target.name is None:
        raise entries.BadQuestion(f"{target.resource}: name one object, as {target.resource}/NAME")
    namespace = "*" if target.namespace is None else subjects.escape(target.namespace)
    group = subjects.escape_group(target.group or "")
    subject = f"cluster.{group}.{subjects.escape(target.resource)}.{namespace}.{subjects.escape(target.name)}"
    trace = stories.latest_trace(await reader.entries(["CLUSTER"], [subject]), target)
    if trace is None:
        raise entries.BadQuestion(f"the log has no {target} (nor had, as far as the history goes back)")
    return trace


async def _trace_of_id(reader: Reader, event_id: str) -> str:
    from ops.replay import entries

    if len(event_id) != 36:
        raise entries.BadQuestion(f"{event_id!r} is neither an id (as `replay log` prints them) nor an object (pods/NAME)")
    for entry in await reader.entries(reader.streams(), since_us=_from(event_id)):
        if entry.event is not None and event_id in (entry.event.id, entry.event.trace):
            return entry.event.trace
    raise entries.BadQuestion(f"no event or trace {event_id} is in the log (any more)")


def _from(event_id: str) -> int:
    from ops.replay import entries

    return max(0, entries.id_time_us(event_id) - TRACE_SLACK_US)


@command.command()
@click.argument("node")
@click.argument("object_", metavar="[OBJECT]", required=False)
@_namespace
@click.option("--seq", type=click.IntRange(0), help="As of this sequence of the node's META stream.")
@click.option("--time", "time_", help="As of this time: 10m (ago) or 2026-11-23T13:00:00Z.")
@common.hub_option
@common.json_option
@common.is_async
async def at(
    node: str, object_: str | None, namespace: str | None, seq: int | None, time_: str | None, hub_dir: Path, as_json: bool
) -> None:
    """Show what NODE had been told at a point of the log: its slice, made again from the history.

    \b
    Examples:
      skerry replay at edge-1 --time 30m
      skerry replay at edge-1 configmaps/greeting --seq 1200 --json
    """
    from ops.replay import entries, reading, render, slices

    if (seq is None) == (time_ is None):
        raise click.UsageError("name one point: --seq or --time")
    target = entries.parse_target(object_, namespace) if object_ else None
    async with common.hub_log(hub_dir, NAME) as (hub, _, store):
        reader = _reader(store, hub.shards)
        until_us = None if time_ is None else entries.parse_time(time_, _now_us())
        held, notes = [], []
        for scope in (node, "all"):
            stream, records = await reader.slice_lines(scope)
            if seq is not None and scope == node:  # the other scope, in another stream, is taken at the same time
                before = [r.time_us for r in records if r.seq <= seq]
                until_us = max(before, default=0)
            records = [r for r in records if until_us is not None and r.time_us <= until_us]
            up_to = records[-1].seq if records else 0
            folded = slices.fold_scope(reading.lines_of(records), scope, up_to)
            held += slices.objects(folded.state)
            notes += folded.refused
            first = await reader.history_first(stream)
            if first > 1:
                notes.append(
                    f"{stream}: the history goes back to #{first}; what changed since then may have been more before"
                )
    if target is not None:
        held = [h for h in held if h.event is not None and target.matches(h.event)]
    if as_json:
        for h in held:
            click.echo(render.dumps(render.held_json(h)))
    else:
        click.echo("\n".join(render.slice_lines(held)))
    for note in notes:
        click.echo(f"note: {note}", err=True)


@command.command()
@click.argument("node")
@common.data_option(common.EDGE_DIR, "the node (its daemon may be running)")
@click.option("--all", "all_", is_flag=True, help="Every difference, not only the first ones.")
@common.hub_option
@common.json_option
@common.is_async
async def verify(node: str, data_dir: Path, all_: bool, hub_dir: Path, as_json: bool) -> int:
    """Check that NODE's replica is the fold of the log up to its cursor, byte for byte.

    Reads the node's store on this machine and the log at the hub.  Exit code 0: equal; 1: different.

    \b
    Example:
      skerry replay verify edge-1 --data /var/lib/skerry/edge
    """
    from ops.replay import reading, render, slices

    cursors, objects = reading.read_replica(replica_folder(data_dir))
    reading.need_node(list(cursors), node)
    verdicts: list[Verdict] = []
    async with common.hub_log(hub_dir, NAME) as (hub, _, store):
        reader = _reader(store, hub.shards)
        for scope, cursor in sorted(cursors.items()):
            stream, records = await reader.slice_lines(scope, up_to=cursor.seq)
            epoch = await reader.epoch(stream)
            if cursor.epoch != epoch:
                raise reading.ReadError(
                    f"scope {scope}: the replica is of epoch {cursor.epoch or '(never synced)'}, the log of {epoch}: "
                    "the node has not synced since the log was made anew or restored; it will start its scope again"
                )
            folded = slices.fold_scope(reading.lines_of(records), scope, cursor.seq)
            verdicts.append(slices.compare(scope, cursor.seq, folded, objects))
    if as_json:
        click.echo(render.dumps({"node": node, "scopes": [render.verdict_json(v) for v in verdicts]}))
    else:
        most = max((len(v.differences) for v in verdicts), default=0) if all_ else slices.DIFFERENCES_MAX
        click.echo("\n".join(render.verdict_lines(node, verdicts, most)))
    return 0 if all(v.equal for v in verdicts) else 1


def replica_folder(data_dir: Path) -> Path:
    """The store in a node's data folder, or the store itself."""
    inner = data_dir / "store"
    return inner if inner.is_dir() else data_dir


def _reader(store: Any, shards: int) -> Reader:
    from ops.replay import reading

    return reading.Reader(store, shards)


def _now_us() -> int:
    return time.time_ns() // 1000
