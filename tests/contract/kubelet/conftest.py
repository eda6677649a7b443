"""A cluster behind a front that connects to kubelets, a hub, a bridge that serves them, and a node whose link goes through a
relay; once for all tests of this room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ops.lab import setting
from ops.lab.world import World, free_port
from tests.contract.kube_served import Served, served
from tests.contract.kubelet.certificates import ClientCa
from tests.contract.kubelet.front import Front
from tests.contract.node_api.conftest import WAIT_S, Place, shell

T = TypeVar("T")
PORTS = 4  # for one node each


class Cluster:
    """An API server in a thread with a loop of its own: the world's commands block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster")
        self._stack = contextlib.AsyncExitStack()
        self.ca = ClientCa(folder)
        self.front: Front
        self.served: Served

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(WAIT_S)

    def start(self) -> None:
        self._thread.start()
        self.do(self._start())

    async def _start(self) -> None:
        def connect(api: Any) -> Any:
            self.front = Front(api, self.ca.issue("kube-apiserver-kubelet-client", "system:masters"))
            return self.front.handlers()

        self.served = await self._stack.enter_async_context(served(self._folder, rights=True, connect=connect))
        published = {
            "metadata": {"name": "extension-apiserver-authentication"},
            "data": {"client-ca-file": self.ca.pem},
        }
        await self.served.api.create("", "configmaps", "kube-system", published, how=self.served.how())

    async def create(self, group: str, resource: str, namespace: str, obj: dict[str, Any]) -> dict[str, Any]:
        return await self.served.api.create(group, resource, namespace, obj, how=self.served.how())

    def stop(self) -> None:
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Bridged(Place):
    cluster: Cluster
    kubelet_port: int
    ports: range
    folder: Path


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridged]:
    folder = tmp_path_factory.mktemp("kubelet")
    world = World(folder / "world")
    world.folder.mkdir()
    (folder / "cluster").mkdir()
    cluster = Cluster(folder / "cluster")
    node = f"kubelet-{secrets.token_hex(4)}"  # the engine is shared with other tests
    cluster.start()
    try:
        world.kubeconfig = cluster.served.kubeconfig
        setting.hub(world)
        port, ports = free_port(), free_range()
        told = ("--kubelet", f"127.0.0.1:{port}", "--kubelet-ports", f"{ports[0]}-{ports[-1]}")
        where = ("--hub", str(world.hub), "--cluster", str(world.kubeconfig))
        world.start("cloud", "cloud", "run", *where, *told)
        world.until("the kubelets are served, and join before them", lambda: listens(port), seconds=WAIT_S)
        wire = setting.wire(world)
        setting.join(world, node, through=wire)
        setting.start_edge(world, node, beat_s=1)
        made = Bridged(world, wire, node)
        made.cluster, made.kubelet_port, made.ports, made.folder = cluster, port, ports, folder
        world.until("the node is there", lambda: "addresses" in world.get("node", node).get("status", {}), seconds=WAIT_S)
        made.pod("two", shell("main", SLEEPER), shell("side", "echo beside; exec sleep 100000"), **PLAIN)
        yield made
    finally:
        setting.down(world)
        cluster.stop()


SLEEPER = "i=0; while :; do echo line $i; echo err $i >&2; i=$((i+1)); [ $i -lt 20 ] || break; done; exec sleep 100000"
PLAIN: dict[str, Any] = {"automountServiceAccountToken": False}


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def free_range() -> range:
    """Ports side by side that nobody listens on now, below those that the kernel gives out by itself."""
    low = 20_000 + os.getpid() % 5_000 * 2
    for first in range(low, 32_000, PORTS):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + PORTS):
                s = stack.enter_context(socket.socket())
                s.bind(("127.0.0.1", port))
            return range(first, first + PORTS)
    raise AssertionError("no free ports")
