"""The official Python client's streams: other subprotocols than kubectl's, text and binary messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.node_api.conftest import WAIT_S, Place, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]


def client(place: Place, what: str) -> None:
    argv = [sys.executable, str(Path(__file__).with_name("python_client.py")), str(place.world.kubeconfig), what]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr


def test_logs_and_commands(place: Place) -> None:
    client(place, "commands")


def test_ports(place: Place) -> None:
    place.pod("echo2", shell("c", "exec nc -ll -p 9000 -e cat"))
    client(place, "ports")
