"""What outlives the daemon, the store, the engine and lost replies: containers, and who is responsible for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.containers import labels, translate
from edge.containers.runtime import Runtime
from edge.containers.settings import RuntimeSettings
from edge.core.container_config import Identity
from tests.contract.edge import rim

pytestmark = pytest.mark.contract

MakeNode = Callable[..., rim.Node]


def ids(found: list[dict[str, Any]]) -> list[str]:
    return sorted(c["Id"] for c in found)


async def test_a_new_daemon_adopts_without_restarting(node: MakeNode, engine: rim.Engine) -> None:
    first = node()
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    pod = rim.pod("kept", rim.shell("main", rim.SLEEPER, readinessProbe=probe), rim.shell("other", rim.SLEEPER))
    first.apply(pod)
    await first.until(lambda: first.ready("kept"))
    before = ids(await engine.all())
    told = first.status("kept")
    await first.stop()
    assert ids(await engine.all()) == before

    second = node()
    second.apply(pod, loaded=True)
    second.rim.replica_complete()
    await second.until(lambda: second.ready("kept"))
    assert ids(await engine.all()) == before
    assert [c["restartCount"] for c in (second.status("kept") or {})["containerStatuses"]] == [0, 0]
    # It was never told as not ready meanwhile
    assert all(rim.condition(p.status, "Ready") == "True" for _, p, _, _ in second.payloads if p.status)
    assert told is not None
    same = ("podIP", "containerStatuses", "phase")
    assert {k: told[k] for k in same} == {k: (second.status("kept") or {})[k] for k in same}


DAEMON = """
import asyncio, json, sys
from pathlib import Path
from tests.contract.edge import rim

async def main():
    n = rim.Node("edge-test", sys.argv[1], Path(sys.argv[2]))
    n.apply(json.loads(sys.argv[3]))
    await n.until(lambda: n.ready("killed"))
    print("ready", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_kill_9_of_the_daemon_and_a_crash_while_it_is_dead(node: MakeNode, engine: rim.Engine, tmp_path: Path) -> None:
    pod = rim.pod("killed", rim.shell("steady", rim.SLEEPER), rim.shell("falls", rim.SLEEPER))
    root = Path(__file__).resolve().parents[3]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DAEMON,
        engine.hub,
        str(tmp_path / "node"),
        json.dumps(pod),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert daemon.stdout is not None
    async with asyncio.timeout(rim.WAIT_S):
        assert await daemon.stdout.readline() == b"ready\n"
    daemon.send_signal(signal.SIGKILL)
    await daemon.wait()
    [steady], [falls] = await engine.running("steady"), await engine.running("falls")
    await engine.client.containers.container(falls["Id"]).kill()

    n = node()
    n.apply(pod, loaded=True)
    await n.until(lambda: n.container("killed", "falls").get("restartCount") == 1 and n.ready("killed"))
    [still] = await engine.running("steady")
    assert still["Id"] == steady["Id"] and still["State"]["StartedAt"] == steady["State"]["StartedAt"]
    assert n.container("killed", "steady")["restartCount"] == 0


async def test_a_lost_store_costs_no_container_and_orphans_wait(node: MakeNode, engine: rim.Engine) -> None:
    first = node()
    pod, stray = rim.pod("claimed", rim.shell("main", rim.SLEEPER)), rim.pod("stray", rim.shell("lost", rim.SLEEPER))
    first.apply(pod)
    first.apply(stray)
    await first.until(lambda: first.ready("claimed") and first.ready("stray"))
    before = ids(await engine.all())
    await first.stop()

    # A node with an empty store: nobody claims anything, the replica is not complete
    second = node()
    await second.until(lambda: len(second.rim.core.pods) == 2)
    await asyncio.sleep(rim.QUICK.orphan_grace_ms / 1000 * 1.5)
    assert ids(await engine.all()) == before
    # The log's slice comes: one pod is claimed, the other's name is not in it
    second.apply(pod)
    second.rim.replica_complete()
    await second.until(lambda: second.ready("claimed"))
    assert len(await engine.running("lost")) == 1  # its grace period has only begun
    await second.until(lambda: second.gone("stray"), "the orphan's end")
    assert await engine.of("lost") == []
    assert ids(await engine.all()) == [i for i in before if i in ids(await engine.all())]
    assert len(await engine.running("main")) == 1
    assert second.payloads[-1][1].uid == stray["metadata"]["uid"]


async def test_the_same_name_with_another_uid_waits_for_the_old_one(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    port = [{"containerPort": 80, "hostPort": 0}]
    old = rim.pod("twice", rim.shell("main", rim.SLEEPER, ports=port))
    n.apply(old)
    await n.until(lambda: n.ready("twice"))
    new = rim.pod("twice", rim.shell("main", rim.SLEEPER, ports=port))
    n.apply(new)
    seen: list[int] = []
    uid = new["metadata"]["uid"]
    while not any(p.uid == uid and p.status and rim.condition(p.status, "Ready") == "True" for _, p, _, _ in n.payloads):
        seen.append(len(await engine.running("main")))
        assert len(seen) < 2000
        await asyncio.sleep(0.02)
    assert max(seen) == 1  # never two at once
    [main] = await engine.running("main")
    assert main["Config"]["Labels"][labels.POD_UID] == uid
    told = [p.uid for _, p, _, _ in n.payloads]
    # The name's reports are the new one's from its first on: a late word about the old one would replace them
    assert old["metadata"]["uid"] not in told[told.index(uid) :]


async def test_a_withdrawn_pod_is_stopped(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("moved", rim.shell("main", rim.SLEEPER)))
    await n.until(lambda: n.ready("moved"))
    n.withdraw("pods", "moved")
    await n.until(lambda: n.gone("moved"))
    assert await engine.all() == []


async def test_a_container_that_exists_already_is_adopted(node: MakeNode, engine: rim.Engine) -> None:
    """The reply to a create was lost: the container is there under its name, and no snapshot has shown it."""
    pod = rim.pod("lostreply", rim.shell("main", rim.SLEEPER))
    uid = pod["metadata"]["uid"]
    identity = Identity(uid, "default", "lostreply", "", 0)
    made: dict[str, str] = {}

    async def create_behind_its_back(n: rim.Node) -> None:
        label_map = labels.write(identity, "edge-test", engine.hub)
        body = {"Image": rim.IMAGE, "Cmd": ["sleep", "3600"], "Labels": label_map, "HostConfig": {"IpcMode": "shareable"}}
        made["id"] = (await engine.client.containers.create(body, name=labels.name(identity))).id

    n = node()
    await n.until(lambda: n.rim.runtime_ready[0])
    await create_behind_its_back(n)
    n.apply(pod)
    await n.until(lambda: n.ready("lostreply"))
    [sandbox] = await engine.of("")
    assert sandbox["Id"] == made["id"] and sandbox["State"]["Running"]


async def test_a_name_that_belongs_to_another_is_not_taken_over(engine: rim.Engine) -> None:
    """Two nodes on one engine: the labels decide, not the name."""
    identity = Identity("someone-elses", "default", "pod", "", 0)
    body = {
        "Image": rim.IMAGE,
        "Cmd": ["sleep", "3600"],
        "Labels": labels.write(identity, "another-node", engine.hub),
        "HostConfig": {},
    }
    await engine.client.containers.create(body, name=labels.name(identity))
    runtime = Runtime("edge-test", RuntimeSettings(hub=engine.hub))
    try:
        assert await runtime.snapshot() == []
        assert await runtime.named(identity) is None
    finally:
        await runtime.close()


async def test_without_an_engine_the_reason_is_said_and_it_heals(node: MakeNode, engine: rim.Engine, tmp_path: Path) -> None:
    """The engine behind a socket of our own, which we can take away: what a restart of the engine looks like from here."""
    path = tmp_path / "engine.sock"
    n = node(host=f"unix://{path}")
    n.apply(rim.pod("waits", rim.shell("main", rim.SLEEPER)))
    await n.until(lambda: "Cannot connect" in n.rim.runtime_ready[1], "the reason")
    assert n.rim.runtime_ready[0] is False and str(path) in n.rim.runtime_ready[1]
    assert n.payloads == []  # nothing is known, so nothing is claimed

    async with Proxy(path):
        await n.until(lambda: n.ready("waits"))
        before = ids(await engine.all())
    await n.until(lambda: not n.rim.runtime_ready[0], "the loss")
    assert n.ready("waits")  # what was known last stays said: the container did nothing wrong
    [main] = await engine.running("main")
    await engine.client.containers.container(main["Id"]).kill()
    async with Proxy(path):
        await n.until(lambda: n.container("waits", "main").get("restartCount") == 1 and n.ready("waits"))
        assert len(set(before) & set(ids(await engine.all()))) == 2  # the sandbox and the dead attempt
        await n.stop()


class Proxy:
    """A unix socket in front of the engine's; when it ends, so do its connections."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._path.unlink()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    @staticmethod
    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        writers = [writer]
        try:
            up, out = await asyncio.open_unix_connection(host.removeprefix("unix://"))
            writers.append(out)
            async with asyncio.TaskGroup() as both:
                both.create_task(copy(reader, out))
                both.create_task(copy(up, writer))
        finally:
            for one in writers:
                one.close()
            for one in writers:
                with contextlib.suppress(OSError):
                    await one.wait_closed()


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


async def test_engine_times_are_read_whole(engine: rim.Engine) -> None:
    body = {"Image": rim.IMAGE, "Cmd": ["true"], "Labels": labels.write(Identity("u", "d", "p", "c", 0), "n", engine.hub)}
    made = await engine.client.containers.create(body)
    shown = await made.show()
    seen = translate.observed(shown)
    assert seen is not None and seen.state == "created" and seen.started_us == 0
    assert abs(seen.created_us - translate.micros(shown["Created"])) == 0 and seen.created_us > 1_700_000_000_000_000
