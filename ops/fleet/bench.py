"""The benchmarks of one fleet, in the order of a fleet's life; each yields one row of figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from bus import link
from ops.bench.latency import percentile
from ops.fleet import feed, truth, usage
from ops.fleet.fleet import Fleet, FleetError
from ops.fleet.lab import Lab
from ops.lab.show import Show

Row = dict[str, Any]
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Plan:
    """``via``: ``cluster`` writes objects as the API does and the dispatcher carries them, ``meta`` writes what it would
    write.  ``changes``: changes a second while latency is measured.  ``share``: of objects, changed while nodes are away,
    in each of ``hours`` once.  ``shared``: nodes that are ``per_connection`` on one connection (None: all)."""

    # Real nodes have a connection each; where that is more memory than the machine has, the output says what was shared.

    nodes: int
    objects: int = 10
    via: str = "cluster"
    changes: float = 500.0
    seconds: float = 30.0
    share: float = 0.1
    hours: int = 1
    per_connection: int = 1
    shared: int | None = None
    beat_s: float = link.BEAT_S
    workers: int | None = None
    reports: bool = True
    only: frozenset[str] = frozenset()
    servers: int = 1
    shards: int | None = None
    plain: bool = False


class Bench:
    def __init__(self, lab: Lab, plan: Plan, show: Show) -> None:
        self.lab, self.plan, self.show = lab, plan, show
        self.feed = feed.Feed(lab.log, lab.hub.shards, cluster=plan.via == "cluster")
        self.fleet = Fleet(
            lab.world.processes,
            lab.world.hub,
            plan.nodes,
            workers=plan.workers,
            per_connection=plan.per_connection,
            shared=plan.shared,
            beat_s=plan.beat_s,
            reports=plan.reports,
            urls=lab.hub.urls,
        )

    async def rows(self) -> AsyncIterator[Row]:
        self.lab.start("sync")
        self.lab.start("reports")
        if self.plan.via == "cluster":
            self.lab.start("dispatcher")
        yield await self.load()
        async with self.fleet:
            for step in (self.connect, self.steady, self.one, self.all, self.storm, self.catch_up):
                if not self.plan.only or step.__name__ in (*self.plan.only, "connect"):
                    yield await step()

    # --- the steps

    async def load(self) -> Row:
        """Objects into the log, and as far as META."""
        p = self.plan
        with self.show.step(f"{p.nodes * p.objects} objects into the log") as line:
            meter, began = self._meter(), time.monotonic()
            await self.feed.load(self.fleet.names, p.objects)
            written = time.monotonic() - began
            wanted = p.nodes * p.objects
            while (held := await self._meta_messages()) < wanted:
                line.now(f"{held} of {wanted} in META")
                await asyncio.sleep(0.2)
            took = time.monotonic() - began
            row = self._row("load", meter, written_s=written, in_meta_s=took, objects_s=wanted / took)
            line.detail(f"{wanted / took:.0f} objects/s")
        return row

    async def connect(self) -> Row:
        """All nodes at once, from nothing to in sync."""
        with self.show.step(f"{self.plan.nodes} nodes connect and sync") as line:
            minted = max(r["seconds"] for r in await self.fleet.ask("mint"))
            await self.lab.quiet()  # a cloud that is still starting would miss the first questions
            resting, held = usage.total(self.lab.server_pids).rss, await self.lab.live()
            meter, before, began = self._meter(), await self.lab.traffic(), time.monotonic()
            await self.fleet.ask("connect")
            connected = time.monotonic() - began
            synced = [t - began for t in await self.fleet.settle(seconds=3600)]
            wire = await self.fleet.wire()
            row = self._row("connect", meter, minted_s=minted, connected_s=connected, **_times(synced))
            row["hub_bytes"] = _traffic(await self.lab.traffic() - before)
            row["wire_bytes_a_node"] = wire.bytes // self.plan.nodes
            await self._outboxes_empty()
            await self.fleet.ask("trim")
            row["reported_s"] = round(time.monotonic() - began, 2)
            await self.lab.quiet()
            row["rested_s"] = round(time.monotonic() - began, 2)
            grown = usage.total(self.lab.server_pids).rss - resting
            row["link_kb"] = round(grown / 1e3 / self._connections, 1)  # what the links made the servers grow
            row["hub_kb_a_node"] = round(usage.total(self.lab.server_pids).rss / 1e3 / self.plan.nodes, 1)
            live = await self.lab.live()
            row["link_live_kb"] = round((live.heap + live.stacks - held.heap - held.stacks) / 1e3 / self._connections, 1)
            row["hub_live_mb"] = round((live.heap + live.stacks) / 1e6, 1)
            row["used"] = meter.read()
            row |= await self._converged()
            line.detail(f"{synced[-1]:.1f} s")
        return row

    async def steady(self) -> Row:
        """Nothing happens: beats, pings, refreshes."""
        p = self.plan
        with self.show.step(f"nothing happens for {p.seconds:g} s") as line:
            meter, wire, before = self._meter(), await self.fleet.wire(), await self.lab.traffic()
            began = time.monotonic()
            await asyncio.sleep(p.seconds)
            took = time.monotonic() - began
            used = await self.fleet.wire() - wire
            a_day = DAY_S / took / p.nodes
            row = self._row("steady", meter, seconds=took, beat_s=p.beat_s)
            row["hub_bytes"] = _traffic(await self.lab.traffic() - before)
            row["tcp_bytes_a_node_a_day"] = int((used.sent + used.received) * a_day)
            row["wire_bytes_a_node_a_day"] = int(used.bytes * a_day)
            line.detail(f"{row['tcp_bytes_a_node_a_day'] / 1000:.0f} kB a node a day")
        return row

    async def one(self) -> Row:
        """Changes, each for one node: from the append to applied at the node."""
        p = self.plan
        with self.show.step(f"{p.changes:g} changes a second, each for one node") as line:
            await self.fleet.told()
            meter, before, began = self._meter(), await self.lab.traffic(), time.monotonic()
            made = await self.feed.changes(self.fleet.names, p.objects, p.changes, p.seconds)
            took = time.monotonic() - began
            latencies = await self.fleet.told(made)
            row = self._row("one", meter, asked_s=p.changes, made_s=made / took, changes=made, told=len(latencies))
            row |= {f"{k}_ms": round(percentile(latencies, v) * 1000, 2) for k, v in _SHARES.items()}
            row["max_ms"] = round(latencies[-1] * 1000, 2)
            row["hub_bytes"] = _traffic(await self.lab.traffic() - before)
            line.detail(f"p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms")
        return row

    async def all(self) -> Row:
        """One change for every node."""
        with self.show.step("one change for all nodes") as line:
            rows = []
            if self.plan.via == "cluster":
                self.lab.stop("dispatcher")  # nothing in CLUSTER is for all nodes yet: it would withdraw what we write
            for n in range(3):
                await self.fleet.told()
                meter = self._meter()
                await self.feed.tell_all(n)
                latencies = await self.fleet.told(self.plan.nodes, 30)
                if len(latencies) != self.plan.nodes:
                    raise FleetError(f"{len(latencies)} of {self.plan.nodes} nodes heard of a change for all")
                rows.append(self._row("all", meter, **_times(latencies, 3)))
            row = sorted(rows, key=lambda r: float(r["all_s"]))[1]  # the middle one of three
            if self.plan.via == "cluster":
                self.lab.start("dispatcher")
                await self.lab.quiet()
            line.detail(f"{row['all_s']} s")
        return row

    async def storm(self) -> Row:
        """The hub's server ends and comes back: until every node has asked what it missed and has it."""
        with self.show.step("the hub restarts") as line:
            await self.lab.quiet()
            nodes = {k: v for k, v in self.lab.groups(self.fleet.pids).items() if k != "hub"}
            meter, began = usage.Meter(nodes), time.monotonic()
            await self.lab.restart_hub()
            answers = time.monotonic() - began
            synced = [t - began for t in await self.fleet.settle(since=began, seconds=1800)]
            row = self._row("storm", meter, server_back_s=answers, **_times(synced))
            new = usage.total(self.lab.server_pids)
            row["used"]["hub"] = {"cpu_s": round(new.cpu_s, 2), "rss_mb": round(new.rss / 1e6, 1)}
            wire = await self.fleet.wire()
            row["wire_bytes_a_node"] = wire.bytes // self.plan.nodes
            row |= await self._converged()
            line.detail(f"{synced[-1]:.1f} s")
        return row

    async def catch_up(self) -> Row:
        """Every node was away while a share of the objects changed."""
        p = self.plan
        with self.show.step(f"all are away while {p.share:.0%} of the objects change") as line:
            await self.fleet.ask("away")
            meter = self._meter()
            changed = 0
            for hour in range(p.hours):
                changed += await self.feed.change_share(self.fleet.names, p.objects, p.share, hour + 1)
            await self.lab.quiet()
            carried = meter.read().get("dispatcher", {}).get("cpu_s", 0.0)
            meter, began = self._meter(), time.monotonic()
            await self.fleet.ask("connect")
            synced = [t - began for t in await self.fleet.settle(seconds=3600)]
            wire, after = await self.fleet.wire(), await self.fleet.status()
            row = self._row("catch_up", meter, changed=changed, share=p.share, hours=p.hours, **_times(synced))
            row["wire_bytes_a_node"] = wire.bytes // p.nodes
            row["events_a_node"] = round(after["page_events"] / p.nodes, 2)
            if carried:
                row["dispatcher_us_an_event"] = round(carried / changed * 1e6)
            row |= await self._converged()
            line.detail(f"{synced[-1]:.1f} s")
        return row

    # --- small things

    def _meter(self) -> usage.Meter:
        return usage.Meter(self.lab.groups(self.fleet.pids))

    @property
    def _connections(self) -> int:
        return sum(-(-c.count // c.per_connection) for c in self.fleet.crews)

    def _row(self, name: str, meter: usage.Meter, **figures: float) -> Row:
        p = self.plan
        rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
        how = {"nodes": p.nodes, "objects": p.objects, "via": p.via, "connections": self._connections}
        how |= {"sharing": p.nodes - sum(c.count for c in self.fleet.crews if c.per_connection == 1)}
        how |= {"servers": len(self.lab.servers), "with_log": self.lab.hub.replicas, "reports": p.reports}
        return {"bench": name, **how, **rounded, "used": meter.read()}

    async def _meta_messages(self) -> int:
        infos = [await self.lab.log.info(f"META-{n}") for n in range(self.lab.hub.shards)]
        return sum(i.messages for i in infos)

    async def _outboxes_empty(self) -> None:
        while (await self.fleet.status())["outbox"]:
            await asyncio.sleep(0.2)

    async def _converged(self) -> Row:
        """Raises FleetError unless the nodes hold what the log says, bit for bit."""
        digest, objects = await truth.digest(self.lab.log, self.lab.hub.shards, self.fleet.names)
        held = await self.fleet.hold(objects)
        if held != objects or await self.fleet.digest() != digest:
            raise FleetError(f"the nodes hold {held} objects, the log says {objects}, or they differ in content")
        return {"converged": objects}


_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def _times(seconds: list[float], digits: int = 2) -> dict[str, float]:
    """Seconds until 50, 99, 99.9 and 100 % were there; ``seconds`` is sorted."""
    return {
        "half_s": round(percentile(seconds, 0.5), digits),
        "p99_s": round(percentile(seconds, 0.99), digits),
        "p999_s": round(percentile(seconds, 0.999), digits),
        "all_s": round(seconds[-1], digits),
    }


def _traffic(t: usage.Traffic) -> dict[str, int]:
    return {"in": t.in_bytes, "out": t.out_bytes}
