"""A hub, a cloud and a node whose link goes through a relay, as processes; once for all tests of this room."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.lab import setting
from ops.lab.world import Wire, World, pod_ready

KUBECTL = str(Path(sys.executable).parent / "kubectl")
WAIT_S = 60  # for a process on a busy machine


@dataclass
class Place:
    world: World
    wire: Wire
    node: str

    def argv(self, *args: str) -> list[str]:
        return [KUBECTL, "--kubeconfig", str(self.world.kubeconfig), *args]

    def run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.argv(*args), input=stdin, capture_output=True, timeout=WAIT_S, check=False)

    def ok(self, *args: str, stdin: bytes = b"") -> bytes:
        """What kubectl wrote; it must have worked."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == 0, (args, done.stdout[-500:], done.stderr)
        return done.stdout

    def pod(self, name: str, *containers: dict[str, Any], ready: bool = True, **spec: Any) -> None:
        """A pod of this node, waited for."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": self.node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"image": "busybox:1.36", **c} for c in containers],
                **spec,
            },
        }
        self.ok("create", "-f", "-", stdin=json.dumps(pod).encode())
        if ready:
            self.world.until(f"pod {name} is ready", lambda: pod_ready(self.world.get("pod", name)), seconds=WAIT_S)


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["sh", "-c", script], **more}


@contextlib.contextmanager
def forwarded(place: Place, pod: str, port: int, **env: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """(local port, kubectl)."""
    argv, pipe = place.argv("port-forward", pod, f":{port}"), subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, env={**os.environ, **env}) as client:
        assert client.stdout is not None
        try:
            line = client.stdout.readline().decode()
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
            assert found, (line, client.stderr.read() if client.stderr and not line else "")
            yield int(found[1]), client
        finally:
            client.kill()


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    world = World(tmp_path_factory.mktemp("node-api"))
    node = f"node-api-{secrets.token_hex(4)}"  # the engine is shared with other tests
    try:
        setting.hub(world)
        setting.cloud(world)
        wire = setting.wire(world)
        setting.join(world, node, through=wire)
        setting.start_edge(world, node, beat_s=1)
        world.until("the node is ready", lambda: world.get("node", node), seconds=WAIT_S)
        made = Place(world, wire, node)
        sleeper = (
            "i=0; while :; do echo line $i; echo err $i >&2; i=$((i+1)); [ $i -lt 20 ] || break; done; exec sleep 100000"
        )
        made.pod("two", shell("main", sleeper), shell("side", "echo beside; exec sleep 100000"))
        yield made
    finally:
        setting.down(world)
