"""The benchmarks of one fleet, in the order of a fleet's life; each tells its row of figures as soon as it has them.

A phase that fails or takes too long is a row that says so, and the next one is tried: hours of a large run are not thrown
away for its last minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from bus import connect, log
from bus.replica import REFRESH_S
from ops.bench.latency import percentile
from ops.fleet import feed, truth, usage, worker
from ops.fleet.fleet import Fleet, FleetError
from ops.fleet.lab import QUIET_CORES, Lab
from ops.fleet.plan import FREE_MB_MIN, STEPS, Plan
from ops.lab.show import Line, Show, StepFailed

T = TypeVar("T")
Row = dict[str, Any]
DAY_S = 86_400
COMPARE_S = 600.0
LOOK_S = 1.0
STATUS_EVERY_S = 15.0
SAMPLE = 200  # nodes of each worker
REST_S = 180.0
BEAT_CPU_S = 2e-3  # of hub and cloud, generously
ANSWERED_S = 2.0  # acknowledgements of TCP come late
SAY_EVERY_S = 60.0
FAILURES = (FleetError, StepFailed, TimeoutError, OSError, log.LogError, connect.NotConnected, ExceptionGroup)


class Bench:
    """``tell`` gets each row."""

    def __init__(self, lab: Lab, plan: Plan, show: Show, tell: Callable[[Row], None]) -> None:
        self.lab, self.plan, self.show, self.tell = lab, plan, show, tell
        self.feed = feed.Feed(lab.log, lab.hub.shards, cluster=plan.via == "cluster")
        self.fleet = self._fleet(plan.nodes, per_connection=plan.per_connection, shared=plan.shared)
        self.failed = 0

    def _fleet(self, count: int, **more: Any) -> Fleet:
        p = self.plan
        urls = self.lab.hub.leaf_urls if p.leafs else self.lab.hub.urls
        kind = {"urls": urls, "leafs": p.leafs, "beat_s": p.beat_s, "reports": p.reports, "workers": p.workers}
        kind["pace"] = p.pace
        return Fleet(self.lab.world.processes, self.lab.world.hub, count, **{**kind, **more})

    async def run(self) -> None:
        self.lab.start("sync")
        self.lab.start("reports")
        if self.plan.via == "cluster":
            self.lab.start("dispatcher")
        if self.plan.asks_for("connect"):
            if not await self._phase("load", self.load):
                return
            gc.freeze()  # a full collection of ours must not look like a slow hub
            async with self.fleet:
                for step in STEPS[:-1]:
                    done = not self.plan.asks_for(step) or await self._phase(step, getattr(self, step))
                    if step == "connect" and not done and not await self._somebody():
                        return
            gc.unfreeze()
        if self.plan.asks_for("reconnect"):
            await self._phase("reconnect", self.reconnect)

    async def _phase(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        """False when it failed, which is told."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.plan.phase_s):
                await step()
        except FAILURES as e:
            self.failed += 1
            row: Row = {"bench": name, **self._how(), "failed": _words(e), "after_s": round(time.monotonic() - began, 1)}
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(30):
                    row["status"] = await self.fleet.status()
            self.tell({**row, "used": self._meter().read(), "free_mb": usage.free_mb()})
            return False
        return True

    async def _somebody(self) -> bool:
        """Whether there are nodes to measure, though not all came to be in sync or a figure could not be had."""
        status = await _maybe(self.fleet.status())
        return status is not None and status["connections"] > 0

    # --- the phases

    async def load(self) -> None:
        """Objects into the log, and as far as META."""
        p = self.plan
        wanted = p.nodes * p.objects
        with self.show.step(f"{wanted} objects into the log") as line:
            meter, began = self._meter(), time.monotonic()
            async with self._saying("load", lambda: {"written": self.feed.written}):
                await self.feed.load(self.fleet.names, p.objects)
            written = time.monotonic() - began
            while (held := await self._meta_messages()) < wanted:
                line.now(f"{held} of {wanted} in META")
                await asyncio.sleep(0.2)
            took = time.monotonic() - began
            self._tell("load", meter, written_s=written, in_meta_s=took, objects_s=wanted / took)
            line.detail(f"{wanted / took:.0f} objects/s")

    async def connect(self) -> None:
        """All nodes at once, from nothing to in sync."""
        with self.show.step(f"{self.plan.nodes} nodes connect and sync") as line:
            minted = max(r["seconds"] for r in await self.fleet.ask("mint"))
            await self._rest()  # a cloud that is still starting would miss the first questions
            resting, held = usage.total(self.lab.server_pids).rss, await _maybe(self.lab.live())
            meter, before, began = self._meter(), await self._traffic(), time.monotonic()
            async with self._watched(line):
                await self.fleet.connect(self.plan.phase_s * 0.8)
            connected = time.monotonic() - began
            synced = [t - began for t in await self.fleet.settle(seconds=self._left(began))]
            figures = {"minted_s": minted, "connected_s": connected, **_times(synced)}
            self._tell("connecting", meter, **figures)
            wire = await self.fleet.wire()
            more: Row = {"wire_bytes_a_node": wire.bytes // self.fleet.count}
            more["hub_bytes"] = _between(before, await self._traffic())
            await self._outboxes_empty()
            more["reported_s"] = round(time.monotonic() - began, 2)
            await self.fleet.ask("trim")
            await self._rest()
            more["rested_s"] = round(time.monotonic() - began, 2)
            more |= await self._link_memory(resting, held)
            self._tell("connect", meter, **figures, **more)
            line.detail(f"{synced[-1]:.1f} s")
        await self._compare("connect")

    async def _link_memory(self, resting: int, held: usage.Live | None) -> Row:
        """What the links made the servers grow: as the kernel sees it now, and what is left after a collection."""
        links, rss = self.fleet.connections, usage.total(self.lab.server_pids).rss
        row: Row = {"link_kb": round((rss - resting) / 1e3 / links, 1)}
        row["hub_kb_a_node"] = round(rss / 1e3 / self.fleet.count, 1)
        live = await _maybe(self.lab.live())
        if live is not None and held is not None:
            row["link_live_kb"] = round((live.total - held.total) / 1e3 / links, 1)
            row["hub_live_mb"] = round(live.total / 1e6, 1)
            row["link_rest_kb"] = round((await self._given_back() - resting) / 1e3 / links, 1)
        return row

    async def _given_back(self) -> int:
        """The servers' memory as the kernel sees it some time after the collection that ``live`` made.  Go makes one by
        itself when there was none for two minutes, and gives back what it freed in its own time."""
        deadline, rss = time.monotonic() + GIVEN_BACK_S, usage.total(self.lab.server_pids).rss
        while time.monotonic() < deadline:
            await asyncio.sleep(GIVING_S)
            before, rss = rss, usage.total(self.lab.server_pids).rss
            if rss > before * GIVES_NO_MORE:
                break
        return rss

    async def steady(self) -> None:
        """Nothing happens; and what that is made of, each once for a few nodes: a beat, a proof of the link, a refresh.

        A day is put together from these: nobody measures a day, and half a minute has no beat in it."""
        p = self.plan
        with self.show.step(f"nothing happens for {p.seconds:g} s") as line:
            meter, wire, before = self._meter(), await self.fleet.wire(), await self._traffic()
            began = time.monotonic()
            await asyncio.sleep(p.seconds)
            row: Row = {"seconds": time.monotonic() - began, "hub_bytes": _between(before, await self._traffic())}
            row["idle_bytes_a_node"] = round((await self.fleet.wire() - wire).bytes / self.fleet.count, 1)
            times = {"beat": p.beat_s, "ping": worker.LEAF_RTT_S if p.leafs else worker.RTT_S, "refresh": REFRESH_S}
            a_day = 0.0
            for what, every_s in times.items():
                wire, few = await self.fleet.wire_of(SAMPLE)
                await self.fleet.ask(what, first=SAMPLE)
                await asyncio.sleep(ANSWERED_S)
                await self._rest()
                each = ((await self.fleet.wire_of(SAMPLE))[0] - wire).bytes / few
                row[f"{what}_bytes"], row[f"{what}_every_s"] = round(each, 1), every_s
                a_day += each * DAY_S / every_s
            self._tell("steady", meter, **row, wire_bytes_a_node_a_day=int(a_day))
            line.detail(f"{a_day / 1000:.0f} kB a node a day")

    async def one(self) -> None:
        """Changes, each for one node: from the append to applied at the node."""
        p = self.plan
        with self.show.step(f"{p.changes:g} changes a second, each for one node") as line:
            await self.fleet.told()
            meter, before, began = self._meter(), await self._traffic(), time.monotonic()
            again = self.feed.again
            made = await self.feed.changes(self.fleet.names, p.objects, p.changes, p.seconds)
            took = time.monotonic() - began
            latencies = await self.fleet.told(made, 30)
            if not latencies:
                raise FleetError(f"no node heard of any of {made} changes")
            row: Row = {"asked_s": p.changes, "made_s": made / took, "changes": made, "told": len(latencies)}
            row |= {"again": self.feed.again - again, "hub_bytes": _between(before, await self._traffic())}
            row |= {f"{k}_ms": round(percentile(latencies, v) * 1000, 2) for k, v in _SHARES.items()}
            self._tell("one", meter, **row, max_ms=round(latencies[-1] * 1000, 2))
            line.detail(f"p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms")

    async def all(self) -> None:
        """One change for every node."""
        with self.show.step("one change for all nodes") as line:
            rows = []
            if self.plan.via == "cluster":
                self.lab.stop("dispatcher")  # nothing in CLUSTER is for all nodes yet: it would withdraw what we write
            try:
                for n in range(3):
                    await self.fleet.told()
                    meter = self._meter()
                    await self.feed.tell_all(n)
                    latencies = await self.fleet.told(self.fleet.count, 30)
                    if len(latencies) != self.fleet.count:
                        raise FleetError(f"{len(latencies)} of {self.fleet.count} nodes heard of a change for all")
                    rows.append(self._row("all", meter, **_times(latencies, 3)))
            finally:
                if self.plan.via == "cluster":
                    self.lab.start("dispatcher")
            row = sorted(rows, key=lambda r: float(r["all_s"]))[1]  # the middle one of three
            self.tell(row)
            await self._rest()
            line.detail(f"{row['all_s']} s")

    async def storm(self) -> None:
        """The hub's servers end and come back: until every node has asked what it missed and has it."""
        with self.show.step("the hub restarts") as line:
            await self._rest()
            nodes = {k: v for k, v in self.lab.groups(self.fleet.pids).items() if k != "hub"}
            meter, began = usage.Meter(nodes), time.monotonic()
            await self.lab.restart_hub()
            answers = time.monotonic() - began
            synced = [t - began for t in await self.fleet.settle(since=began, seconds=self._left(began))]
            wire = await self.fleet.wire()
            row = self._row("storm", meter, server_back_s=answers, **_times(synced))
            new = usage.total(self.lab.server_pids)
            row["used"]["hub"] = {"cpu_s": round(new.cpu_s, 2), "rss_mb": round(new.rss / 1e6, 1)}
            self.tell({**row, "wire_bytes_a_node": wire.bytes // self.fleet.count})
            line.detail(f"{synced[-1]:.1f} s")
        await self._compare("storm")

    async def catch_up(self) -> None:
        """Every node was away while a share of the objects changed."""
        p = self.plan
        with self.show.step(f"all are away while {p.share:.0%} of the objects change") as line:
            await self.fleet.ask("away")
            meter, began, changed = self._meter(), time.monotonic(), 0
            for hour in range(p.hours):
                changed += await self.feed.change_share(self.fleet.names, p.objects, p.share, hour + 1)
            await self._rest()
            carried = meter.read().get("dispatcher", {}).get("cpu_s", 0.0)
            meter, began = self._meter(), time.monotonic()
            async with self._watched(line):
                await self.fleet.connect(self.plan.phase_s * 0.5)
            synced = [t - began for t in await self.fleet.settle(seconds=self._left(began))]
            wire, after = await self.fleet.wire(), await self.fleet.status()
            row = self._row("catch_up", meter, changed=changed, share=p.share, hours=p.hours, **_times(synced))
            row["wire_bytes_a_node"] = wire.bytes // self.fleet.count
            row["events_a_node"] = round(after["page_events"] / self.fleet.count, 2)  # their replicas count anew since
            if carried:
                row["dispatcher_us_an_event"] = round(carried / changed * 1e6)
            self.tell(row)
            line.detail(f"{synced[-1]:.1f} s")
        await self._compare("catch_up")

    async def reconnect(self) -> None:
        """One node with many unchanged objects loses its connection, again and again: what does that cost?"""
        p = self.plan
        with self.show.step(f"a node with {p.alone} objects reconnects") as line:
            alone = self._fleet(1, first=p.nodes, workers=1, reports=False)
            writing = feed.Feed(self.lab.log, self.lab.hub.shards, cluster=False)
            if p.via == "cluster":
                self.lab.stop("dispatcher")  # it would withdraw what nothing in CLUSTER asks for
            await writing.load(alone.names, p.alone)
            async with alone:
                await alone.ask("mint")
                await self._rest()
                await alone.connect()
                await alone.settle(seconds=self.plan.phase_s * 0.5)
                held = (await alone.status())["objects"]  # these, and what is for all nodes
                if held < p.alone:
                    raise FleetError(f"the node is in sync and holds {held} objects of {p.alone}")
                before = await alone.status()
                took: list[float] = []
                cost: list[int] = []
                for _ in range(RECONNECTS):
                    began = time.monotonic()
                    await alone.ask("cut")
                    took.append((await alone.settle(since=began, seconds=60))[-1] - began)
                    cost.append((await alone.wire()).bytes)
                after = await alone.status()
            middle = RECONNECTS // 2
            row = {"bench": "reconnect", **self._how(), "nodes": 1, "objects": held, "reconnects": RECONNECTS}
            row |= {"ms": round(sorted(took)[middle] * 1000, 1), "max_ms": round(max(took) * 1000, 1)}
            row |= {"wire_bytes": sorted(cost)[middle], "events": after["page_events"] - before["page_events"]}
            self.tell(row)
            line.detail(f"{row['ms']} ms, {row['wire_bytes']} bytes")

    # --- small things

    async def _traffic(self) -> usage.Traffic | None:
        return await _maybe(self.lab.traffic())

    def _meter(self) -> usage.Meter:
        return usage.Meter(self.lab.groups(self.fleet.pids))

    def _left(self, began: float) -> float:
        """Seconds of a phase that began then, less what is needed to tell of it."""
        return max(10.0, self.plan.phase_s * 0.9 - (time.monotonic() - began))

    def _how(self) -> Row:
        p = self.plan
        how: Row = {"nodes": self.fleet.count, "objects": p.objects, "via": p.via, "connections": self.fleet.connections}
        how |= {"sharing": p.nodes - sum(c.count for c in self.fleet.crews if c.per_connection == 1)}
        how |= {"servers": len(self.lab.servers), "with_log": self.lab.hub.replicas, "reports": p.reports}
        how |= {"link": "leaf" if p.leafs else "client", "tls": p.leafs or not p.plain}
        return how | {"gogc": self.lab.gogc, "pace": p.pace}

    def _row(self, name: str, meter: usage.Meter, **figures: Any) -> Row:
        rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
        return {"bench": name, **self._how(), **rounded, "used": meter.read(), "free_mb": usage.free_mb()}

    def _tell(self, name: str, meter: usage.Meter, **figures: Any) -> None:
        self.tell(self._row(name, meter, **figures))

    @asynccontextmanager
    async def _saying(self, name: str, figures: Callable[[], Row]) -> AsyncIterator[None]:
        """A row now and then while something long goes on."""
        began = time.monotonic()

        async def say() -> None:
            while True:
                await asyncio.sleep(SAY_EVERY_S)
                so_far = {"so_far_s": round(time.monotonic() - began, 1), **figures(), "free_mb": usage.free_mb()}
                self.tell({"bench": f"{name} goes on", **so_far})

        task = asyncio.create_task(say())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def _watched(self, line: Line) -> AsyncIterator[None]:
        """Nodes connect: how many have, and an end to it when the machine has no memory for more."""
        seen: Row = {}

        meter, due = self._meter(), 0.0

        async def look() -> None:
            nonlocal due
            while True:
                await asyncio.sleep(LOOK_S)
                if time.monotonic() > due:
                    due = time.monotonic() + STATUS_EVERY_S
                    status = await self.fleet.status()
                    seen.update({k: status[k] for k in ("connections", "synced", "objects")}, used=meter.read())
                    line.now(f"{status['synced']} in sync, {usage.free_mb():.0f} MB free")
                if usage.free_mb() < FREE_MB_MIN:
                    self.tell({"bench": "no memory for more nodes", **seen, "free_mb": usage.free_mb()})
                    await self.fleet.ask("enough")
                    return

        async with self._saying("connect", lambda: dict(seen)):
            task = asyncio.create_task(look())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _rest(self) -> None:
        """Until hub and cloud rest, but for the beats of so many nodes; what does not come to rest is said, and measured."""
        cores = QUIET_CORES + BEAT_CPU_S * self.fleet.count / self.plan.beat_s
        try:
            await self.lab.quiet(REST_S, cores)
        except StepFailed as e:
            self.tell({"bench": "no rest", "reason": str(e), "cores": round(cores, 2), "used": self._meter().read()})

    async def _meta_messages(self) -> int:
        return sum(i.messages for i in await self._meta())

    async def _meta(self) -> list[log.StreamInfo]:
        return [await self.lab.log.info(f"META-{n}") for n in range(self.lab.hub.shards)]

    async def _outboxes_empty(self) -> None:
        while (await self.fleet.status())["outbox"]:
            await asyncio.sleep(LOOK_S)

    async def _compare(self, after: str) -> None:
        """Raises FleetError unless the nodes hold what the log says, bit for bit.

        The log must stand still meanwhile: what the dispatcher still writes is waited for, and what came all the same
        while we read is a reason to read again."""
        began = time.monotonic()
        while True:
            await self._rest()
            ends = [i.last_seq for i in await self._meta()]
            digest, objects = await truth.digest(self.lab.log, self.lab.hub.shards, self.fleet.names)
            same = await self.fleet.holds(objects, digest, 60)
            if same or (ends == [i.last_seq for i in await self._meta()] or time.monotonic() > began + COMPARE_S):
                break
        if not same:
            held = (await self.fleet.status())["objects"]
            raise FleetError(
                f"after {after} the nodes hold {held} objects, the log says {objects}, or they differ in content"
            )
        row = {"bench": "same", "after": after, **self._how(), "converged": objects}
        self.tell({**row, "took_s": round(time.monotonic() - began, 1)})


RECONNECTS = 9
GIVEN_BACK_S, GIVING_S, GIVES_NO_MORE = 60.0, 3.0, 0.995
_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def _times(seconds: list[float], digits: int = 2) -> dict[str, float]:
    """Seconds until 50, 99, 99.9 and 100 % were there; ``seconds`` is sorted."""
    return {
        "half_s": round(percentile(seconds, 0.5), digits),
        "p99_s": round(percentile(seconds, 0.99), digits),
        "p999_s": round(percentile(seconds, 0.999), digits),
        "all_s": round(seconds[-1], digits),
    }


def _between(before: usage.Traffic | None, after: usage.Traffic | None) -> dict[str, int] | None:
    if before is None or after is None:
        return None
    return {"in": after.in_bytes - before.in_bytes, "out": after.out_bytes - before.out_bytes}


async def _maybe(asked: Awaitable[T]) -> T | None:
    """None when it could not be had: a figure beside the point, that must not cost the phase that it is of."""
    try:
        return await asked
    except FAILURES:
        return None


def _words(error: BaseException) -> str:
    """What failed first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or ("it took too long" if isinstance(error, TimeoutError) else repr(error))
