"""A lab for edge nodes as processes: real hub, cloud, leafs, daemons, engine.  Everything is asked from outside, as an
operator would: the API by kubectl, the engine itself, `skerry edge status`, `skerry replay`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from bus import log
from ops import cli
from ops.cli import common, edge
from ops.lab import setting
from ops.lab.links import Links, RelayLinks
from ops.lab.processes import started_of
from ops.lab.show import Line, StepFailed
from ops.lab.world import World, node_ready, pod_ready
from schemas import subjects

T = TypeVar("T")

BEAT_S = 0.5
GRACE_S = "3"
LOG_LINES = 25  # of each process, in the message of what did not come true
QUIET_S = 2.0  # time in which a daemon that got something wrong would touch a container

Containers = dict[str, tuple[str, str]]


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """A command that ends takes its signal handlers away, and ours with them (asyncio's ``remove_signal_handler``)."""
    ours = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if ours else {}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


class Lab(World):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tail = secrets.token_hex(3)  # the engine is shared: names of other runs must not meet ours
        self.grace_s = GRACE_S
        self.links: Links = RelayLinks(self.processes)
        self.node_env: dict[str, dict[str, str]] = {}

    def until(self, what: str, check: Callable[[], object], *, seconds: float = 60, line: Line | None = None) -> Any:
        try:
            return super().until(what, check, seconds=seconds, line=line)
        except StepFailed as e:
            tails = [f"--- {f.name}\n" + "\n".join(f.read_text()[-8000:].splitlines()[-LOG_LINES:])
                     for f in sorted(self.processes.logs.glob("*.log"))]  # fmt: skip
            raise StepFailed("\n".join([str(e), *tails])) from e

    # --- in this process, because a Python that starts for each look would be most of these tests' time

    def node_status(self, node: str) -> dict[str, Any]:
        said = self.links.run_inside(node, lambda: asyncio.run(edge.ask_status(self.node_dir(node))))
        return {} if said is None else said.model_dump()

    def skerry(self, *args: str, check: bool = True) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _own_signals():
            code = cli.main(args)
        if check and code:
            raise StepFailed(f"skerry {' '.join(args[:8])}: exit {code}: {out.getvalue()}{err.getvalue()}")
        return out.getvalue()

    # --- nodes

    def join(self, name: str, **env: str) -> str:
        """A node that has joined; its link can be cut."""
        node = f"{name}-{self.tail}"
        url = self.links.add(node, setting.facts(self)["ports"]["leaf"])
        if setting.facts(self)["servers"]:
            url = None  # it knows all of them, and a relay would lead to one
        self.node_env[node] = env
        setting.join(self, node, through=url)
        return node

    def start_daemon(self, node: str, *, beat_s: float = BEAT_S) -> None:
        setting.start_edge(self, node, beat_s=beat_s, env=self.node_env[node], inside=self.links.inside(node))

    def restart_daemon(self, node: str) -> None:
        """kill -9 if it runs, then a new one, waited for."""
        self.processes.kill_9(node)
        self.start_daemon(node)
        self.answers(node)

    def answers(self, node: str) -> dict[str, Any]:
        pid = next(r.pid for r in self.processes.alive() if r.name == node)
        found: dict[str, Any] = self.until(
            "the daemon answers", lambda: s if (s := self.node_status(node)).get("pid") == pid else None
        )
        return found

    def ready(self, node: str, want: str = "True") -> dict[str, Any]:
        """The node once its Ready condition has this status."""
        found: dict[str, Any] = self.until(
            f"{node}: Ready is {want}", lambda: n if (n := self.get("node", node)) and node_ready(n) == want else None
        )
        return found

    def condition(self, node: str, kind: str = "Ready") -> dict[str, Any]:
        conditions = (self.get("node", node).get("status") or {}).get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})

    def log_of(self, node: str) -> str:
        return (self.processes.logs / f"{node}.log").read_text()

    def cut(self, node: str) -> None:
        self.links.cut(node)
        self.until("link down", lambda: self.node_status(node).get("link") == "down")

    def heal(self, node: str) -> None:
        self.links.heal(node)

    # --- pods

    def pod(self, node: str, name: str, *, label: str = "", config_map: str = "") -> None:
        """One container that sleeps; ``label`` is in its environment, to tell two of one name apart."""
        container: dict[str, Any] = {
            "name": "sleep",
            "image": "busybox:1.36",
            "command": ["sleep", "1000000"],
            "env": [{"name": "LABEL", "value": label}],
        }
        spec: dict[str, Any] = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
        if config_map:
            spec["volumes"] = [{"name": "v", "configMap": {"name": config_map}}]
            container["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

    def config_map(self, name: str, size: int) -> None:
        """One that takes this much room."""
        data = {"text": secrets.token_hex(size // 2)}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        self.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def delete(self, name: str) -> None:
        self.kubectl("delete", "pod", name, "--wait=false")

    def runs(self, node: str, name: str) -> None:
        """Ready in the API, and on the engine."""
        self.until(f"{name} is ready", lambda: pod_ready(self.get("pod", name)))
        if f"{name}/sleep" not in self.containers(node):
            raise StepFailed(f"{name} is Ready in the API, and does not run on {node}")

    def gone(self, node: str, name: str) -> None:
        self.until(
            f"{name} is gone", lambda: f"{name}/sleep" not in self.containers(node) and not self.get("pod", name), seconds=90
        )

    def env_of(self, container: str) -> dict[str, str]:
        out = self.docker("inspect", "--format", "{{json .Config.Env}}", container)
        return dict(e.split("=", 1) for e in json.loads(out))

    def killed(self, node: str, name: str) -> None:
        """Kills a pod's container on the engine, and waits for the next one."""
        old = self.containers(node)[f"{name}/sleep"]
        self.docker("kill", "-s", "KILL", old[0])
        self.until(f"{name} is back", lambda: self.containers(node).get(f"{name}/sleep", old) != old)

    def untouched(self, node: str, before: Containers) -> None:
        """These containers run, the same as before, and stay so."""
        deadline = time.monotonic() + QUIET_S
        while True:
            now = self.containers(node)
            if {k: now.get(k) for k in before} != before:
                raise StepFailed(f"containers of {node} were {before}, are {now}")
            if time.monotonic() > deadline:
                return
            time.sleep(0.3)

    # --- the log

    def ask(self, work: Callable[[log.Log, int], Awaitable[T]]) -> T:
        """``work(log, shards)`` over a CORE connection."""

        async def go() -> T:
            async with common.hub_log(self.hub, "test") as (hub, _, store):
                return await work(store, hub.shards)

        return asyncio.run(go())

    def last_of_scope(self, node: str) -> int:
        async def read(store: log.Log, shards: int) -> int:
            stream = f"META-{subjects.shard_of(node, shards)}"
            last = await store.last_of(stream, subjects.meta_scope(node, shards))
            return last.seq if last is not None else 0

        return self.ask(read)

    def in_sync(self, node: str) -> dict[str, Any]:
        """The daemon's status once its replica has all that the log has of its scope; the replica is then verified."""

        def look() -> dict[str, Any] | None:
            s = self.node_status(node)
            if s.get("link") != "up" or not s["replica"]["synced"] or s["outbox_pending"]:
                return None
            return s if s["replica"]["scopes"][node]["cursor"] >= self.last_of_scope(node) else None

        status: dict[str, Any] = self.until(f"{node} is in sync", look)
        self.verify(node)
        return status

    def verify(self, node: str) -> str:
        return self.skerry("replay", "verify", node, "--hub", str(self.hub), "--data", str(self.node_dir(node)))

    # --- processes

    def server_pid(self, folder: Path) -> int:
        """Of the nats-server in a hub's or a leaf's folder."""
        return int(json.loads((folder / "nats-server.pid.json").read_text())["pid"])

    def kill_server(self, folder: Path) -> None:
        """kill -9, and a new one, which its supervisor starts."""
        old = self.server_pid(folder)
        os.kill(old, signal.SIGKILL)
        self.until("another nats-server", lambda: self._other(folder, old))

    def kill_leaf_for_good(self, node: str) -> None:
        """kill -9 of a leaf whose daemon is dead already."""
        self.end_server(self.server_pid(self.node_dir(node) / "leaf"))

    def end_server(self, pid: int) -> None:
        """kill -9 of a nats-server whose supervisor is dead already."""
        os.kill(pid, signal.SIGKILL)
        self.until("the server is gone", lambda: started_of(pid) is None)

    def remove_containers(self, node: str) -> None:
        self.docker("rm", "-f", *self.docker("ps", "-aq", *self.of(node)).split())

    def _other(self, folder: Path, old: int) -> bool:
        with contextlib.suppress(OSError, ValueError):
            pid = self.server_pid(folder)
            return pid != old and started_of(pid) is not None
        return False

    def says(self, *args: str) -> tuple[int, str]:
        """Exit code and standard error of a command that may fail."""
        err = io.StringIO()
        with contextlib.redirect_stderr(err), _own_signals():
            code = cli.main(args)
        return code, err.getvalue()


def started(
    folder: Path,
    links: Callable[[Lab], Links] | None = None,
    *,
    servers: int = 1,
    cloud: Callable[[Lab], None] | None = None,
) -> Lab:
    """A lab with hub and cloud (one process, or what ``cloud`` starts); ended by ``setting.down``."""
    lab = Lab(folder)
    try:
        if links is not None:
            lab.links = links(lab)
        setting.hub(lab, lab.links.host, servers)
        if cloud is not None:
            cloud(lab)
        else:
            setting.cloud(lab, "--grace", lab.grace_s)
    except BaseException:
        setting.down(lab)
        lab.links.close()
        raise
    return lab
