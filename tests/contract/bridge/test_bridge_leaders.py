"""Two bridges, one leader: by the log's lease and the cluster's, through kill -9 and a pause that is longer than both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud.bridge import credentials, election, kinds
from cloud.bridge.client import Client
from cloud.standalone.storage import ClusterStorage
from schemas.subjects import ObjectKey
from tests.contract.bridge.faults import FaultyProxy
from tests.contract.bridge.worlds import NODE, pod, pods, until
from tests.contract.hub_fixture import RunningHub, hub
from tests.contract.kube_served import TOKEN, Served, served

__all__ = ["hub"]
pytestmark = pytest.mark.contract

LEASE = ObjectKey("coordination.k8s.io", "leases", election.NAMESPACE, election.NAME)


class Replica:
    """A process of its own, and all that it asks of the cluster."""

    def __init__(self, process: asyncio.subprocess.Process, proxy: FaultyProxy) -> None:
        self.process, self.proxy = process, proxy

    @property
    def writes(self) -> list[tuple[str, str]]:
        """All but what leaders are chosen by."""
        asked = [(method, path) for method, path, _ in self.proxy.requests if method != "GET"]
        return [a for a in asked if not a[1].endswith(f"/leases/{election.NAME}") and not a[1].endswith("/leases")]

    @property
    def leads(self) -> bool:
        return self.proxy.watches > 0

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


def kubeconfig(cluster: Served, proxy: FaultyProxy, path: Path) -> Path:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{proxy.port}"}
    config["users"][0]["user"] = {"token": TOKEN}
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.asynccontextmanager
async def proxied(cluster: Served) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy(cluster.url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@contextlib.asynccontextmanager
async def replica(hub: RunningHub, cluster: Served, folder: Path, name: str) -> AsyncIterator[Replica]:
    async with proxied(cluster) as proxy:
        config = kubeconfig(cluster, proxy, folder / f"kubeconfig-{name}")
        argv = ["cloud", "run", "--hub", str(hub.hub.dir), "--cluster", str(config), "--part", "bridge"]
        with (folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ops.cli", *argv, stdout=log, stderr=log)
        try:
            yield Replica(process, proxy)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def edge(cluster: Served) -> None:
    meta = {"name": "edge-1", "labels": {kinds.EDGE_LABEL: ""}}
    await cluster.api.create("", "nodes", "", {"apiVersion": "v1", "kind": "Node", "metadata": meta}, how=cluster.how())


async def add(cluster: Served, name: str) -> None:
    """A pod that the leader has something to write to: its tolerations."""
    await cluster.api.create("", "pods", "default", pod(name, tolerations=[]), how=cluster.how())


def settled(cluster: Served, key: ObjectKey) -> bool:
    now = cluster.storage.get(key)
    return now is not None and bool(now.object["spec"].get("tolerations"))


@pytest.mark.timeout(180)
async def test_a_leader_is_killed_and_another_is_paused_and_wakes(hub: RunningHub, tmp_path: Path) -> None:
    async with served(tmp_path) as cluster, contextlib.AsyncExitStack() as stack:
        await edge(cluster)
        storage = ClusterStorage(hub.log)
        await storage.start()
        stack.push_async_callback(storage.stop)
        first = await stack.enter_async_context(replica(hub, cluster, tmp_path, "first"))
        await until(lambda: storage.get(NODE) is not None)
        second = await stack.enter_async_context(replica(hub, cluster, tmp_path, "second"))
        third = await stack.enter_async_context(replica(hub, cluster, tmp_path, "third"))
        a, b, c = pods("a", "b", "c")
        await add(cluster, "a")
        await until(lambda: settled(cluster, a) and storage.get(a) is not None)

        first.signal(signal.SIGKILL)
        await add(cluster, "b")
        await until(lambda: settled(cluster, b) and storage.get(b) is not None)
        leader, other = (second, third) if second.leads else (third, second)
        assert leader.leads and not other.leads

        leader.signal(signal.SIGSTOP)
        await add(cluster, "c")
        await until(lambda: settled(cluster, c) and storage.get(c) is not None)
        assert other.leads
        wrote = len(leader.writes)
        lease = cluster.storage.get(LEASE)
        assert lease is not None and lease.object["spec"]["leaseTransitions"] >= 2
        last = (await hub.log.info("CLUSTER")).last_seq

        leader.proxy.cut()  # as an API server does with who answers nothing; what it had heard before is in its buffers
        leader.signal(signal.SIGCONT)
        said = tmp_path / ("second.log" if leader is second else "third.log")
        await until(lambda: b"lease.ended" in said.read_bytes())
        d = pods("d")[0]
        await add(cluster, "d")
        await until(lambda: settled(cluster, d) and storage.get(d) is not None)
        assert len(leader.writes) == wrote, f"a leader of yesterday wrote {leader.writes[wrote:]}"
        seen = [s.rev for key in (a, b, c) if (s := storage.get(key)) is not None]
        assert all(rev <= last for rev in seen), "nothing of the old leader's is in the log"


async def test_two_hubs_on_one_cluster_wait_for_each_other(tmp_path: Path) -> None:
    at_work: list[str] = []

    async def work(name: str) -> None:
        assert not at_work, f"{name} works beside {at_work}"
        at_work.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            at_work.remove(name)

    async with served(tmp_path) as cluster, contextlib.AsyncExitStack() as stack:
        contests: dict[str, tuple[FaultyProxy, election.Election, asyncio.Task[None]]] = {}

        async def enter(name: str) -> None:
            proxy = await stack.enter_async_context(proxied(cluster))
            client = Client(credentials.load(kubeconfig(cluster, proxy, tmp_path / name)))
            stack.push_async_callback(client.close)
            made = election.Election(client, name, "me", lease_s=6)
            task = asyncio.create_task(made.run(lambda: work(name)))
            stack.push_async_callback(lambda: asyncio.gather(task, return_exceptions=True))
            stack.callback(task.cancel)
            contests[name] = proxy, made, task

        def holder() -> Any:
            lease = cluster.storage.get(LEASE)
            return lease.object["spec"]["holderIdentity"] if lease is not None else None

        def renewed() -> Any:
            lease = cluster.storage.get(LEASE)
            return lease.object["spec"]["renewTime"] if lease is not None else None

        await enter("one")
        await until(lambda: at_work == ["one"])
        await enter("two")
        for _ in range(4):  # renewals; as long as they come nobody else leads
            before = renewed()
            await until(lambda before=before: renewed() != before)
            assert holder() == "one_me" and not contests["two"][1].leads
        await contests["one"][0].down()  # cut off from the cluster: it ends by itself, before the other begins
        await until(lambda: at_work == ["two"])
        assert holder() == "two_me" and not contests["one"][1].leads
        await contests["one"][0].up()
        contests["two"][2].cancel()  # a clean end gives the lease back
        await until(lambda: at_work == ["one"])
        for _, _, task in contests.values():
            assert not task.done() or task.cancelled(), task.exception()


async def test_a_write_is_refused_right_before_it_is_sent(tmp_path: Path) -> None:
    async with served(tmp_path) as cluster, proxied(cluster) as proxy:
        leads = True
        client = Client(credentials.load(kubeconfig(cluster, proxy, tmp_path / "k")), leads=lambda: leads)
        path = kinds.path(("", "configmaps"), "default")
        body = {"metadata": {"name": "x"}, "data": {"a": "1"}}
        try:
            await client.create(path, body)
            leads = False
            for refused in (
                client.create(path, {**body, "metadata": {"name": "y"}}),
                client.update(path, "x", body),
                client.patch(path, "x", {"data": {"a": "2"}}),
                client.delete(path, "x", {}),
            ):
                with pytest.raises(Exception, match="another process leads"):
                    await refused
            assert (await client.get(path, "x"))["data"] == {"a": "1"}, "reading goes on"
        finally:
            await client.close()
        assert [m for m, _, _ in proxy.requests] == ["POST", "GET"]
