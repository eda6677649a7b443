"""A node without a container engine: the daemon runs, says why the node is not ready, and goes on when the engine comes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.lab.nodes import Lab

pytestmark = pytest.mark.contract

UNIX = "unix://"


def test_without_an_engine_the_node_says_so_and_is_ready_when_one_comes(lab: Lab) -> None:
    real = os.environ["DOCKER_HOST"]
    assert real.startswith(UNIX), "this test hides the engine's socket: it needs one"
    socket = lab.folder / "engine.sock"
    node = lab.join("bare", DOCKER_HOST=f"{UNIX}{socket}")
    lab.start_daemon(node)
    status = lab.answers(node)
    assert status["runtime_ready"] is False
    lab.ready(node, "False")
    condition = lab.condition(node)
    assert condition["reason"] == "ContainerRuntimeDown"
    assert str(socket) in condition["message"]
    assert lab.node_status(node)["link"] == "up"
    lab.pod(node, "patient")  # ordered meanwhile: known to the node, and started as soon as there is an engine
    lab.until("the pod is known", lambda: lab.node_status(node)["replica"]["scopes"][node]["objects"] >= 1)
    socket.symlink_to(Path(real.removeprefix(UNIX)))
    lab.ready(node)
    lab.runs(node, "patient")
    lab.in_sync(node)
    socket.unlink()
    lab.processes.kill_9(node)
    lab.start_daemon(node)
    lab.ready(node, "False")
    assert "patient/sleep" in lab.containers(node)
    lab.processes.kill_9(node)
