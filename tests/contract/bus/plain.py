"""A plain nats-server with JetStream for tests of the log: no accounts, no TLS, one META and one CLUSTER stream."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bus import log
from bus.connect import Connection, ConnectSettings, connect
from schemas import event, subjects


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def server_binary() -> str:
    found = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, "nats-server is in the locked requirements"
    return found


class PlainServer:
    """start, kill -9 and restart on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = subprocess.Popen(
            [server_binary(), "-js", "-sd", str(self.folder), "-a", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                    return
            except OSError:
                await asyncio.sleep(0.02)
        raise AssertionError("nats-server did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


async def client(server: PlainServer) -> Connection:
    return await connect(ConnectSettings(urls=(server.url,), name="test"))


async def make_streams(store: log.Log, epoch: str = "epoch-1") -> None:
    common = {"allow_direct": True, "max_msgs_per_subject": 8, "storage": "file", "metadata": {log.EPOCH_METADATA: epoch}}
    meta = {"name": "META-0", "subjects": ["meta.0.>"], "republish": {"src": "meta.0.>", "dest": "live.>"}}
    await store.request("STREAM.CREATE.META-0", {**common, **meta})
    await store.request("STREAM.CREATE.CLUSTER", {**common, "name": "CLUSTER", "subjects": ["cluster.>"]})
    await store.request("STREAM.CREATE.REPORT-0", {**common, "name": "REPORT-0", "subjects": ["report.0.>"]})


def now_us() -> int:
    return time.time_ns() // 1000


def make_event(
    key: subjects.ObjectKey, data: dict[str, Any] | None, scope: str = "", prev: int | None = None
) -> event.Event:
    i = event.uuid7(now_us(), os.urandom(10))
    return event.Event(
        id=i, type=event.OBJECT_APPLIED if data is not None else event.OBJECT_DELETED, scope=scope, group=key.group,
        resource=key.resource, namespace=key.namespace, name=key.name, time=now_us(), source="test@0", trace=i, prev=prev,
        data=data,
    )  # fmt: skip


def cm(name: str) -> subjects.ObjectKey:
    return subjects.ObjectKey("", "configmaps", "default", name)


class Writer:
    """Writes one scope's chain, as the dispatcher does."""

    def __init__(self, store: log.Log, scope: str) -> None:
        self.log, self.scope, self.head = store, scope, 0

    async def put(self, name: str, data: dict[str, Any] | None) -> int:
        ev = make_event(cm(name), data, self.scope, self.head)
        expect = log.Expect(self.head, subjects.meta_scope(self.scope, 1))
        self.head = await self.log.append(subjects.meta(self.scope, cm(name), 1), ev, expect=expect)
        return self.head
