"""The bridge through an API server that fails, whichever: our own, and the one that SKERRY_TEST_KUBECONFIG names.

A proxy stands between them and misbehaves; changes are made behind it, while it does.  In the end CLUSTER has what the
cluster has, and no change came twice.  What needs another state of the cluster itself (a backup) runs on our own only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from bus.kube.errors import StatusError
from cloud.bridge import credentials, kinds
from cloud.bridge.bridge import Bridge
from cloud.bridge.client import Client, Selection
from schemas.subjects import ObjectKey
from tests.contract.bridge import faults
from tests.contract.bridge.worlds import World, mounting, pod
from tests.contract.kube_served import served

pytestmark = pytest.mark.contract
GIVEN = os.environ.get("SKERRY_TEST_KUBECONFIG", "")
ROUNDS = 3
WAIT_S = 60
Step = Callable[["Ground"], Awaitable[None]]


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await check():
            await asyncio.sleep(0.05)


@dataclass
class Ground:
    """A namespace and an edge node of a cluster, and a log that a bridge fills through a proxy."""

    world: World
    client: Client
    proxy: faults.FaultyProxy
    kubeconfig: Path
    real: bool
    name: str = field(default_factory=lambda: f"skerry-test-{secrets.token_hex(4)}")
    why: str = ""

    @property
    def pods(self) -> Any:
        return kinds.path(kinds.PODS, self.name)

    @property
    def maps(self) -> Any:
        return kinds.path(("", "configmaps"), self.name)

    async def settled(self) -> None:
        try:
            await until(self.agrees)
        except TimeoutError as e:
            raise AssertionError(self.why) from e

    async def begin(self) -> None:
        await self.client.create(kinds.path(("", "namespaces")), {"metadata": {"name": self.name}})
        meta = {"name": self.name, "labels": {kinds.EDGE_LABEL: ""}}
        await self.client.create(kinds.path(kinds.NODES), {"metadata": meta})
        if self.real:
            await until(self._has_account)
        await self.map("shared")

    async def _has_account(self) -> bool:
        """A real cluster takes no pod before its namespace's account is there."""
        with contextlib.suppress(StatusError):
            await self.client.get(kinds.path(("", "serviceaccounts"), self.name), "default")
            return True
        return False

    async def end(self) -> None:
        with contextlib.suppress(StatusError):
            for name in await self.there():
                await self.client.delete(self.pods, name, {"gracePeriodSeconds": 0})
        for kind in (("", "namespaces"), kinds.NODES):
            with contextlib.suppress(StatusError):
                await self.client.delete(kinds.path(kind), self.name, {})

    async def map(self, name: str) -> None:
        await self.client.create(self.maps, {"metadata": {"name": name}, "data": {"k": "0"}})

    async def change(self, n: int) -> None:
        """One pod comes, one changes, one goes; a config map comes and one changes; and the node says what runs."""
        await self.map(f"c-{n}")
        spec = mounting(f"c-{n}")
        spec["volumes"].append({"name": "shared", "configMap": {"name": "shared"}})
        made = await self.client.create(
            self.pods, pod(f"p-{n}", self.name, automountServiceAccountToken=False, **spec)
        )  # fmt: skip
        await self.client.patch(self.maps, "shared", {"data": {"k": str(n)}})
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        said = {"uid": made["metadata"]["uid"], "status": status}
        await self.world.report("pod", said, f"p-{n}", self.name, self.name)
        if n >= 1:
            await self.client.patch(self.pods, f"p-{n - 1}", {"metadata": {"labels": {"n": str(n)}}})
        if n >= 2:
            await self.client.delete(self.pods, f"p-{n - 2}", {"gracePeriodSeconds": 0})

    async def there(self) -> dict[str, dict[str, Any]]:
        """The pods of the cluster."""
        found: dict[str, dict[str, Any]] = {}
        async with contextlib.aclosing(self.client.pages(self.pods, Selection())) as pages:
            async for page in pages:
                found |= {p["metadata"]["name"]: p for p in page.items}
        return found

    async def agrees(self) -> bool:
        self.why = await self._differs()
        return not self.why

    async def _differs(self) -> str:
        """How CLUSTER is not what the cluster is, "" when it is."""
        cluster = await self.there()
        here = {s.key.name: s for s in self.world.storage.list("", "pods", self.name)}
        revisions = {n: p["metadata"]["resourceVersion"] for n, p in cluster.items()}
        if (known := {n: str(s.source_rev) for n, s in here.items()}) != revisions:
            return f"pods {revisions} are known as {known}"
        if other := [n for n, s in here.items() if kinds.stored_form(kinds.PODS, cluster[n]) != s.object]:
            return f"pods {other} are known otherwise than they are"
        if idle := {n: s for n, p in cluster.items() if (s := p.get("status") or {}).get("phase") != "Running"}:
            return f"pods that don't run: {idle}"
        named = {v["configMap"]["name"] for p in cluster.values() for v in p["spec"]["volumes"] if "configMap" in v}
        maps = {s.key.name: s for s in self.world.storage.list("", "configmaps", self.name)}
        if set(maps) != named:
            return f"config maps {sorted(named)} are known as {sorted(maps)}"
        for name, stored in maps.items():
            source = await self.client.get(self.maps, name)
            if (source["metadata"]["resourceVersion"], source["data"]) != (str(stored.source_rev), stored.object["data"]):
                return f"config map {name} is {source}, known at {stored.source_rev} as {stored.object['data']}"
        return ""

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncIterator[Counter[tuple[ObjectKey, str, int]]]:
        """Every change in CLUSTER, by object, kind of change, and revision at the cluster."""
        seen: Counter[tuple[ObjectKey, str, int]] = Counter()
        storage = self.world.storage
        after = storage.revision()

        async def follow(resource: str) -> None:
            async for change in storage.watch("", resource, after=after):
                if change.stored is not None and change.stored.key.namespace == self.name:
                    seen[change.stored.key, change.type, change.stored.source_rev] += 1

        tasks = [asyncio.create_task(follow(r)) for r in ("pods", "configmaps")]
        try:
            yield seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def ground(world: World, given: str, folder: Path) -> AsyncIterator[Ground]:
    who = credentials.load(Path(given) if given else world.cluster.kubeconfig)
    proxy = faults.FaultyProxy(who.url, who)
    await proxy.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "t", "cluster": {"server": f"http://127.0.0.1:{proxy.port}"}}],
        "users": [{"name": "t", "user": {}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
        "current-context": "t",
    }
    kubeconfig = folder / "kubeconfig-faults"
    kubeconfig.write_text(yaml.safe_dump(config))
    made = Ground(world, Client(who), proxy, kubeconfig, bool(given))
    try:
        await made.begin()
        yield made
    finally:
        await made.end()
        await made.client.close()
        await proxy.stop()


# --- faults: what is done before the changes, after each, and at the end -----------------------------------------------


async def nothing(g: Ground) -> None:
    return None


async def cut(g: Ground) -> None:
    g.proxy.cut()


async def heal(g: Ground) -> None:
    g.proxy.rules.clear()
    g.proxy.repeat, g.proxy.limit = 1, 0
    g.proxy.garble = lambda event: False


def first(times: int, answer: Callable[[], web.StreamResponse], when: Callable[[web.Request], bool]) -> faults.Rule:
    """The first requests of each path."""
    seen: Counter[str] = Counter()

    async def rule(request: web.Request) -> web.StreamResponse | None:
        if not when(request) or seen[request.path] >= times:
            return None
        seen[request.path] += 1
        return answer()

    return rule


def watches(request: web.Request) -> bool:
    return request.query.get("watch") == "1"


def expired() -> web.Response:
    return faults.status(410, "Expired")


async def watch_410(g: Ground) -> None:
    g.proxy.rules.append(first(2, expired, watches))


async def event_410(g: Ground) -> None:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "m"}
    line = json.dumps({"type": "ERROR", "object": body}) + "\n"
    g.proxy.rules.append(first(2, lambda: web.Response(text=line, content_type="application/json"), watches))


async def list_410(g: Ground) -> None:
    """The list that a 410 asks for gets one itself, after its first page."""
    g.proxy.limit = 1
    g.proxy.rules.append(first(1, expired, watches))
    g.proxy.rules.append(first(2, expired, lambda r: "continue" in r.query))


async def compacted(g: Ground) -> None:
    """Everything before now is forgotten, for watches and for the rest of lists."""
    g.proxy.limit = 1
    floor = await g.client.revision_now(kinds.path(kinds.PODS))

    async def rule(request: web.Request) -> web.StreamResponse | None:
        old = watches(request) and int(request.query["resourceVersion"]) < floor
        return expired() if old else None

    g.proxy.rules.append(rule)
    g.proxy.rules.append(first(1, expired, lambda r: "continue" in r.query))


async def busy(g: Ground) -> None:
    def answer() -> web.Response:
        refused = faults.status(429, "TooManyRequests")
        refused.headers["Retry-After"] = "1"
        return refused

    g.proxy.rules.append(first(2, answer, lambda r: r.method == "GET"))
    g.proxy.rules.append(first(1, answer, lambda r: r.method != "GET"))


async def now_and_then(g: Ground) -> None:
    chance = random.Random(7)

    async def rule(request: web.Request) -> web.StreamResponse | None:
        return faults.status(chance.choice((500, 502, 503)), "InternalError") if chance.random() < 0.3 else None

    g.proxy.rules.append(rule)


async def slow_lists(g: Ground) -> None:
    async def rule(request: web.Request) -> web.StreamResponse | None:
        if "limit" in request.query:
            await asyncio.sleep(0.2)
        return None

    g.proxy.rules += [first(1, expired, watches), rule]


async def twice(g: Ground) -> None:
    g.proxy.repeat = 2


async def garbled(g: Ground) -> None:
    """Every change comes as half a line, each time that it is asked for."""
    g.proxy.garble = lambda event: event["type"] != "BOOKMARK"


async def listed(g: Ground) -> None:
    """What no watch tells, lists do."""
    await g.settled()


async def conflicts(g: Ground) -> None:
    g.proxy.rules.append(first(2, lambda: faults.status(409, "Conflict"), lambda r: r.method in ("PUT", "PATCH")))


async def down(g: Ground) -> None:
    await g.proxy.down()


async def up(g: Ground) -> None:
    await g.proxy.up()


FAULTS: dict[str, tuple[Step, Step, Step]] = {
    "cut watches": (nothing, cut, nothing),
    "a watch that is too old": (watch_410, cut, heal),
    "a watch that becomes too old": (event_410, cut, heal),
    "410 in the midst of a list": (list_410, cut, heal),
    "a compaction": (compacted, cut, heal),
    "429 with Retry-After": (busy, cut, heal),
    "errors now and then": (now_and_then, cut, heal),
    "slow lists": (slow_lists, cut, heal),
    "every event twice": (twice, cut, heal),
    "half lines": (garbled, listed, heal),
    "conflicts": (conflicts, nothing, heal),
    "a server that restarts": (down, nothing, up),
}


@contextlib.asynccontextmanager
async def bridged(g: Ground) -> AsyncIterator[Bridge]:
    async with g.world.bridge(kubeconfig=g.kubeconfig) as bridge:
        yield bridge


@pytest.mark.parametrize("given", ["", *filter(None, [GIVEN])], ids=lambda g: "given" if g else "our own")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault(world: World, tmp_path: Path, fault: str, given: str) -> None:
    before, after_each, at_last = FAULTS[fault]
    async with ground(world, given, tmp_path) as g, g.counted() as seen:
        await g.change(0)
        async with bridged(g):
            await g.settled()
            await before(g)
            await cut(g)
            for n in range(1, ROUNDS + 1):
                await g.change(n)
                await after_each(g)
            await at_last(g)
            await g.settled()
        assert all(count == 1 for count in seen.values()), f"told twice: {[k for k, c in seen.items() if c > 1]}"
        assert {k.name for k, kind, _ in seen if kind == "ADDED" and k.resource == "pods"} >= {f"p-{ROUNDS}", "p-0"}


async def test_a_backup_and_watches_of_the_future_that_are_silent(world: World, tmp_path: Path) -> None:
    """As a real API server: who watches from a revision that is not there yet hears nothing, for as long as it takes."""
    async with ground(world, "", tmp_path) as g, served(tmp_path / "old") as old:
        waiting: set[str] = set()

        async def silent(request: web.Request) -> web.StreamResponse | None:
            if not watches(request) or int(request.query["resourceVersion"]) <= old.storage.revision():
                return None
            waiting.add(request.path)
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
            return response

        await g.change(0)
        async with bridged(g):
            await g.settled()
            for n in range(1, 30):
                await g.client.patch(g.maps, "shared", {"data": {"k": f"later-{n}"}})
            await g.settled()
            newest = await g.client.revision_now(kinds.path(kinds.PODS))
            await g.proxy.down()
            there = g.client
            who = credentials.load(old.kubeconfig)
            g.client, g.proxy.upstream = Client(who), old.url
            g.proxy.who = who
            g.proxy.rules.append(silent)
            try:
                await g.begin()
                await g.change(0)
                assert old.storage.revision() < newest
                await g.proxy.up()
                await g.settled()
                await g.change(1)
                await g.settled()
                assert old.storage.revision() < newest, "still in what was the past"
            finally:
                await g.client.close()
                g.client = there
        assert not waiting, "nobody asked for the future"
