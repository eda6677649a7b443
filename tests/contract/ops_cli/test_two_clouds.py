"""Two whole cloud processes on one hub.  Whoever leads is stopped, killed, woken again, under load: nothing is made twice,
no scope's chain is broken, and somebody leads within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.cli import common
from ops.lab import setting
from ops.lab.api import Api
from ops.lab.world import World
from schemas import codec, leases, subjects

pytestmark = pytest.mark.contract

REPLICAS = 3
ROLES = ("controllers", "reports", "dispatcher-0", "dispatcher-1", "dispatcher-2", "dispatcher-3")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    w = World(tmp_path / "lab")
    try:
        setting.hub(w)
        setting.cloud(w)
        start(w, "b")
        yield w
    finally:
        for r in w.processes.alive():
            os.kill(r.pid, signal.SIGCONT)
        setting.down(w)


def config(w: World, name: str) -> Path:
    return w.kubeconfig if name == "cloud" else w.folder / f"kubeconfig-{name}"


def start(w: World, name: str) -> None:
    config(w, name).unlink(missing_ok=True)
    where = ("--hub", str(w.hub), "--listen", "127.0.0.1:0", "--kubeconfig", str(config(w, name)))
    w.start(name, "cloud", "run", *where)
    w.until(f"cloud {name} serves", config(w, name).exists, seconds=40)


def pids(w: World) -> dict[str, int]:
    return {r.name: r.pid for r in w.processes.alive() if r.name in ("cloud", "b", "c")}


async def holders(store: Any) -> dict[str, int]:
    """role -> pid that its lease names"""
    out = {}
    for role in ROLES:
        last = await store.last_of("LEASES", subjects.lease(role))
        about = codec.decode_as(leases.LeaseRecord, last.payload).about if last is not None else ""
        out[role] = int(about.rpartition(":")[2] or 0)
    return out


def deployment(n: int) -> dict[str, Any]:
    """Its pods are bound by name: the dispatcher writes each into the scope of a node."""
    labels = {"app": f"d{n}"}
    spec = {"nodeName": f"n{n % 4}", "containers": [{"name": "c", "image": "busybox:1.36"}]}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"d{n}"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }  # fmt: skip


class Load:
    """Makes deployments for ever, through whichever API answers."""

    def __init__(self) -> None:
        self.made = 0
        self.api: Api | None = None

    async def run(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # the API may be going: the same one again, it is only one object
                assert self.api is not None
                await self.api.call("POST", "/apis/apps/v1/namespaces/default/deployments", deployment(self.made))
                self.made += 1
            await asyncio.sleep(0.1)


async def test_leaders_that_are_stopped_or_killed_harm_nobody(world: World) -> None:
    w = world
    async with common.hub_log(w.hub, "test") as (_, _, store), contextlib.AsyncExitStack() as apis:

        async def through(name: str) -> Api:
            return await apis.enter_async_context(Api(config(w, name)))

        async def taken(role: str, *others: int) -> int:
            async with asyncio.timeout(40):
                while (pid := (await holders(store))[role]) in (0, *others):
                    await asyncio.sleep(0.1)
                return pid

        async def progress(load: Load) -> None:
            """Pods of the deployments made from now on are there: somebody works."""
            assert load.api is not None
            want = load.made + 5
            async with asyncio.timeout(60):
                while True:
                    pods = await load.api.call("GET", f"/api/v1/namespaces/default/pods?labelSelector=app%3Dd{want}")
                    if len(pods["items"]) == REPLICAS:
                        return
                    await asyncio.sleep(0.2)

        for role in ROLES:
            await taken(role)
        load = Load()
        load.api = await through("cloud")
        loading = asyncio.create_task(load.run())
        await progress(load)

        # stopped, replaced, woken
        leader = await taken("controllers")
        name = next(n for n, p in pids(w).items() if p == leader)
        other = next(n for n in pids(w) if n != name)
        load.api = await through(other)
        led = [role for role, pid in (await holders(store)).items() if pid == leader]
        os.kill(leader, signal.SIGSTOP)
        for role in led:
            assert await taken(role, leader) == pids(w)[other]
        await progress(load)
        os.kill(leader, signal.SIGCONT)
        await progress(load)

        # killed, and a third one comes
        leader = await taken("controllers")
        assert leader == pids(w)[other]
        load.api = await through(name)
        led = [role for role, pid in (await holders(store)).items() if pid == leader]
        w.processes.kill_9(other)
        for role in led:
            assert await taken(role, leader) == pids(w)[name]
        await progress(load)
        start(w, "c")

        # a clean end: nobody has to wait for the lease's time
        load.api = await through("c")
        w.processes.stop(name)
        await progress(load)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        # The last request may have been cut off after it was done.
        made = len((await load.api.call("GET", "/apis/apps/v1/namespaces/default/deployments"))["items"])
        assert made - load.made in (0, 1)

        async with asyncio.timeout(60):
            while True:
                pods = (await load.api.call("GET", "/api/v1/namespaces/default/pods"))["items"]
                if len(pods) == made * REPLICAS:
                    break
                await asyncio.sleep(0.3)
        await check_history(store, made)


async def check_history(store: Any, made: int) -> None:
    """Over every version that ever was: exactly the pods that were asked for, and an unbroken chain in every scope."""
    uids: Counter[str] = Counter()
    seen: set[str] = set()
    async with contextlib.aclosing(store.follow("HISTORY-CLUSTER", ["cluster.core.pods.>"])) as batches:
        async for batch in batches:
            for r in batch.records:
                ev = r.event()
                if ev.uid not in seen:
                    seen.add(ev.uid)
                    uids[ev.data["metadata"]["labels"]["app"]] += 1
            if batch.pending == 0 and len(seen) >= made * REPLICAS:
                break
    assert uids == {f"d{n}": REPLICAS for n in range(made)}, "a pod was made twice"
    links = 0
    async with asyncio.timeout(60):
        while sum([(await store.info(f"META-{n}")).messages for n in range(4)]) < made * REPLICAS:
            await asyncio.sleep(0.2)
    for shard in range(4):
        last = (await store.info(f"META-{shard}")).last_seq
        heads: dict[str, int] = {}
        if last == 0:
            continue
        async with contextlib.aclosing(store.follow(f"HISTORY-META-{shard}")) as batches:
            async for batch in batches:
                for r in batch.records:
                    ev = r.event()
                    assert ev.prev == heads.get(ev.scope, 0), f"{r.stream} #{r.seq} of {ev.scope}"
                    heads[ev.scope] = r.seq
                    links += 1
                if batch.records and batch.records[-1].seq >= last:
                    break
    assert links >= made * REPLICAS
    print(json.dumps({"pods": len(seen), "chain links": links}))
