"""The fleet from outside: workers as processes, spoken to over pipes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from bus import link
from ops.fleet import worker
from ops.fleet.wire import Wire
from ops.lab.processes import Processes

MEMORY = {"MALLOC_ARENA_MAX": "1"}  # of glibc: one thread works, and what it frees is used again
ANSWER_BYTES_MAX = 16 << 20  # latencies of some hundred thousand changes
LOOK_S = 0.5  # a worker looks at thousands of nodes to tell of them
END_S = 60.0  # of a worker that closes thousands of connections


class FleetError(Exception):
    """A worker ended or a node's part failed; the message says where its log is."""


def shares(nodes: int, per_connection: int, workers: int) -> list[int]:
    """Nodes of each process: over ``workers``, or over more where these couldn't hold the connections."""
    n = max(min(workers, nodes), -(-nodes // (worker.NODES_MAX * per_connection)))
    return [nodes // n + (i < nodes % n) for i in range(n)]


class Fleet:
    """``count`` nodes from number ``first`` on, over some processes.  ``async with``; ``ask`` asks all workers at once.

    ``shared``: how many of them, the last ones, are ``per_connection`` on one connection (None: all)."""

    def __init__(
        self,
        processes: Processes,
        hub: Path,
        count: int,
        *,
        first: int = 0,
        workers: int | None = None,
        urls: list[str] | None = None,
        per_connection: int = 1,
        shared: int | None = None,
        beat_s: float = link.BEAT_S,
        reports: bool = True,
        leafs: bool = False,
        pace: int = 0,
    ) -> None:
        together = count if shared is None else shared
        kinds = [(count - together, 1), (together, per_connection)]
        self.crews: list[worker.Crew] = []
        at = first
        for nodes, size in kinds:
            for share in shares(nodes, size, workers or os.cpu_count() or 1):
                source = f"127.0.{1 + first // 65536}.{1 + len(self.crews)}"
                self.crews.append(worker.Crew(str(hub), at, share, urls or [], source, size, beat_s, reports, leafs, pace))
                at += share
        self.count, self.names = count, [worker.node_name(first + i) for i in range(count)]
        self.connections = sum(-(-c.count // c.per_connection) for c in self.crews)
        self._processes = processes
        self._workers: list[asyncio.subprocess.Process] = []
        self._waiting: list[dict[int, asyncio.Future[dict[str, Any]]]] = []
        self._listening: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)

    @property
    def pids(self) -> list[int]:
        return [w.pid for w in self._workers]

    async def __aenter__(self) -> Fleet:
        self._processes.logs.mkdir(parents=True, exist_ok=True)
        for i, crew in enumerate(self.crews):
            with (self._processes.logs / f"hollow-{crew.first}.log").open("ab") as err:
                w = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "ops.fleet.worker", worker.argument(crew),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=err, limit=ANSWER_BYTES_MAX,
                    start_new_session=True, env={**os.environ, **MEMORY},
                )  # fmt: skip
            self._workers.append(w)
            self._waiting.append({})
            self._listening.append(asyncio.create_task(self._listen(i), name=f"fleet.listen.{i}"))
            self._processes.remember(f"hollow-{i}-{crew.first}", w.pid)
        return self

    async def __aexit__(self, *_: object) -> None:
        for w in self._workers:
            assert w.stdin is not None
            w.stdin.close()
        for w in self._workers:
            try:
                async with asyncio.timeout(END_S):
                    await w.wait()
            except TimeoutError:
                w.kill()
                await w.wait()
        await asyncio.gather(*self._listening, return_exceptions=True)

    async def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """The workers' answers.  Raises FleetError."""
        return await asyncio.gather(*(self._ask(i, {"do": do, **arguments}) for i in range(len(self._workers))))

    async def _ask(self, worker: int, what: dict[str, Any]) -> dict[str, Any]:
        stdin = self._workers[worker].stdin
        assert stdin is not None
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[worker][number] = answer
        try:
            if self._listening[worker].done():
                raise FleetError(f"a worker has ended before {what['do']}; logs: {self._processes.logs}")
            stdin.write(json.dumps({"n": number, **what}).encode() + b"\n")
            await stdin.drain()
            found = await answer
        except OSError as e:
            raise FleetError(f"a worker does not answer {what['do']}: {e}; logs: {self._processes.logs}") from e
        finally:
            del self._waiting[worker][number]
        if "error" in found:
            raise FleetError(found["error"])
        return found

    async def _listen(self, worker: int) -> None:
        """Answers to whoever waits for them, until the worker ends."""
        waiting, out = self._waiting[worker], self._workers[worker].stdout
        assert out is not None
        try:
            while line := await out.readline():
                found = json.loads(line)
                answer = waiting.get(found.pop("n"))
                if answer is not None and not answer.done():
                    answer.set_result(found)
        finally:
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(FleetError(f"a worker ended; logs: {self._processes.logs}"))

    async def connect(self, seconds: float = 3600.0) -> None:
        """As many as come to have a connection within ``seconds``, or until ``enough``; the fleet is these from then on."""
        rows = await self.ask("connect", seconds=seconds)
        started = sorted(n for r in rows for n in r["started"])
        self.count, self.names = len(started), [worker.node_name(n) for n in started]
        self.connections = sum(r["connections"] for r in rows)
        if not started:
            raise FleetError(f"no node came to have a connection; logs: {self._processes.logs}")

    async def status(self) -> dict[str, Any]:
        """Sums over the workers.  Raises FleetError when a part of a node has failed."""
        rows = await self.ask("status")
        if failed := next((r["failed"] for r in rows if r["failed"]), ""):
            raise FleetError(failed)
        return {k: sum(r[k] for r in rows) for k in rows[0] if k != "failed"}

    async def settle(self, *, since: float = 0.0, seconds: float = 600.0) -> list[float]:
        """When each node came to be in sync (time.monotonic(), sorted).  Raises FleetError when some did not."""
        rows = await self.ask("settle", since=since, seconds=seconds)
        if left := sum(r["left"] for r in rows):
            raise FleetError(f"{left} of {self.count} nodes are not in sync after {seconds:g} s: {await self.status()}")
        return sorted(t for r in rows for t in r["synced_at"])

    async def told(self, count: int = 0, patience_s: float = 5.0) -> list[float]:
        """Latencies in seconds, sorted, of the stamped changes since the last call; waits for ``count``, as long as
        more come within ``patience_s`` (a change that a newer one has overtaken on the way never comes)."""
        loop = asyncio.get_running_loop()
        came, found = loop.time(), list[float]()
        while True:
            for row in await self.ask("told"):
                if row["latencies"]:
                    came = loop.time()
                    found += row["latencies"]
            if len(found) >= count or loop.time() > came + patience_s:
                return sorted(found)
            await asyncio.sleep(0.05)

    async def hold(self, objects: int, seconds: float = 60.0) -> int:
        """How many objects the nodes hold together; waits until it is ``objects``."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            held = int((await self.status())["objects"])
            if held == objects or asyncio.get_running_loop().time() > deadline:
                return held
            await asyncio.sleep(LOOK_S)

    async def holds(self, objects: int, digest: int, seconds: float = 60.0) -> bool:
        """Whether the nodes come to hold exactly this within ``seconds``."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            if await self.hold(objects, seconds) == objects and await self.digest() == digest:
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(LOOK_S)

    async def wire(self) -> Wire:
        return (await self.wire_of(0))[0]

    async def wire_of(self, first: int) -> tuple[Wire, int]:
        """What the first so many nodes of each worker (0: all) have carried, and how many these are."""
        rows = await self.ask("wire", first=first)
        nodes = sum(r.pop("nodes") for r in rows)
        return sum((Wire(**r) for r in rows), Wire()), nodes

    async def digest(self) -> int:
        return int(sum(r["digest"] for r in await self.ask("digest")))
